//! The connection to one of the servers.
//!
//! A connection that is lost is not mended but made anew by whoever asks next: so nothing that was handed to an old one
//! is sent by a new one, what waits for an answer learns at once that none will come, and changed credentials count.

use std::{
    error::Error as _,
    future::ready,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ReconnectToServer, ServerInfo};
use herald_types::with_causes;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    super::engine::EngineError,
    session::{Events, Patience, Session},
    target::{Login, Target},
};

/// How a server's monitoring names this program's connections.
const CLIENT_NAME: &str = "herald";
/// How long one server may take to accept a connection, before the next one is asked.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// A server that is silent is asked for a sign of life so often; after the third without an answer it is left.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// What the largest batch needs, with its headers.
pub(super) const PAYLOAD_MIN: usize = 8_000_000;
/// The oldest servers that check the condition of an append before they replicate it.
const VERSION_MIN: (u64, u64) = (2, 11);
/// Servers may name others; so many are kept.
const SERVERS_MAX: usize = 32;
/// Messages that wait to be taken, of one subscription: twice what a follower asks for at once, and more would be lost.
const WAITING_MAX: usize = 4 * super::follow::MESSAGES_ASKED;

/// Makes connections, and keeps one.
pub(super) struct Link {
    pub(super) target: Target,
    /// In the order in which they are tried: one that has failed goes to the end.
    pub(super) servers: Mutex<Vec<String>>,
    patience: Arc<Patience>,
    // Asynchronous, because it is held while one is made, so that all who ask meanwhile get the same.
    pub(super) session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

impl Link {
    pub(super) fn new(target: Target) -> Self {
        // Replicas begin with different servers.
        let mut servers = target.servers.clone();
        servers.shuffle(&mut rand::rng());
        Self {
            target,
            servers: Mutex::new(servers),
            patience: Arc::default(),
            session: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, made now if there is none.
    pub(super) async fn session(&self, deadline: Instant) -> Result<Arc<Session>, EngineError> {
        let late = |_| EngineError::Away("no connection in time".into());
        let mut kept = timeout_at(deadline, self.session.lock()).await.map_err(late)?;
        if let Some(session) = kept.as_ref().filter(|session| session.is_usable()) {
            return Ok(Arc::clone(session));
        }
        if let Some(session) = kept.take() {
            self.put_last(&session.server);
        }
        let session = timeout_at(deadline, self.connect()).await.map_err(late)??;
        Ok(Arc::clone(kept.insert(Arc::new(session))))
    }

    async fn connect(&self) -> Result<Session, EngineError> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failures = Vec::new();
        let mut unfit = None;
        for server in &servers {
            let failure = match timeout(CONNECT_WAIT, self.connect_to(server)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(EngineError::Away(source))) => with_causes(&*source).to_string(),
                // An answer of one server, and the others may be no better: it is told if none is.
                Ok(Err(error)) => {
                    let text = error.to_string();
                    unfit.get_or_insert(error);
                    text
                }
                Err(_) => "no answer in time".to_owned(),
            };
            self.put_last(server);
            failures.push(format!("{server}: {failure}"));
        }
        Err(unfit.unwrap_or_else(|| EngineError::Away(failures.join("; ").into())))
    }

    fn put_last(&self, server: &str) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = servers.iter().position(|other| other == server) {
            servers[at..].rotate_left(1);
        }
    }

    async fn connect_to(&self, server: &str) -> Result<Session, EngineError> {
        let events = Events::default();
        let heard = events.clone();
        let options = self.options().await?.event_callback(move |event| {
            heard.note(&event);
            ready(())
        });
        let client = options.connect(server).await.map_err(|error| self.failed(server, &error))?;
        let info = client.server_info();
        tracing::info!(server = %server, name = %info.server_name, version = %info.version, "connected to NATS");
        self.add_discovered(&info);
        check(&info)?;
        let patience = Arc::clone(&self.patience);
        Ok(Session::new(server.to_owned(), client, events, patience))
    }

    async fn options(&self) -> Result<ConnectOptions, EngineError> {
        let options = ConnectOptions::new()
            .name(CLIENT_NAME)
            .require_tls(self.target.needs_tls)
            .connection_timeout(CONNECT_WAIT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(WAITING_MAX)
            .ignore_discovered_servers()
            // One try for the first connection, and as good as none for a second: see above.
            .max_reconnects(1)
            // Without a choice of ours the library logs the end of its tries as an error.
            .reconnect_to_server_callback(|servers, _| {
                let first = servers.into_iter().next();
                ready(first.map(|server| ReconnectToServer { addr: server.addr, delay: None }))
            });
        let options = match &self.target.login {
            Login::Nobody => options,
            Login::User { name, password } => {
                options.user_and_password(name.clone(), password.clone())
            }
            Login::Token(token) => options.token(token.clone()),
            Login::File(file) => options.credentials_file(file).await.map_err(|error| {
                EngineError::Unfit(format!("could not read the credentials for NATS: {error}"))
            })?,
        };
        Ok(match &self.target.ca_file {
            Some(file) => {
                // The library reads it, too, but does not say which file is missing.
                tokio::fs::metadata(file).await.map_err(|error| {
                    EngineError::Unfit(format!("could not read {}: {error}", file.display()))
                })?;
                options.add_root_certificates(file.clone())
            }
            None => options,
        })
    }

    fn failed(&self, server: &str, error: &ConnectError) -> EngineError {
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                let who = match &self.target.login {
                    Login::Nobody => "without a user".to_owned(),
                    Login::User { name, .. } => format!("user {name}"),
                    Login::Token(_) => "the token".to_owned(),
                    Login::File(file) => format!("the credentials of {}", file.display()),
                };
                EngineError::Unfit(format!("{server} does not let Herald in ({who}): {error}"))
            }
            _ if is_about_tls(error) => {
                EngineError::Unfit(format!("{server} and Herald can not agree on TLS: {error}"))
            }
            // As text, which has the causes in it already.
            _ => EngineError::Away(error.to_string().into()),
        }
    }

    /// Servers that a cluster has besides those that the URL names.
    fn add_discovered(&self, info: &ServerInfo) {
        let scheme = if self.target.needs_tls { "tls" } else { "nats" };
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &info.connect_urls {
            let url = format!("{scheme}://{address}");
            if servers.len() < SERVERS_MAX && !servers.contains(&url) {
                servers.push(url);
            }
        }
    }
}

/// What a server must be able to do.
pub(super) fn check(info: &ServerInfo) -> Result<(), EngineError> {
    let mut parts = info.version.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < VERSION_MIN {
        let (major, minor) = VERSION_MIN;
        return Err(EngineError::Unfit(format!(
            "the NATS server {} is version {}; Herald needs {major}.{minor} or newer",
            info.server_name, info.version
        )));
    }
    if info.max_payload < PAYLOAD_MIN {
        return Err(EngineError::Unfit(format!(
            "the NATS server {} has max_payload: {}; Herald needs {PAYLOAD_MIN} or more: set max_payload: 8MB in each \
             server's configuration and reload it",
            info.server_name, info.max_payload
        )));
    }
    Ok(())
}

/// Whether the other side answered, and its certificate or its TLS was not accepted.
fn is_about_tls(error: &ConnectError) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    error.kind() == ConnectErrorKind::Tls
}
