//! TLS on the API's port: handshakes, and certificates that are replaced while connections go on.

mod files;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use files::Files;
pub use files::{TLS_FILE_BYTES_MAX, TlsError};
use herald_auth::WATCH_INTERVAL;
use jiff::Timestamp;
use metrics::{Counter, counter, gauge};
use rustls::{ServerConfig, server::ServerConnection};
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info, warn};

use super::{Peer, io::Guarded, socket::Socket};
use crate::{
    limited::Limit,
    metrics::{TLS_CERTIFICATE_EXPIRY, TLS_HANDSHAKES, TLS_RELOADS},
};

/// HTTP/2 in ALPN; what is not it is HTTP/1.1.
const H2: &[u8] = b"h2";
const HTTP_11: &[u8] = b"http/1.1";

/// Where the certificate of the API is, and who may show one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate, PEM, with those that lead to its issuer behind it.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The issuers of clients' certificates, PEM: clients are asked for one, and refused if it is of another issuer.
    pub client_ca: Option<PathBuf>,
    /// How often the files are looked at; [`WATCH_INTERVAL`].
    pub watch_interval: Duration,
}

impl TlsSettings {
    /// Those of a server that asks no client for a certificate.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_ca: None,
            watch_interval: WATCH_INTERVAL,
        }
    }
}

/// A certificate that can be served, and the files that it came from.
pub struct Tls {
    files: Files,
    acceptor: Acceptor,
    watch_interval: Duration,
    // What was said of files that could not be read, so that it is said once.
    unread: Option<String>,
    // Files have changed since they were last understood, or found to be broken.
    is_stale: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What the files say, ready to be served.
struct Loaded {
    config: ServerConfig,
    expires: Timestamp,
}

impl Tls {
    /// Reads the files. Install the metrics recorder first: the handles are made here.
    ///
    /// # Errors
    /// [`TlsError`] names the file, and what is wrong with it.
    pub async fn open(settings: &TlsSettings) -> Result<Self, TlsError> {
        let mut files = Files::new(settings);
        files.read().await?;
        let loaded = files.load()?;
        loaded.tell();
        info!(certificate.expires = %loaded.expires, "serving over TLS");
        Ok(Self {
            acceptor: Acceptor {
                config: Arc::new(ArcSwap::from_pointee(loaded.config)),
                handshakes: Handshakes::new(),
            },
            watch_interval: settings.watch_interval,
            files,
            unread: None,
            is_stale: false,
        })
    }

    pub(super) fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    /// Looks at the files now and then, for ever.
    pub(super) async fn watch(mut self) {
        let mut ticks = interval(self.watch_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    /// Takes what has changed; what is broken leaves the last good state in force, and is said once.
    async fn look(&mut self) {
        match self.files.read().await {
            Ok(has_changed) => {
                self.is_stale |= has_changed;
                self.unread = None;
            }
            Err(error) => {
                // Those that could be read may have changed: what they are together is seen when all can be.
                self.is_stale = true;
                let text = error.chain();
                if self.unread.as_ref() != Some(&text) {
                    refused(&text);
                    self.unread = Some(text);
                }
                return;
            }
        }
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        match self.files.load() {
            Ok(loaded) => {
                loaded.tell();
                info!(certificate.expires = %loaded.expires, "new TLS files in force");
                counter!(TLS_RELOADS, "outcome" => "loaded").increment(1);
                self.acceptor.config.store(Arc::new(loaded.config));
            }
            Err(error) => refused(&error.chain()),
        }
    }
}

/// A file that was replaced may have a key in the wrong place: the text names files and never their content.
fn refused(error: &str) {
    warn!(error, "TLS files cannot be used, the last good ones stay in force");
    counter!(TLS_RELOADS, "outcome" => "refused").increment(1);
}

impl Loaded {
    fn tell(&self) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
        gauge!(TLS_CERTIFICATE_EXPIRY).set(self.expires.as_second() as f64);
        if self.expires < Timestamp::now() {
            warn!(certificate.expires = %self.expires, "the certificate has expired, clients will refuse it");
        }
    }
}

/// Makes TLS of connections, each with the certificate that is in force when it begins.
#[derive(Clone)]
pub(super) struct Acceptor {
    // Swapped under connections that begin; those that have begun keep theirs.
    config: Arc<ArcSwap<ServerConfig>>,
    handshakes: Handshakes,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Handles made once: making one costs a lookup.
#[derive(Clone)]
struct Handshakes {
    done: Counter,
    failed: Counter,
    gone: Counter,
    slow: Counter,
}

impl Handshakes {
    fn new() -> Self {
        let of = |outcome: &'static str| counter!(TLS_HANDSHAKES, "outcome" => outcome);
        Self { done: of("done"), failed: of("failed"), gone: of("gone"), slow: of("slow") }
    }
}

/// A connection after its handshake.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) is_http2: bool,
    pub(super) peer: Peer,
}

impl Acceptor {
    /// The connection after its handshake, or nothing if that failed or was not done by `deadline`.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        stall_timeout: Duration,
        peer: Peer,
        deadline: Instant,
    ) -> Option<Accepted> {
        let guarded = match Guarded::new(stream, stall_timeout) {
            Ok(guarded) => guarded,
            Err(error) => {
                debug!(%error, "connection gone before its TLS handshake");
                self.handshakes.gone.increment(1);
                return None;
            }
        };
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match timeout_at(deadline, acceptor.accept(guarded)).await {
            Ok(Ok(stream)) => {
                self.handshakes.done.increment(1);
                Some(Accepted::new(stream, peer))
            }
            Ok(Err(error)) => {
                // Balancers look whether the port is open, and browsers open more connections than they use.
                let gone = is_gone(&error);
                let count = if gone { &self.handshakes.gone } else { &self.handshakes.failed };
                count.increment(1);
                debug!(%error, peer.address = %peer.address, "TLS handshake failed");
                None
            }
            Err(_) => {
                self.handshakes.slow.increment(1);
                Limit::HeadTime.met();
                debug!(peer.address = %peer.address, "TLS handshake took too long");
                None
            }
        }
    }
}

impl Accepted {
    fn new(stream: TlsStream<Guarded>, peer: Peer) -> Self {
        let session: &ServerConnection = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(H2);
        // The verifier lets none pass that it has not verified.
        let has_client_certificate = session.peer_certificates().is_some_and(|all| !all.is_empty());
        let peer = Peer { is_tls: true, has_client_certificate, ..peer };
        Self { socket: Socket::Tls(Box::new(stream)), is_http2, peer }
    }
}

/// Whether the peer went away, and said nothing wrong.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
