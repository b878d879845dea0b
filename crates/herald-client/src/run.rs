//! One run: up to 1500 receivers followed over one connection, again and again.
//!
//! ```text
//!            due                 opened, `connected`              fails
//! Wait ───────────► Opening ───────────────────────► Open ──────────────────► Wait
//!   ▲     │        ▲   │ nothing within 15 s
//!   │     ▼        │   │
//!   │  SigningIn ──┘   │  where calls need a token: its time is not the stream's
//!   └──────────────────┴─ polling beside it, until a stream delivers `connected`
//! ```
//!
//! Every future that is under way lives in the state and not in a call, so a call may be dropped at any time.

mod open;

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, pending},
};
use herald_types::{HerId, Offset, PageLimit};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use self::open::{Open, Order};
pub use self::open::{SILENCE_GAPS, SILENCE_MAX};
use crate::{
    Client, Error, LogPosition, Notification, Page, Status, body::undecodable, client::Opened,
    retry::Backoff, sse::Item,
};

/// How long a stream may take from the request to its `connected`.
pub const CONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// How often to poll while streams do not deliver.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long to poll before a stream is tried again, at the least; up to as much again comes on top at random.
pub const STREAM_AGAIN: Duration = Duration::from_secs(25);

/// Where a run's bytes come from: a server, or in tests a script.
pub(crate) trait Source: Send + Sync {
    fn open(&self, after: Offset) -> BoxFuture<'static, Result<Opened, Error>>;
    fn page(&self, after: Offset) -> BoxFuture<'static, Result<Page, Error>>;
    /// Waits until there is a token to call with; `None` where none is needed.
    fn sign_in(&self) -> Option<BoxFuture<'static, Result<(), Error>>> {
        None
    }
    /// A number drawn evenly from 0 up to 1.
    fn random(&mut self) -> f64;
}

impl Source for Box<dyn Source> {
    fn open(&self, after: Offset) -> BoxFuture<'static, Result<Opened, Error>> {
        (**self).open(after)
    }

    fn page(&self, after: Offset) -> BoxFuture<'static, Result<Page, Error>> {
        (**self).page(after)
    }

    fn sign_in(&self) -> Option<BoxFuture<'static, Result<(), Error>>> {
        (**self).sign_in()
    }

    fn random(&mut self) -> f64 {
        (**self).random()
    }
}

/// A server, asked for the receivers of one run.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) receivers: Arc<[HerId]>,
}

impl Source for Server {
    fn open(&self, after: Offset) -> BoxFuture<'static, Result<Opened, Error>> {
        let (client, receivers) = (self.client.clone(), Arc::clone(&self.receivers));
        async move { client.open(&receivers, after).await }.boxed()
    }

    fn page(&self, after: Offset) -> BoxFuture<'static, Result<Page, Error>> {
        let (client, receivers) = (self.client.clone(), Arc::clone(&self.receivers));
        async move { client.poll_once(&receivers, after, PageLimit::MAX).await }.boxed()
    }

    #[cfg(feature = "helseid")]
    fn sign_in(&self) -> Option<BoxFuture<'static, Result<(), Error>>> {
        self.client.sign_in()
    }

    fn random(&mut self) -> f64 {
        rand::random()
    }
}

/// What a run hands on, in order.
#[derive(Debug)]
pub(crate) enum Output {
    Notification(Notification),
    /// There is nothing more up to here.
    Looked(Offset),
    Status(Status),
}

/// The connection and all that it takes to replace it.
pub(crate) struct Run<S> {
    source: S,
    /// What the next request asks for: everything up to here has been handed on or does not exist.
    after: Offset,
    /// The log that the offsets belong to, shared by all runs of a client.
    history: Arc<OnceLock<Uuid>>,
    backoff: Backoff,
    link: Link,
    /// Since when streams open and bring nothing: a proxy that holds them back may end each of them soon.
    held_back_since: Option<Instant>,
    polling: Option<Polling>,
    /// A server did not take the token, and the next try has a new one.
    is_token_new: bool,
    /// Nothing was ever asked of this log.
    begins: bool,
    /// The newest trim point that something was said of, or nothing had to be.
    trim_known: Offset,
    /// At most one page, or a few lines about one event.
    outputs: VecDeque<Output>,
}

enum Link {
    Wait {
        until: Instant,
    },
    SigningIn(BoxFuture<'static, Result<(), Error>>),
    Opening {
        opened: BoxFuture<'static, Result<Opened, Error>>,
        after: Offset,
        connected_by: Instant,
    },
    Open(Box<Open>),
}

enum Step {
    Due,
    SignedIn,
    Opened(Opened, Offset, Instant),
    Item(Item),
    Failed(Error),
}

struct Polling {
    due: Instant,
    page: Option<BoxFuture<'static, Result<Page, Error>>>,
    backoff: Backoff,
}

impl<S: Source> Run<S> {
    pub(crate) fn new(source: S, after: Offset, history: Arc<OnceLock<Uuid>>) -> Self {
        Self {
            begins: after == Offset::ZERO && history.get().is_none(),
            trim_known: Offset::ZERO,
            source,
            after,
            history,
            backoff: Backoff::new(),
            link: Link::Wait { until: Instant::now() },
            held_back_since: None,
            polling: None,
            is_token_new: false,
            outputs: VecDeque::new(),
        }
    }

    /// The next thing to hand on. May be dropped at any time and called again.
    ///
    /// After an error, a further call tries again after a wait.
    pub(crate) async fn next(&mut self) -> Result<Output, Error> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Ok(output);
            }
            let polling = async {
                match &mut self.polling {
                    Some(polling) => polling.step(&self.source, self.after).await,
                    None => pending().await,
                }
            };
            let outcome = tokio::select! {
                biased;
                step = self.link.step() => self.on_step(step),
                page = polling => self.on_page(page),
            };
            if let Err(error) = outcome {
                let until = Instant::now() + self.wait(None);
                self.link = Link::Wait { until };
                return Err(error);
            }
        }
    }

    fn on_step(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Due => {
                match self.source.sign_in() {
                    Some(signed_in) => self.link = Link::SigningIn(signed_in),
                    None => self.open(),
                }
                Ok(())
            }
            Step::SignedIn => {
                self.open();
                Ok(())
            }
            Step::Opened(opened, after, connected_by) => {
                self.is_token_new = false;
                self.on_position(opened.position)?;
                self.held_back_since.get_or_insert_with(Instant::now);
                self.link = Link::Open(Box::new(Open::new(opened, after, connected_by)));
                Ok(())
            }
            Step::Item(item) => self.on_item(item),
            Step::Failed(error) => self.on_failure(error),
        }
    }

    fn open(&mut self) {
        let (opened, after) = (self.source.open(self.after), self.after);
        let connected_by = Instant::now() + CONNECTED_WITHIN;
        self.link = Link::Opening { opened, after, connected_by };
    }

    /// Another history is another log; a trim point ahead of us means that something is gone for good.
    fn on_position(&mut self, position: LogPosition) -> Result<(), Error> {
        let expected = match (self.history.get(), position.history) {
            (Some(expected), _) => Some(*expected),
            (None, Some(found)) => Some(*self.history.get_or_init(|| found)),
            (None, None) => None,
        };
        if let Some(expected) = expected
            && position.history != Some(expected)
        {
            return Err(Error::OtherHistory { expected, found: position.history });
        }
        if let Some(trim) = position.trim.filter(|trim| *trim > self.after.max(self.trim_known)) {
            self.trim_known = trim;
            // Who begins with the oldest that there is has missed nothing.
            if !mem::take(&mut self.begins) {
                self.say(Status::Trimmed { after: self.after, trim });
            }
        }
        self.begins = false;
        Ok(())
    }

    fn on_item(&mut self, item: Item) -> Result<(), Error> {
        match item {
            Item::Retry(hint) => self.backoff.hinted(hint),
            Item::Comment(text) => {
                if let Some(until) = read_until(&text) {
                    if let Link::Open(open) = &mut self.link {
                        open.order.looked(until);
                    }
                    self.look(until);
                }
            }
            Item::Event(event) if &*event.name == "connected" => self.on_connected(),
            Item::Event(event) if &*event.name == "notification" => {
                self.on_connected();
                let notification = Notification::parse_text(event.data)
                    .map_err(|source| undecodable("a notification", source))?;
                if let Link::Open(open) = &mut self.link {
                    let wrong = open.order.check(notification.offset());
                    self.outputs.extend(wrong.map(Output::Status));
                }
                self.hand_on(notification);
            }
            Item::Event(event) => {
                tracing::debug!(event.name = &*event.name, "an unknown event was skipped");
            }
        }
        Ok(())
    }

    fn on_connected(&mut self) {
        let Link::Open(open) = &mut self.link else { return };
        if open.connected_at.is_none() {
            open.connected_at = Some(Instant::now());
            self.held_back_since = None;
            self.polling = None;
            let position = open.position;
            self.say(Status::Connected { after: self.after, position });
        }
    }

    fn on_failure(&mut self, mut error: Error) -> Result<(), Error> {
        if error.refuses_token()
            && !self.is_token_new
            && let Some(signed_in) = self.source.sign_in()
        {
            self.is_token_new = true;
            self.link = Link::SigningIn(signed_in);
            return Ok(());
        }
        if !error.is_retryable() {
            return Err(error);
        }
        match &self.link {
            Link::Open(open) if open.connected_at.is_none() => {
                if self.held_back_since.is_some_and(|since| since.elapsed() >= CONNECTED_WITHIN) {
                    error = Error::NotConnected(CONNECTED_WITHIN);
                }
            }
            // What cannot be opened is not held back.
            Link::Open(_) | Link::Opening { .. } | Link::SigningIn(_) | Link::Wait { .. } => {
                self.held_back_since = None;
            }
        }
        let mut wait = self.wait(error.retry_after());
        if let Error::NotConnected(_) = error {
            wait = STREAM_AGAIN + STREAM_AGAIN.mul_f64(self.source.random());
            self.polling.get_or_insert_with(Polling::new);
        }
        self.link = Link::Wait { until: Instant::now() + wait };
        self.say(if self.polling.is_some() {
            Status::Polling { error, stream_again: wait }
        } else {
            Status::Waiting { error, wait }
        });
        Ok(())
    }

    /// How long until the next stream, now that this one has failed.
    fn wait(&mut self, retry_after: Option<Duration>) -> Duration {
        if let Link::Open(open) = &self.link
            && let Some(connected_at) = open.connected_at
        {
            self.backoff.good_for(connected_at.elapsed());
        }
        self.backoff.wait(self.source.random(), retry_after)
    }

    fn on_page(&mut self, page: Result<Page, Error>) -> Result<(), Error> {
        let Some(polling) = &mut self.polling else { return Ok(()) };
        // After an error that ends it, too, if there is a further call.
        polling.due = Instant::now() + POLL_INTERVAL;
        let page = match page {
            Ok(page) => page,
            Err(error) if error.is_retryable() => {
                let wait = polling.backoff.wait(self.source.random(), error.retry_after());
                let wait = wait.max(POLL_INTERVAL);
                polling.due = Instant::now() + wait;
                self.say(Status::Waiting { error, wait });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        polling.backoff = Backoff::new();
        let before = self.after;
        self.on_position(page.position)?;
        let mut order = Order::new(before);
        for notification in page.notifications {
            let wrong = order.check(notification.offset());
            self.outputs.extend(wrong.map(Output::Status));
            self.hand_on(notification);
        }
        let more = self.after > before;
        if let Some(until) = page.until {
            self.look(until);
        }
        if more && let Some(polling) = &mut self.polling {
            polling.due = Instant::now();
        }
        Ok(())
    }

    /// Invariant: offsets handed on ascend, so what a poll and a stream both bring goes out once.
    fn hand_on(&mut self, notification: Notification) {
        if notification.offset() > self.after {
            self.after = notification.offset();
            self.outputs.push_back(Output::Notification(notification));
        }
    }

    fn look(&mut self, until: Offset) {
        if until > self.after {
            self.after = until;
            self.outputs.push_back(Output::Looked(until));
        }
    }

    fn say(&mut self, status: Status) {
        self.outputs.push_back(Output::Status(status));
    }
}

impl Link {
    async fn step(&mut self) -> Step {
        match self {
            Self::Wait { until } => {
                sleep_until(*until).await;
                Step::Due
            }
            Self::SigningIn(signed_in) => match Pin::as_mut(signed_in).await {
                Ok(()) => Step::SignedIn,
                Err(error) => Step::Failed(error),
            },
            Self::Opening { opened, after, connected_by } => {
                match timeout_at(*connected_by, Pin::as_mut(opened)).await {
                    Ok(Ok(opened)) => Step::Opened(opened, *after, *connected_by),
                    Ok(Err(error)) => Step::Failed(error),
                    Err(_) => Step::Failed(Error::NotConnected(CONNECTED_WITHIN)),
                }
            }
            Self::Open(open) => match open.item().await {
                Ok(item) => Step::Item(item),
                Err(error) => Step::Failed(error),
            },
        }
    }
}

impl Polling {
    fn new() -> Self {
        Self { due: Instant::now(), page: None, backoff: Backoff::new() }
    }

    async fn step(&mut self, source: &impl Source, after: Offset) -> Result<Page, Error> {
        if self.page.is_none() {
            sleep_until(self.due).await;
        }
        let outcome = self.page.get_or_insert_with(|| source.page(after)).as_mut().await;
        self.page = None;
        outcome
    }
}

/// Herald's heartbeat, `: until 45460`: it has looked that far.
fn read_until(comment: &[u8]) -> Option<Offset> {
    str::from_utf8(comment).ok()?.trim().strip_prefix("until ")?.trim().parse().ok()
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
