//! The requests of one connection: counted while they run, answered by the port's routes.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
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
    limited::Limit,
};

/// For how long an answer may wait for its reader before its connection gives way to another one.
const UNREAD_MAX: Duration = Duration::from_secs(2);

/// What runs on one connection.
#[derive(Debug)]
pub(super) struct Activity {
    // What `taken` is measured from, so that it fits into an atomic.
    epoch: Instant,
    // A plain mutex: held for two stores, by tasks of one connection.
    state: Mutex<State>,
    // Whether the socket has taken all that was written to it.
    is_flushed: AtomicBool,
    // When its peer last took something of an answer, in milliseconds; kept only while there is something to take.
    taken: AtomicU64,
}

#[derive(Debug)]
struct State {
    // Requests whose answer has not ended.
    running: usize,
    // Those of them that have their answer, whose length is known.
    answered: usize,
    // When the last request ended; before the first one, when the connection came.
    ended: Instant,
    // Since when a head is on its way. The first one is awaited from the beginning.
    head_since: Option<Instant>,
    has_asked: bool,
    // Its place was given to another connection.
    is_closed: bool,
    handed_over: Option<HandedOver>,
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a request's head, from its first byte.
    pub(super) head: Duration,
    /// Without a request.
    pub(super) idle: Duration,
}

impl Patience {
    /// After how long at most a connection must be looked at: a head may begin, or a request end, the moment after a look.
    pub(super) fn soonest(self) -> Duration {
        self.head.min(self.idle)
    }
}

/// What a connection's timer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// All is well; look again then.
    Until(Instant),
    /// The peer took too long.
    Over(Limit),
}

/// How little a connection is worth keeping, least valuable first, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Idle {
    kind: IdleKind,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum IdleKind {
    /// It has never asked anything.
    NeverAsked,
    /// Its peer does not take its answer.
    Unread,
    /// It waits for the next request.
    Rests,
}

/// An answer of HTTP/1.1 that is a stream, on its way from hyper to whoever writes it.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) answer: Response<Body>,
    pub(super) running: Running,
}

impl Default for Activity {
    fn default() -> Self {
        let now = Instant::now();
        let state = State {
            running: 0,
            answered: 0,
            ended: now,
            head_since: Some(now),
            has_asked: false,
            is_closed: false,
            handed_over: None,
        };
        let (is_flushed, taken) = (AtomicBool::new(true), AtomicU64::new(0));
        Self { epoch: now, state: Mutex::new(state), is_flushed, taken }
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request runs or its answer is still being taken.
    fn is_busy(&self, state: &State) -> bool {
        state.running > 0 || !self.is_flushed.load(Ordering::Relaxed)
    }

    /// When the first head must be there.
    pub(super) fn first_head_by(&self, patience: Patience) -> Instant {
        self.state().ended + patience.head
    }

    /// Bytes have come: if no request runs, they are a head's.
    pub(super) fn received(&self) {
        let mut state = self.state();
        if state.head_since.is_none() && !self.is_busy(&state) {
            state.head_since = Some(Instant::now());
        }
    }

    /// A peer of HTTP/2 has said what has to be said before any request.
    pub(super) fn greeted(&self) {
        self.state().head_since = None;
    }

    /// How long to wait for the peer.
    pub(super) fn wait(&self, patience: Patience) -> Wait {
        let state = self.state();
        let now = Instant::now();
        let soon = now + patience.soonest();
        if self.is_busy(&state) {
            return Wait::Until(soon);
        }
        let (until, limit) = match state.head_since {
            Some(since) => (since + patience.head, Limit::HeadTime),
            None => (state.ended + patience.idle, Limit::Idle),
        };
        if until <= now { Wait::Over(limit) } else { Wait::Until(until.min(soon)) }
    }

    /// How idle the connection is; `None` while a request runs, a stream is open, or an answer is being taken.
    pub(super) fn idle(&self) -> Option<Idle> {
        self.idle_in(&self.state())
    }

    fn idle_in(&self, state: &State) -> Option<Idle> {
        if !self.is_busy(state) {
            let kind = if state.has_asked { IdleKind::Rests } else { IdleKind::NeverAsked };
            return Some(Idle { kind, since: state.ended });
        }
        let since = self.epoch + Duration::from_millis(self.taken.load(Ordering::Relaxed));
        let is_unread = state.running == state.answered && since.elapsed() >= UNREAD_MAX;
        is_unread.then_some(Idle { kind: IdleKind::Unread, since })
    }

    /// Takes no request from now on, if it is idle; whether that is so.
    pub(super) fn close_idle(&self) -> bool {
        let mut state = self.state();
        state.is_closed = self.idle_in(&state).is_some();
        state.is_closed
    }

    /// A request begins; `None` when the connection is being closed.
    pub(super) fn begin(self: &Arc<Self>, counted: Option<TaskTrackerToken>) -> Option<Running> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.running += 1;
        state.head_since = None;
        state.has_asked = true;
        drop(state);
        Some(Running { activity: Arc::clone(self), is_answered: false, _counted: counted })
    }

    /// Whether the socket has taken all of what was written last, or else whether it took something. Relaxed: writer and
    /// reader are one task, and who looks for a connection to close may be a moment late.
    pub(super) fn set_flushed(&self, is_flushed: bool, took: bool) {
        let was_flushed = self.is_flushed.load(Ordering::Relaxed);
        if !is_flushed && (took || was_flushed) {
            self.took();
        }
        self.is_flushed.store(is_flushed, Ordering::Relaxed);
    }

    /// The peer has taken something of an answer, or gets a new one.
    fn took(&self) {
        let at = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.taken.store(at, Ordering::Relaxed);
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
    is_answered: bool,
    _counted: Option<TaskTrackerToken>,
}

impl Running {
    /// Its answer is there, all of it: what it still needs is a reader.
    fn answered(&mut self) {
        let mut state = self.activity.state();
        state.answered += 1;
        self.is_answered = true;
        self.activity.took();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.running -= 1;
        state.answered -= usize::from(self.is_answered);
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
    let Some(mut running) = activity.begin(counted) else {
        // Its place was given to another: the connection is dropped with this.
        return std::future::pending().await;
    };
    let mut answer = if head_bytes(&request) > port.head_bytes_max {
        Limit::HeadBytes.met();
        head_too_large(version)
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
    // Of unknown length are streams, which may have nothing to say for long.
    if answer.body().size_hint().exact().is_some() {
        running.answered();
    }
    let handed = Handed::of_this_task();
    answer.map(|body| AnswerBody { body, running: Some(running), handed })
}

/// How many bytes a head has: of HTTP/1.1 written without needless spaces, of HTTP/2 as RFC 9113 counts a list of fields
/// (section 6.5.2). hyper and h2 give up only when they have read more than that, which depends on how the bytes arrive.
fn head_bytes<B>(request: &Request<B>) -> usize {
    const LINE: usize = "  HTTP/1.1\r\n".len();
    const END: usize = "\r\n".len();
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let method = request.method().as_str().len();
    let scheme = uri.scheme_str().map_or(0, str::len);
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let (start, field) = if request.version() < Version::HTTP_2 {
        // Of an absolute form, which proxies use.
        let colon = if scheme > 0 { "://".len() } else { 0 };
        (LINE + method + scheme + colon + authority + path + END, ": \r\n".len())
    } else {
        let pseudo = [(":method", method), (":scheme", scheme), (":authority", authority)];
        let pseudo = pseudo.into_iter().filter(|(_, len)| *len > 0);
        let pseudo: usize = pseudo.map(|(name, len)| name.len() + len + LIST_FIELD_BYTES).sum();
        (pseudo + ":path".len() + path + LIST_FIELD_BYTES, LIST_FIELD_BYTES)
    };
    let fields = request.headers().iter();
    let fields: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + field).sum();
    start + fields
}

/// What each field of an HTTP/2 list counts beside its name and value.
const LIST_FIELD_BYTES: usize = 32;

/// As hyper refuses a head that it has not read to its end: without a body, and without a request id.
fn head_too_large(version: Version) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    if version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
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
            if let Some(running) = this.running {
                running.activity.took();
            }
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(20), idle: Duration::from_secs(75) };
    const TICK: Duration = Duration::from_millis(1);

    /// When a timer that is set as it is told finds that the peer took too long, and which limit it met.
    async fn over(activity: &Activity) -> (Duration, Limit) {
        let began = Instant::now();
        loop {
            match activity.wait(PATIENCE) {
                Wait::Over(limit) => return (began.elapsed(), limit),
                Wait::Until(until) => {
                    assert!(until > Instant::now() && until <= Instant::now() + PATIENCE.head);
                    advance(until - Instant::now()).await;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_head_may_take_20_s_from_when_the_connection_was_made() {
        let activity = Activity::default();
        advance(Duration::from_secs(5)).await;
        activity.received();
        advance(PATIENCE.head - Duration::from_secs(5) - TICK).await;
        assert_eq!(activity.wait(PATIENCE), Wait::Until(Instant::now() + TICK));
        advance(TICK).await;
        assert_eq!(activity.wait(PATIENCE), Wait::Over(Limit::HeadTime));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_may_take_20_s_from_its_first_byte_and_come_75_s_after_the_last_answer() {
        let activity = Arc::new(Activity::default());
        let running = activity.begin(None).unwrap();
        // Of a body, or of a request behind this one.
        activity.received();
        advance(Duration::from_secs(3600)).await;
        assert!(matches!(activity.wait(PATIENCE), Wait::Until(_)));
        drop(running);
        assert_eq!(over(&activity).await, (PATIENCE.idle, Limit::Idle));

        let activity = Arc::new(Activity::default());
        drop(activity.begin(None));
        advance(PATIENCE.idle - TICK).await;
        activity.received();
        advance(TICK).await;
        activity.received();
        assert_eq!(over(&activity).await, (PATIENCE.head - TICK, Limit::HeadTime));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_still_being_taken_is_a_request_that_runs() {
        let activity = Arc::new(Activity::default());
        drop(activity.begin(None));
        activity.set_flushed(false, true);
        advance(PATIENCE.idle * 2).await;
        activity.received();
        assert!(matches!(activity.wait(PATIENCE), Wait::Until(_)));
        activity.set_flushed(true, true);
        assert_eq!(over(&activity).await, (Duration::ZERO, Limit::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_nothing_is_taken_for_2_s_gives_way_and_one_that_is_taken_does_not()
    {
        let activity = Arc::new(Activity::default());
        drop(activity.begin(None));
        advance(PATIENCE.idle).await;
        activity.set_flushed(false, false);
        for took in [true, false] {
            advance(UNREAD_MAX - TICK).await;
            assert!(activity.idle().is_none() && !activity.close_idle());
            activity.set_flushed(false, took);
        }
        advance(TICK).await;
        assert_eq!(activity.idle().unwrap().kind, IdleKind::Unread);
        // Whatever runs is waited for; here a request behind the answer that is not read.
        let mut running = activity.begin(None).unwrap();
        assert!(activity.idle().is_none() && !activity.close_idle());
        running.answered();
        assert!(activity.idle().is_none(), "the peer has 2 s for this answer");
        advance(UNREAD_MAX).await;
        assert!(activity.close_idle());
        assert!(activity.begin(None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_for_room_on_http2_gives_way_after_2_s_without_a_piece() {
        let activity = Arc::new(Activity::default());
        let mut running = activity.begin(None).unwrap();
        running.answered();
        let mut body = AnswerBody {
            body: Body::new(http_body_util::Full::new(Bytes::from_static(b"x"))),
            running: Some(running),
            handed: Some(Handed::default()),
        };
        advance(UNREAD_MAX - TICK).await;
        assert!(std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some());
        advance(UNREAD_MAX - TICK).await;
        assert!(activity.idle().is_none());
        advance(TICK).await;
        assert_eq!(activity.idle().unwrap().kind, IdleKind::Unread);
    }
}
