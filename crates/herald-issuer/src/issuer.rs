//! An issuer that listens.

use std::{io, net::SocketAddr, sync::Arc};

use herald_auth::Address;
use jiff::Timestamp;
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::info;

use crate::{
    authority::Authority,
    clients::{Registry, UnreadableClients},
    keys::{CannotRotate, KeyError, Keys},
    nonces::{NoRandomNumbers, Nonces},
    routes::TOKEN_PATH,
    server::serve,
    settings::IssuerSettings,
};

/// Why an issuer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can be reached from elsewhere.
    #[error(
        "{0} is no loopback address: this issuer is for laptops and tests, and nobody else may reach it"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("could not listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The client file cannot be used.
    #[error(transparent)]
    Clients(#[from] UnreadableClients),
    /// There is nothing to sign with.
    #[error("there is no signing key")]
    Key(#[from] KeyError),
    /// There can be no nonces.
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
}

/// A running issuer; dropped, it stops.
pub struct Issuer {
    authority: Arc<Authority>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Issuer {
    /// Reads the clients, binds the port, and serves it in a task of its own.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way.
    ///
    /// # Panics
    /// Never: every address with a port is a base URL.
    pub async fn start(settings: IssuerSettings) -> Result<Self, StartError> {
        let listen = settings.listen;
        if !listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        let keys = Keys::new(settings.signing_keys, settings.algorithm)?;
        let registry = Registry::open(settings.clients).await?;
        let period_s = i64::try_from(settings.nonce_period.as_secs()).unwrap_or(i64::MAX);
        let nonces = Nonces::new(period_s)?;
        let bind = |source| StartError::Bind { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let url = format!("http://{address}");
        let base = Address::parse(&url).expect("an address with a port is a base URL");
        let authority = Arc::new(Authority {
            url,
            token_endpoint: base.with(TOKEN_PATH),
            audience: settings.audience,
            lifetime: settings.lifetime,
            token_kind: settings.token_kind,
            registry,
            nonces,
            keys: keys.into(),
            assertions: Default::default(),
            proofs: Default::default(),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&authority), settings.rotate_every));
        Ok(Self { authority, address, serving })
    }

    /// Its base URL, which is also what `iss` says: no slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.authority.url
    }

    /// Where it listens, with the port that was found for 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name of the key that signs now.
    #[must_use]
    pub fn kid(&self) -> String {
        self.authority.keys().current().kid.clone()
    }

    /// Another key signs from now on: the next that was given, or a new one. The one before stays published until its last
    /// token has expired, and [`crate::KEY_GRACE`].
    ///
    /// # Errors
    /// [`CannotRotate`] when no key is left and none can be made.
    pub fn rotate(&self) -> Result<(), CannotRotate> {
        self.authority.rotate(Timestamp::now())
    }

    /// Only the key that signs is published from now on: tokens of the others cannot be verified any more.
    pub fn retire_old_keys(&self) {
        self.authority.retire_old_keys();
    }

    /// No nonce that was handed out is known any more: each client is asked to use another.
    ///
    /// # Errors
    /// [`NoRandomNumbers`].
    pub fn renew_nonces(&self) -> Result<(), NoRandomNumbers> {
        self.authority.renew_nonces()
    }

    /// Stops, and is ready when the port is free again.
    pub async fn stop(mut self) {
        self.serving.abort();
        // It was aborted, as it should be.
        let _ = (&mut self.serving).await;
    }
}

impl Authority {
    pub(crate) fn rotate(&self, now: Timestamp) -> Result<(), CannotRotate> {
        let mut keys = self.keys();
        keys.rotate(now)?;
        info!(kid = %keys.current().kid, "another key signs");
        Ok(())
    }

    pub(crate) fn retire_old_keys(&self) {
        self.keys().retire_old();
        info!("old keys retired");
    }

    pub(crate) fn renew_nonces(&self) -> Result<(), NoRandomNumbers> {
        self.nonces.renew()?;
        info!("nonces renewed");
        Ok(())
    }
}
