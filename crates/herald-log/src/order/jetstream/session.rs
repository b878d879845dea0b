//! One connection: questions and answers, and what becomes of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, Event, HeaderMap, Message, Request, RequestErrorKind, ServerError,
    connection::State as Connection,
};
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::super::engine::Source;

/// A server that is reached, and for so long gives no answer, may be cut off from the others: another one is tried.
const PATIENCE_MIN: Duration = Duration::from_secs(4);
/// It may be no better with any of them. Then each is given twice as long as the one before, up to this many times.
const PATIENCE_FACTOR_MAX: u32 = 16;

/// How long to wait for answers before another server is tried.
pub(super) struct Patience(AtomicU32);

impl Default for Patience {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Patience {
    fn lasts(&self) -> Duration {
        PATIENCE_MIN * self.0.load(Ordering::Relaxed)
    }

    fn double(&self) {
        let factor = self.0.load(Ordering::Relaxed);
        self.0.store((factor * 2).min(PATIENCE_FACTOR_MAX), Ordering::Relaxed);
    }

    fn begin_again(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

/// One connection, from its beginning to its end.
pub(super) struct Session {
    /// As the URL of one server.
    pub(super) server: String,
    pub(super) client: Client,
    /// Whether what is checked once for each connection has been found good.
    pub(super) is_checked: AtomicBool,
    events: Events,
    state: watch::Receiver<State>,
    patience: Arc<Patience>,
    /// Since when no question has been answered.
    // A plain mutex: held to copy a word.
    unanswered: Mutex<Option<Instant>>,
}

/// What the library reports of a connection.
#[derive(Clone, Debug, Default)]
struct State {
    has_ended: bool,
    /// The server is about to go, or is no good: nothing new is begun with it.
    is_leaving: bool,
    /// How often the server said that something is not permitted, and the last time's text.
    denials: u64,
    denied: String,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nobody listens there: it went nowhere.
    #[error("nobody listens on {0}")]
    NoResponders(String),
    /// The server did not take it.
    #[error("the server did not take it: {0}")]
    Denied(String),
    /// It is too large for the server, and was not sent.
    #[error("it was not sent")]
    NotSent(#[source] Source),
    /// It may have arrived.
    #[error("no answer from {subject}")]
    Lost {
        subject: String,
        #[source]
        source: Source,
    },
}

/// Where the library's reports go.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<watch::Sender<State>>);

impl Events {
    /// Keeps what the library reports, and says it once.
    pub(super) fn note(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => {
                let was_open =
                    self.0.send_if_modified(|s| !std::mem::replace(&mut s.has_ended, true));
                // Closed by us, it is nobody's news.
                if was_open && *event == Event::Disconnected && !self.0.is_closed() {
                    tracing::warn!("lost the connection to NATS");
                }
            }
            Event::LameDuckMode => self.leave("it is about to stop"),
            Event::ServerError(ServerError::Other(text)) if text.contains("ermissions") => {
                // What may not be asked is told to who asks; that it may not hear the answers, nobody else says.
                if text.contains("Subscription") {
                    tracing::warn!(error = %text, "the NATS server complains");
                }
                self.0.send_modify(|state| {
                    state.denials += 1;
                    state.denied.clone_from(text);
                });
            }
            Event::ServerError(error) => tracing::warn!(%error, "the NATS server complains"),
            Event::SlowConsumer(_) => tracing::warn!("messages from NATS were not taken in time"),
            Event::Connected | Event::Draining | Event::ClientError(_) => {}
        }
    }

    fn leave(&self, reason: &str) {
        if self.0.send_if_modified(|state| !std::mem::replace(&mut state.is_leaving, true)) {
            tracing::info!(reason, "leaving this NATS server");
        }
    }
}

/// What the server says about a question that it does not permit; `None` when the connection ends.
async fn denied(mut state: watch::Receiver<State>, before: u64, subject: &str) -> Option<String> {
    // It names the subject; whatever else is denied meanwhile was somebody else's question.
    let subject = format!("\"{subject}\"");
    let is_told = |s: &State| s.has_ended || (s.denials > before && s.denied.contains(&subject));
    let state = state.wait_for(is_told).await.ok()?;
    (!state.has_ended).then(|| state.denied.clone())
}

impl Session {
    pub(super) fn new(
        server: String,
        client: Client,
        events: Events,
        patience: Arc<Patience>,
    ) -> Self {
        Self {
            server,
            client,
            is_checked: AtomicBool::new(false),
            state: events.0.subscribe(),
            events,
            patience,
            unanswered: Mutex::default(),
        }
    }

    /// Whether something new may be begun with it.
    pub(super) fn is_usable(&self) -> bool {
        let state = self.state.borrow();
        // A report can be lost in a flood of them, the connection's own state not.
        !state.has_ended
            && !state.is_leaving
            && self.client.connection_state() == Connection::Connected
    }

    /// Returns when the connection is lost, or is of no more use.
    pub(super) async fn ended(&self) {
        let is_over = |state: &State| state.has_ended || state.is_leaving;
        // It can not fail while this end of it is kept.
        let _ = self.state.clone().wait_for(is_over).await;
    }

    /// The next who asks should ask another server.
    pub(super) fn leave(&self, reason: &str) {
        self.patience.double();
        self.events.leave(reason);
    }

    /// It is of use.
    pub(super) fn answered(&self) {
        *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.patience.begin_again();
    }

    /// It may be cut off from the others.
    pub(super) fn not_answered(&self) {
        let since = *self
            .unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience.lasts() {
            self.leave("it does not answer");
        }
    }

    /// Sends a question and waits for its answer.
    pub(super) async fn ask(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Message, AskError> {
        let before = self.state.borrow().denials;
        let wait = deadline.saturating_duration_since(Instant::now());
        let mut request = Request::new().payload(payload).timeout(Some(wait));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let lost = |source: Source| AskError::Lost { subject: subject.to_owned(), source };
        // Biased: an answer that is there counts, whatever happened right behind it.
        let answer = tokio::select! {
            biased;
            // With a time-out of its own: the library's begins only when the question is on its way.
            answer = timeout_at(deadline, self.client.send_request(subject.to_owned(), request)) => answer,
            denied = denied(self.state.clone(), before, subject) => {
                return Err(denied.map_or_else(
                    || lost("the connection was lost".into()),
                    AskError::Denied,
                ));
            }
        };
        match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => AskError::NoResponders(subject.to_owned()),
                RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                    AskError::NotSent(error.to_string().into())
                }
                RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                    lost(error.to_string().into())
                }
            }),
            Err(elapsed) => Err(lost(elapsed.into())),
        }
    }
}
