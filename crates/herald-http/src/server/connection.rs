//! Connections: limits, time-outs, and which version of HTTP each speaks.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use metrics::{Gauge, gauge};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    Peer, Routes,
    http1::serve_http1,
    http2::serve_http2,
    io::Guarded,
    refuse::refuse,
    requests::{Activity, Patience},
    seats::Seats,
    settings::ServerSettings,
    signal::Signal,
    socket::Socket,
    stall::GuardedExecutor,
    tls::{Accepted, Acceptor},
};
use crate::{
    lifecycle::Lifecycle,
    limited::Limit,
    metrics::{HTTP_CONNECTIONS, HTTP_CONNECTIONS_MAX},
};

/// How much of an upload may wait unread, for one request and for one HTTP/2 connection: it has no room yet, so it
/// should be little; but half of it is also what h2 keeps of tiny frames, of lines sent one by one.
const UPLOAD_WINDOW_BYTES: u32 = 512 * 1024;
/// How much of an answer may wait for an HTTP/2 peer's window.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How many requests of one HTTP/2 connection may break its rules before it is ended.
const HTTP2_ERRORS_MAX: usize = 1024;
/// How often a connection is looked at whose first bytes are only the beginning of HTTP/2's, and how often at most before
/// it is left to HTTP/1.1, which sees the end of a peer that has gone and refuses what is neither.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
const PREFACE_LOOKS_MAX: usize = 100;

/// All connections of one port.
#[derive(Debug)]
pub(super) struct Connections<R>(Arc<Port<R>>);

/// What the connections of one port share.
#[derive(Debug)]
pub(super) struct Port<R> {
    pub(super) routes: Arc<R>,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<GuardedExecutor>,
    pub(super) lifecycle: Lifecycle,
    pub(super) patience: Patience,
    pub(super) head_bytes_max: usize,
    pub(super) seats: Seats,
    stall_timeout: Duration,
    tls: Option<Acceptor>,
    open: Gauge,
    pub(super) connections: TaskTracker,
    // Requests taken before a stop; later ones are only refused and need no waiting for.
    pub(super) requests: TaskTracker,
    // No more requests: close when what runs has ended.
    pub(super) closing: Signal,
    // Close now.
    pub(super) cut: Signal,
}

impl<R: Routes> Connections<R> {
    pub(super) fn new(
        port: &'static str,
        routes: Arc<R>,
        lifecycle: Lifecycle,
        settings: ServerSettings,
        tls: Option<Acceptor>,
    ) -> Self {
        let trackers = [TaskTracker::new(), TaskTracker::new()];
        for tracker in &trackers {
            // Only a closed tracker is ever done; closing does not keep it from counting.
            tracker.close();
        }
        let [requests, connections] = trackers;
        let ServerSettings { idle_timeout: idle, stall_timeout, head_bytes_max, limits, .. } =
            settings;
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
        gauge!(HTTP_CONNECTIONS_MAX, "port" => port).set(limits.connections_max as f64);
        Self(Arc::new(Port {
            routes,
            http1: http1_builder(head_bytes_max),
            http2: http2_builder(settings),
            lifecycle,
            patience: Patience { head: limits.head_timeout, idle },
            head_bytes_max,
            seats: Seats::new(limits.connections_max, limits.connections_per_address_max),
            stall_timeout,
            tls,
            open: gauge!(HTTP_CONNECTIONS, "port" => port),
            connections,
            requests,
            closing: Signal::default(),
            cut: Signal::default(),
        }))
    }

    /// Serves `stream` in a task of its own, or turns it away.
    pub(super) fn serve(&self, stream: TcpStream, from: SocketAddr) {
        let (Self(port), peer) = (self, Peer::plain(from));
        let activity = Arc::new(Activity::default());
        match port.seats.take(peer.address, Arc::clone(&activity)) {
            Ok(seat) => {
                let open = OpenConnection::new(port, seat);
                let serving = serve(Arc::clone(port), stream, peer, activity, open);
                // No lock is held: at the end of the runtime a task is dropped where it is spawned, and leaves its place.
                let task = port.connections.spawn(serving).abort_handle();
                port.seats.is_served_by(seat, task);
            }
            Err(limit) => refuse(&stream, limit, port.tls.is_some()),
        }
    }

    /// How many requests run that were taken before a stop.
    pub(super) fn running(&self) -> usize {
        self.0.requests.len()
    }

    /// Ready when no request runs that was taken before a stop.
    pub(super) async fn all_ended(&self) {
        self.0.requests.wait().await;
    }

    /// Closes every connection, cutting at `deadline` what has not ended; returns how many were cut.
    pub(super) async fn close(&self, deadline: Instant) -> usize {
        let Port { connections, closing, cut, .. } = &*self.0;
        closing.give();
        let closed = timeout_at(deadline, connections.wait()).await.is_ok();
        let left = if closed { 0 } else { connections.len() };
        cut.give();
        connections.wait().await;
        left
    }
}

/// Time-outs are the connection's own: hyper's would cost a timer for each request.
fn http1_builder(head_bytes_max: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(head_bytes_max).keep_alive(true);
    builder
}

fn http2_builder(settings: ServerSettings) -> http2::Builder<GuardedExecutor> {
    let ServerSettings { stall_timeout, head_bytes_max, limits, .. } = settings;
    // Lists between this and the limit are read, refused and counted; h2 refuses larger ones itself.
    let list_bytes_max = head_bytes_max.saturating_mul(2);
    let mut builder = http2::Builder::new(GuardedExecutor { stall_timeout });
    builder
        .timer(TokioTimer::new())
        // hyper's own limit, 16 kB, is less than 1500 HER-ids. h2 also bounds the frames of a list by it.
        .max_header_list_size(u32::try_from(list_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.http2_streams_max)
        .max_pending_accept_reset_streams(limits.http2_resets_max)
        .max_local_error_reset_streams(HTTP2_ERRORS_MAX)
        .initial_stream_window_size(UPLOAD_WINDOW_BYTES)
        .initial_connection_window_size(UPLOAD_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX);
    builder
}

async fn serve<R: Routes>(
    port: Arc<Port<R>>,
    stream: TcpStream,
    peer: Peer,
    activity: Arc<Activity>,
    open: OpenConnection<R>,
) {
    let deadline = activity.first_head_by(port.patience);
    let accepted = async {
        match &port.tls {
            None => accept_plain(&port, stream, peer, deadline).await,
            // In a box, so that a connection without TLS does not pay for the size of a handshake.
            Some(tls) => Box::pin(tls.accept(stream, port.stall_timeout, peer, deadline)).await,
        }
    };
    let accepted = tokio::select! {
        accepted = accepted => accepted,
        () = port.closing.given() => return,
    };
    let Some(Accepted { socket, is_http2, peer }) = accepted else { return };
    if is_http2 {
        // In a box, so that the many connections of HTTP/1.1 do not pay for the size of the few of HTTP/2.
        Box::pin(serve_http2(&port, socket, peer, activity, open)).await;
    } else {
        serve_http1(&port, socket, peer, activity, open).await;
    }
}

/// A connection without TLS, once its peer has said enough to know its version of HTTP.
async fn accept_plain<R>(
    port: &Port<R>,
    stream: TcpStream,
    peer: Peer,
    deadline: Instant,
) -> Option<Accepted> {
    let Ok(is_http2) = timeout_at(deadline, speaks_http2(&stream)).await else {
        Limit::HeadTime.met();
        return None;
    };
    let is_http2 = is_http2.ok()?;
    match Guarded::new(stream, port.stall_timeout) {
        Ok(guarded) => Some(Accepted { socket: Socket::Plain(guarded), is_http2, peer }),
        Err(error) => {
            debug!(%error, "connection gone before it was served");
            None
        }
    }
}

/// Whether the peer speaks HTTP/2 from the start: nothing of HTTP/1.1 begins as its preface does.
///
/// # Errors
/// When the connection breaks off.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
    let mut start = [0; PREFACE.len()];
    for _ in 0..PREFACE_LOOKS_MAX {
        // What is only looked at is still there for whoever reads the connection then.
        let len = stream.peek(&mut start).await?;
        if len == 0 || start[..len] != PREFACE[..len] {
            return Ok(false);
        }
        if len == PREFACE.len() {
            return Ok(true);
        }
        sleep(PREFACE_PAUSE).await;
    }
    Ok(false)
}

/// Counts one connection while it lives, and keeps its place.
pub(super) struct OpenConnection<R> {
    port: Arc<Port<R>>,
    seat: u64,
}

impl<R> OpenConnection<R> {
    fn new(port: &Arc<Port<R>>, seat: u64) -> Self {
        port.open.increment(1.0);
        Self { port: Arc::clone(port), seat }
    }

    pub(super) fn port(&self) -> &Port<R> {
        &self.port
    }

    /// Its place among those of its port.
    pub(super) const fn seat(&self) -> u64 {
        self.seat
    }
}

impl<R> Drop for OpenConnection<R> {
    fn drop(&mut self) {
        self.port.open.decrement(1.0);
        self.port.seats.leave(self.seat);
    }
}
