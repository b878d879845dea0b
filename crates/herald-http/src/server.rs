//! Both ports: listening, connections, and the order of a stop.
//!
//! Connections are served by hyper until one becomes a stream of HTTP/1.1, which is then written from here. Limits and
//! time-outs are ours, and a stop does not wait for streams for ever.

mod connection;
mod events;
mod http1;
mod http2;
mod io;
mod listen;
mod peer;
mod refuse;
mod requests;
mod seats;
mod settings;
mod signal;
mod socket;
mod stall;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use connection::Connections;
use http::{Request, Response};
use hyper::body::Incoming;
pub use listen::BindError;
use listen::Listener;
pub use peer::Peer;
pub(crate) use seats::counted;
pub use settings::{
    CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, HTTP2_RESETS_MAX, HTTP2_STREAMS_MAX,
    IDLE_TIMEOUT, OPS_CONNECTIONS_MAX, ServerLimits, ServerSettings,
};
pub use tls::{TLS_FILE_BYTES_MAX, Tls, TlsError, TlsSettings};
use tokio::time::{sleep_until, timeout_at};
use tracing::info;

use crate::{
    body::Body,
    lifecycle::{Drain, Lifecycle},
};

/// Answers the requests of one port.
pub trait Routes: Send + Sync + 'static {
    /// The answer to one request of `peer`.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Both ports, bound.
#[derive(Debug)]
pub struct Server {
    api: Listener,
    ops: Listener,
    settings: ServerSettings,
    tls: Option<Tls>,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many connections were still open at the end of the drain and were cut.
    pub cut: usize,
}

impl Server {
    /// Binds both ports.
    ///
    /// # Errors
    /// [`BindError`] names the address that cannot be had.
    pub fn bind(settings: ServerSettings) -> Result<Self, BindError> {
        Ok(Self {
            api: Listener::bind(settings.listen)?,
            ops: Listener::bind(settings.ops_listen)?,
            settings,
            tls: None,
        })
    }

    /// The same ports, with nothing but TLS on the API's.
    #[must_use]
    pub fn over_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Where the API listens, with the port that was found for 0.
    #[must_use]
    pub const fn api_address(&self) -> SocketAddr {
        self.api.address()
    }

    /// Where health and metrics listen.
    #[must_use]
    pub const fn ops_address(&self) -> SocketAddr {
        self.ops.address()
    }

    /// Serves both ports until `lifecycle` is told to stop and everything has ended or has been cut.
    ///
    /// Both ports go on answering through the stop, so that balancers and clients read a 503 and not a refused
    /// connection, at least until the first stream ends.
    pub async fn run(
        self,
        lifecycle: Lifecycle,
        api: Arc<impl Routes>,
        ops: Arc<impl Routes>,
    ) -> Stopped {
        let Self { api: api_listener, ops: ops_listener, settings, tls } = self;
        // Whatever the API's peers do, there is room to ask how it is.
        let ops_limits = ServerLimits {
            connections_max: OPS_CONNECTIONS_MAX,
            connections_per_address_max: None,
            ..settings.limits
        };
        let ops_settings = ServerSettings { limits: ops_limits, ..settings };
        let acceptor = tls.as_ref().map(Tls::acceptor);
        let api = Connections::new("api", api, lifecycle.clone(), settings, acceptor);
        let ops = Connections::new("ops", ops, lifecycle.clone(), ops_settings, None);
        let watch = async {
            match tls {
                Some(tls) => tls.watch().await,
                None => std::future::pending().await,
            }
        };
        let accept = async {
            tokio::join!(
                api_listener.accept_all(|stream, from| api.serve(stream, from)),
                ops_listener.accept_all(|stream, from| ops.serve(stream, from)),
            )
        };
        tokio::select! {
            _ = accept => unreachable!("a listener accepts for ever"),
            () = watch => unreachable!("files are watched for ever"),
            () = drain_ended(&lifecycle, &api) => {}
        }
        let drain = lifecycle.stop();
        let (cut, _) = tokio::join!(api.close(drain.cut_at()), ops.close(drain.cut_at()));
        Stopped { cut }
    }
}

/// Ready when a stop has begun and every request taken before it has ended, or must be cut.
async fn drain_ended(lifecycle: &Lifecycle, api: &Connections<impl Routes>) {
    let drain: Drain = lifecycle.stop_begun().await;
    info!(running = api.running(), "draining");
    let quiet = async {
        sleep_until(drain.stream_end_window().start).await;
        api.all_ended().await;
    };
    if timeout_at(drain.cut_at(), quiet).await.is_err() {
        info!(running = api.running(), "cutting what is left");
    }
}
