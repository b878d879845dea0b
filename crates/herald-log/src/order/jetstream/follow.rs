//! Following a stream through a consumer of one's own.
//!
//! The consumer lives in the memory of one server and acknowledges nothing: it is as good as the messages it has sent,
//! and if one of them, a sign of life or the connection is missing, the follower has ended and its caller begins another.
//! Messages are asked for in portions, so that no more than two portions wait to be taken, however slow the caller is.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::Stream as _;
use serde_json::json;
use tokio::{
    task::coop::unconstrained,
    time::{Instant, sleep, sleep_until, timeout},
};
use uuid::Uuid;

use super::{
    super::{
        Position,
        engine::{EngineError, Follow, Followed, SILENCE_MAX},
    },
    session::Session,
};

/// One portion: so many messages, or bytes.
pub(super) const MESSAGES_ASKED: usize = 4096;
/// More than the largest batch, or it could never be sent.
const BYTES_ASKED: usize = 12 * 1024 * 1024;
const _: () = assert!(BYTES_ASKED > super::link::PAYLOAD_MIN + 64 * 1024);
/// How long the server keeps a question for messages that do not come.
const QUESTION_EXPIRY: Duration = Duration::from_secs(30);
/// The server says so often that there is nothing new.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Whoever calls must hear of it in a third of the time after which it begins again.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(2);
const _: () = assert!(HEARTBEAT_WAIT.as_millis() * 3 <= SILENCE_MAX.as_millis());
/// A consumer that nobody asks for so long goes by itself.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);
/// A consumer on another server may be made before this one knows the way to it: then it is asked again after a pause, so often.
const UNHEARD_PAUSE: Duration = Duration::from_millis(50);
const UNHEARD_MAX: u32 = 20;
/// Batches that are there are given together, up to so many or so many bytes.
const JOINED_MAX: usize = 1024;
const JOINED_BYTES: usize = 8 * 1024 * 1024;

/// The server's words for what is not a message: nothing new, a portion's time is over, a portion or the consumer ends, there
/// is no consumer.
const IDLE_HEARTBEAT: u16 = 100;
const QUESTION_EXPIRED: u16 = 408;
const QUESTION_ENDED: u16 = 409;
const NOBODY_LISTENS: u16 = 503;

/// A consumer, and what has come from it.
pub(crate) struct Follower {
    session: Arc<Session>,
    /// The server that it is on; nothing where there is but one.
    host: String,
    messages: Subscriber,
    /// Where questions go, and to whom the answers.
    questions: String,
    inbox: String,
    subject: String,
    /// Messages that were asked for and have not come.
    asked: usize,
    /// What must come next.
    next: Position,
    /// Messages that the consumer has sent, by its own count.
    sent: u64,
    newest: Position,
    /// Whether the first of those that were asked for has come.
    has_begun: bool,
    /// How often nobody listened before the consumer's first sign of life; `None` since then.
    unheard: Option<u32>,
    /// What is said the next time.
    failed: Option<EngineError>,
    /// Since when there has been nothing to take, and something was to be expected.
    waiting_since: Option<Instant>,
}

/// What one message from the consumer was.
enum Came {
    Batch(Position, Bytes),
    /// A sign of life.
    Sign,
}

impl Follower {
    /// Makes a consumer that begins at `from`, on a stream that keeps batches from `first` on under `subject`.
    pub(super) async fn begin(
        session: &Arc<Session>,
        stream: &str,
        subject: String,
        from: Position,
        deadline: Instant,
    ) -> Result<Self, EngineError> {
        let consumer = format!("herald-{}", Uuid::new_v4().simple());
        let inbox = session.client.new_inbox();
        let messages = session
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| EngineError::Away(error.to_string().into()))?;
        let config = json!({
            "stream_name": stream,
            "action": "create",
            "config": {
                "name": consumer,
                "description": "a replica of Herald",
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from.0.max(1),
                "filter_subject": subject,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": super::stream::nanos(Some(IDLE_MAX)),
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        let make = format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{subject}");
        let made = session.call(&make, &config, deadline).await?;
        let pending = made["num_pending"].as_u64().unwrap_or(0);
        Ok(Self {
            host: made["cluster"]["leader"].as_str().unwrap_or("").to_owned(),
            session: Arc::clone(session),
            messages,
            questions: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            subject,
            asked: 0,
            next: from,
            sent: 0,
            newest: Position((from.0 + pending).saturating_sub(1)),
            has_begun: false,
            unheard: Some(0),
            failed: None,
            waiting_since: None,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Keeps two portions asked for.
    async fn ask(&mut self) -> Result<(), EngineError> {
        while self.asked <= MESSAGES_ASKED {
            let question = json!({
                "batch": MESSAGES_ASKED,
                "max_bytes": BYTES_ASKED,
                "expires": super::stream::nanos(Some(QUESTION_EXPIRY)),
                "idle_heartbeat": super::stream::nanos(Some(HEARTBEAT)),
            });
            let (to, inbox) = (self.questions.clone(), self.inbox.clone());
            self.session
                .client
                .publish_with_reply(to, inbox, Bytes::from(question.to_string()))
                .await
                .map_err(|error| EngineError::Away(error.to_string().into()))?;
            self.asked += MESSAGES_ASKED;
        }
        Ok(())
    }

    /// Waits for the first of what is there next, and takes what has come with it.
    async fn gather(&mut self) -> Result<Followed, EngineError> {
        let session = Arc::clone(&self.session);
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        tokio::select! {
            // What was sent before the connection ended still counts.
            biased;
            // Bounded by itself, so that a group need not end where the runtime would have it breathe.
            gathered = unconstrained(poll_fn(|cx| self.poll_gather(cx))) => gathered,
            () = session.ended() => Err(away("the connection was lost")),
            () = sleep_until(since + HEARTBEAT_WAIT) => Err(away("it has been silent for too long")),
        }
    }

    /// In one call, so that nothing is lost if the caller stops waiting.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<Followed, EngineError>> {
        let mut batches = Vec::new();
        let (mut bytes, mut signs) = (0, 0);
        while bytes < JOINED_BYTES && batches.len() < JOINED_MAX {
            let taken = match Pin::new(&mut self.messages).poll_next(cx) {
                Poll::Ready(Some(message)) => self.take(message),
                Poll::Ready(None) => Err(away("the connection was lost")),
                Poll::Pending if batches.is_empty() && signs == 0 => return Poll::Pending,
                Poll::Pending => break,
            };
            match taken {
                Ok(Came::Batch(position, frame)) => {
                    bytes += frame.len();
                    batches.push((position, frame));
                }
                Ok(Came::Sign) => signs += 1,
                Err(error) if batches.is_empty() => return Poll::Ready(Err(error)),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.waiting_since = None;
        Poll::Ready(Ok(Followed { batches, newest: self.newest }))
    }

    fn take(&mut self, message: Message) -> Result<Came, EngineError> {
        if message.status.is_some() {
            return self.take_status(&message).map(|()| Came::Sign);
        }
        let reply = message.reply.as_deref().unwrap_or("");
        let place = Place::read(reply).ok_or_else(|| broken("a message came from elsewhere"))?;
        if message.subject.as_str() != self.subject {
            return Err(broken("a batch of another log came"));
        }
        if place.sent != self.sent + 1 {
            let (sent, had) = (place.sent, self.sent);
            return Err(broken(format!(
                "message {sent} came behind message {had} of the consumer"
            )));
        }
        self.sent = place.sent;
        self.unheard = None;
        self.asked = self.asked.saturating_sub(1);
        self.newest = self.newest.max(Position(place.position.0 + place.pending));
        let (came, next) = (place.position, self.next);
        if came < next && !self.has_begun {
            // The server did not have the first one yet, and began with what it had.
            return Ok(Came::Sign);
        }
        if came < next {
            return Err(broken(format!("position {came} came again, {next} was next")));
        }
        if came > next {
            return Err(gone(next, came));
        }
        self.has_begun = true;
        self.next = next.next();
        Ok(Came::Batch(came, message.payload))
    }

    fn take_status(&mut self, message: &Message) -> Result<(), EngineError> {
        let header = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
        let status = message.status.map_or(0, |status| status.as_u16());
        let description = message.description.as_deref().unwrap_or("");
        match (status, description) {
            (IDLE_HEARTBEAT, _) => match header("Nats-Last-Consumer") {
                Some(sent) if sent > self.sent => {
                    Err(broken(format!("{} messages have not come", sent - self.sent)))
                }
                _ => {
                    self.unheard = None;
                    Ok(())
                }
            },
            (NOBODY_LISTENS, _) if self.unheard.is_some_and(|times| times < UNHEARD_MAX) => {
                self.unheard = self.unheard.map(|times| times + 1);
                self.asked = self.asked.saturating_sub(MESSAGES_ASKED);
                Ok(())
            }
            // A portion has ended before all of it had come.
            (QUESTION_EXPIRED, _)
            | (QUESTION_ENDED, "Message Size Exceeds MaxBytes" | "Batch Completed") => {
                let left = header("Nats-Pending-Messages")
                    .ok_or_else(|| away("a portion ended, and the server did not say how"))?;
                self.asked = self.asked.saturating_sub(usize::try_from(left).unwrap_or(usize::MAX));
                Ok(())
            }
            _ => Err(away(&format!("the consumer has ended: {status} {description}"))),
        }
    }
}

impl Follow for Follower {
    async fn next(&mut self) -> Result<Followed, EngineError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.asked <= MESSAGES_ASKED {
            if self.unheard.is_some_and(|times| times > 0) {
                sleep(UNHEARD_PAUSE).await;
            }
            timeout(HEARTBEAT_WAIT, self.ask())
                .await
                .map_err(|_| away("no question can be sent"))??;
            self.waiting_since = None;
        }
        self.gather().await
    }
}

fn away(text: &str) -> EngineError {
    EngineError::Away(text.to_owned().into())
}

fn broken(text: impl Into<String>) -> EngineError {
    EngineError::Broken(text.into())
}

/// What to say of batches that are not there any more.
pub(super) fn gone(from: Position, first: Position) -> EngineError {
    broken(format!("the log begins at position {first}, and {from} is not there any more"))
}

/// What a consumer says of a message, in the subject for its acknowledgement.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    position: Position,
    /// Messages that the consumer has sent, this one included.
    sent: u64,
    /// Messages that are behind this one.
    pending: u64,
}

impl Place {
    /// `$JS.ACK.STREAM.CONSUMER.DELIVERIES.POSITION.SENT.TIME.PENDING`, or with the domain and the account behind `ACK`,
    /// and perhaps something at the end.
    fn read(reply: &str) -> Option<Self> {
        let tokens = reply.strip_prefix("$JS.ACK.")?.split('.').count();
        let mut tokens = reply.split('.').skip(if tokens == 7 { 5 } else { 7 });
        let mut number = || tokens.next()?.parse::<u64>().ok();
        let (position, sent, _time, pending) = (number()?, number()?, number()?, number()?);
        Some(Self { position: Position(position), sent, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_where_it_stands_in_either_form() {
        let place = Some(Place { position: Position(7), sent: 3, pending: 9 });
        for (reply, read) in [
            ("$JS.ACK.HERALD.herald-1.1.7.3.1767323045678901000.9", &place),
            ("$JS.ACK._.ACCOUNT.HERALD.herald-1.1.7.3.1767323045678901000.9", &place),
            ("$JS.ACK.hub.ACCOUNT.HERALD.herald-1.1.7.3.1767323045678901000.9.x", &place),
            ("$JS.ACK.HERALD.herald-1.1.7.3.1767323045678901000", &None),
            ("$JS.ACK.HERALD.herald-1.1.7.-3.1.9", &None),
            ("_INBOX.1", &None),
            ("", &None),
        ] {
            assert_eq!(&Place::read(reply), read, "{reply}");
        }
    }
}
