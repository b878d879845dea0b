//! Connections: limits, time-outs, and counting what runs on them.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use metrics::{Gauge, gauge};
use pin_project_lite::pin_project;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tower::ServiceExt;
use tracing::debug;

use super::{
    ServerSettings,
    io::Guarded,
    stall::{GuardedExecutor, Handed},
};
use crate::{
    access,
    lifecycle::{Lifecycle, Phase},
    metrics::HTTP_CONNECTIONS,
};

/// How many bytes a request's head may have, request line included: 1500 HER-ids are 27 kB of it.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a connection may be without a request before it is closed, and how long a request's head may take: longer
/// than balancers keep an idle connection (60 s), so that they close it and not we, under their next request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How many requests may run at once on one HTTP/2 connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 200;

/// How much of an upload may wait unread, for one request and for one HTTP/2 connection.
const UPLOAD_WINDOW_BYTES: u32 = 1024 * 1024;
/// How much of an answer may wait for an HTTP/2 peer's window.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// All connections of one port.
#[derive(Debug)]
pub(super) struct Connections {
    shared: Arc<Shared>,
    connections: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    router: Router,
    builder: auto::Builder<GuardedExecutor>,
    lifecycle: Lifecycle,
    stall_timeout: Duration,
    idle_timeout: Duration,
    open: Gauge,
    // Requests taken before a stop; later ones are only refused and need no waiting for.
    requests: TaskTracker,
    // No more requests: close when what runs has ended.
    closing: CancellationToken,
    // Close now.
    cut: CancellationToken,
}

impl Connections {
    pub(super) fn new(
        port: &'static str,
        router: Router,
        lifecycle: Lifecycle,
        settings: ServerSettings,
    ) -> Self {
        let requests = TaskTracker::new();
        // Only a closed tracker is ever done; closing does not keep it from counting.
        requests.close();
        let connections = TaskTracker::new();
        connections.close();
        let shared = Shared {
            router,
            builder: builder(settings),
            lifecycle,
            stall_timeout: settings.stall_timeout,
            idle_timeout: settings.idle_timeout,
            open: gauge!(HTTP_CONNECTIONS, "port" => port),
            requests,
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), connections }
    }

    /// Serves `stream` in a task of its own.
    pub(super) fn serve(&self, stream: TcpStream) {
        match Guarded::new(stream, self.shared.stall_timeout) {
            Ok(io) => {
                self.connections.spawn(serve(Arc::clone(&self.shared), io));
            }
            Err(error) => debug!(%error, "connection gone before it was served"),
        }
    }

    /// How many requests run that were taken before a stop.
    pub(super) fn running(&self) -> usize {
        self.shared.requests.len()
    }

    /// Ready when no request runs that was taken before a stop.
    pub(super) async fn all_ended(&self) {
        self.shared.requests.wait().await;
    }

    /// Closes every connection, cutting at `deadline` what has not ended; returns how many were cut.
    pub(super) async fn close(&self, deadline: Instant) -> usize {
        self.shared.closing.cancel();
        let closed = timeout_at(deadline, self.connections.wait()).await.is_ok();
        let cut = if closed { 0 } else { self.connections.len() };
        self.shared.cut.cancel();
        self.connections.wait().await;
        cut
    }
}

fn builder(settings: ServerSettings) -> auto::Builder<GuardedExecutor> {
    let mut builder = auto::Builder::new(GuardedExecutor { stall_timeout: settings.stall_timeout });
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_BYTES_MAX)
        .header_read_timeout(settings.idle_timeout)
        .keep_alive(true);
    let head_bytes_max = u32::try_from(HEAD_BYTES_MAX).expect("a small constant");
    builder
        .http2()
        .timer(TokioTimer::new())
        // hyper's own limit, 16 kB, is less than 1500 HER-ids.
        // h2 refuses a list that reaches its limit.
        .max_header_list_size(head_bytes_max + 1)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(UPLOAD_WINDOW_BYTES)
        .initial_connection_window_size(UPLOAD_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX);
    builder
}

async fn serve(shared: Arc<Shared>, io: Guarded) {
    let activity = Arc::new(Activity::default());
    let service = Requests { shared: Arc::clone(&shared), activity: Arc::clone(&activity) };
    let _open = OpenConnection::new(&shared.open);
    let mut connection = pin!(shared.builder.serve_connection(TokioIo::new(io), service));
    let mut closing = pin!(shared.closing.cancelled());
    let mut idle = pin!(sleep(shared.idle_timeout));
    let mut is_closing = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(error, "connection ended");
                }
                return;
            }
            () = shared.cut.cancelled() => return,
            () = &mut closing, if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut idle => {
                let until = activity.busy_until() + shared.idle_timeout;
                if until > Instant::now() {
                    idle.as_mut().reset(until);
                } else if is_closing {
                    // It was asked to close, and its peer does not answer.
                    return;
                } else {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    idle.as_mut().reset(Instant::now() + shared.idle_timeout);
                }
            }
        }
    }
}

/// Counts one connection while it lives.
struct OpenConnection<'a>(&'a Gauge);

impl<'a> OpenConnection<'a> {
    fn new(open: &'a Gauge) -> Self {
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// What runs on one connection.
#[derive(Debug)]
struct Activity {
    // A plain mutex: held for two stores, by tasks of one connection.
    state: Mutex<(usize, Instant)>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { state: Mutex::new((0, Instant::now())) }
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now while a request runs, else when the last one ended.
    fn busy_until(&self) -> Instant {
        let (running, ended) = *self.state();
        if running > 0 { Instant::now() } else { ended }
    }
}

/// A request that runs: counted until its answer's last byte was handed over, or given up.
#[derive(Debug)]
struct Running {
    activity: Arc<Activity>,
    _counted: Option<TaskTrackerToken>,
}

impl Running {
    fn begin(activity: &Arc<Activity>, counted: Option<TaskTrackerToken>) -> Self {
        activity.state().0 += 1;
        Self { activity: Arc::clone(activity), _counted: counted }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        *state = (state.0 - 1, Instant::now());
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Requests {
    shared: Arc<Shared>,
    activity: Arc<Activity>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let draining = self.shared.lifecycle.phase() == Phase::Draining;
        // Refusals during a stop are not waited for, or a busy client could hold the stop up.
        let counted = (!draining).then(|| self.shared.requests.token());
        let running = Running::begin(&self.activity, counted);
        let router = self.shared.router.clone();
        let entry = access::Entry::new(&request);
        Box::pin(async move {
            let version = request.version();
            let Ok(mut answer) = router.oneshot(request.map(Body::new)).await;
            if draining && version < Version::HTTP_2 {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            entry.answered(&answer);
            let handed = Handed::of_this_task();
            Ok(answer.map(|body| AnswerBody { body, running: Some(running), handed }))
        })
    }
}

pin_project! {
    /// An answer's body, which knows when it has ended, and over HTTP/2 since when a piece of it waits for room.
    struct AnswerBody {
        #[pin]
        body: Body,
        running: Option<Running>,
        handed: Option<Handed>,
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Some(handed) = this.handed {
            // Being asked means that the last piece has found room.
            handed.set(matches!(frame, Poll::Ready(Some(_))).then(Instant::now));
        }
        if matches!(frame, Poll::Ready(None)) {
            *this.running = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
