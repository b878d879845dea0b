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
mod requests;
mod signal;
mod stall;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use connection::Connections;
pub use connection::{HEAD_BYTES_MAX, IDLE_TIMEOUT, STREAMS_PER_CONNECTION_MAX};
use http::{Request, Response};
use hyper::body::Incoming;
pub use listen::BindError;
use listen::Listener;
pub use peer::Peer;
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

/// Where to listen, and how patient to be with a peer.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// The API's address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address of health and metrics.
    pub ops_listen: SocketAddr,
    /// A connection whose peer takes nothing of what is written for so long is cut.
    pub stall_timeout: Duration,
    /// How many bytes a request's head may have, request line included; [`HEAD_BYTES_MAX`].
    pub head_bytes_max: usize,
    /// A connection without a request for so long is closed; [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
}

/// Both ports, bound.
#[derive(Debug)]
pub struct Server {
    api: Listener,
    ops: Listener,
    settings: ServerSettings,
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
        })
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
        let Self { api: api_listener, ops: ops_listener, settings } = self;
        let api = Connections::new("api", api, lifecycle.clone(), settings);
        let ops = Connections::new("ops", ops, lifecycle.clone(), settings);
        let accept = async {
            tokio::join!(
                api_listener.accept_all(|stream, from| api.serve(stream, from)),
                ops_listener.accept_all(|stream, from| ops.serve(stream, from)),
            )
        };
        tokio::select! {
            _ = accept => unreachable!("a listener accepts for ever"),
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
