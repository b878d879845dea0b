//! The requests of one connection: counted while they run, answered by the port's routes.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header::CONNECTION};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Peer, Routes, connection::Port, stall::Handed};
use crate::{
    access::{self, ACCESS},
    body::{Body, BoxError},
    lifecycle::Phase,
};

/// What runs on one connection.
#[derive(Debug)]
pub(super) struct Activity {
    // A plain mutex: held for two stores, by tasks of one connection.
    state: Mutex<State>,
    // Whether the socket has taken all that was written to it.
    is_flushed: AtomicBool,
}

#[derive(Debug)]
struct State {
    running: usize,
    ended: Instant,
    handed_over: Option<HandedOver>,
}

/// An answer of HTTP/1.1 that is a stream, on its way from hyper to whoever writes it.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) answer: Response<Body>,
    pub(super) running: Running,
}

impl Default for Activity {
    fn default() -> Self {
        let state = State { running: 0, ended: Instant::now(), handed_over: None };
        Self { state: Mutex::new(state), is_flushed: AtomicBool::new(true) }
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now while a request runs or its answer is still being taken, else when the last one ended.
    pub(super) fn busy_until(&self) -> Instant {
        let state = self.state();
        let is_busy = state.running > 0 || !self.is_flushed.load(Ordering::Relaxed);
        if is_busy { Instant::now() } else { state.ended }
    }

    /// Whether the socket has taken all of what was written last. Relaxed: writer and reader are one task.
    pub(super) fn set_flushed(&self, is_flushed: bool) {
        self.is_flushed.store(is_flushed, Ordering::Relaxed);
    }

    /// The answer that the connection is to become, if there is one.
    pub(super) fn take_over(&self) -> Option<HandedOver> {
        self.state().handed_over.take()
    }
}

/// A request that runs: counted until its answer's last byte was handed over, or given up.
#[derive(Debug)]
pub(super) struct Running {
    activity: Arc<Activity>,
    _counted: Option<TaskTrackerToken>,
}

impl Running {
    fn begin(activity: &Arc<Activity>, counted: Option<TaskTrackerToken>) -> Self {
        activity.state().running += 1;
        Self { activity: Arc::clone(activity), _counted: counted }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.running -= 1;
        state.ended = Instant::now();
    }
}

/// Answers one request. A stream of HTTP/1.1 is handed over to whoever serves the connection, and this never ends.
pub(super) async fn answer<R: Routes>(
    port: &Port<R>,
    activity: &Arc<Activity>,
    request: Request<Incoming>,
    peer: Peer,
) -> Response<AnswerBody> {
    let entry = access::Entry::new(&request);
    let version = request.version();
    let draining = port.lifecycle.phase() == Phase::Draining;
    // Refusals during a stop are not waited for, or a busy client could hold the stop up.
    let counted = (!draining).then(|| port.requests.token());
    let running = Running::begin(activity, counted);
    let mut answer = if version < Version::HTTP_2 && head_bytes(&request) > port.head_bytes_max {
        head_too_large()
    } else {
        port.routes.answer(request, peer).await
    };
    if draining && version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    ACCESS.answered(&entry, &answer);
    // What an earlier answer still has to write is hyper's, and the stream with it then.
    let is_free = version == Version::HTTP_11 && activity.is_flushed.load(Ordering::Relaxed);
    if is_free && answer.body().is_stream() {
        activity.state().handed_over = Some(HandedOver { answer, running });
        return std::future::pending().await;
    }
    let handed = Handed::of_this_task();
    answer.map(|body| AnswerBody { body, running: Some(running), handed })
}

/// How many bytes a head of HTTP/1.1 has, written without needless spaces. hyper gives up only when it has read more than
/// that and not found the end, which depends on how the bytes arrive.
fn head_bytes<B>(request: &Request<B>) -> usize {
    const LINE: usize = "  HTTP/1.1\r\n".len();
    const END: usize = "\r\n".len();
    const FIELD: usize = ": \r\n".len();
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    // Of an absolute form, which proxies use.
    let origin = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    let fields = request.headers().iter();
    let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
    LINE + request.method().as_str().len() + origin + path + fields + END
}

/// As hyper refuses a head that it has not read to its end: without a body, and without a request id.
fn head_too_large() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

pin_project! {
    /// An answer's body, which knows when it has ended, and over HTTP/2 since when a piece of it waits for room.
    pub(super) struct AnswerBody {
        #[pin]
        body: Body,
        running: Option<Running>,
        handed: Option<Handed>,
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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
