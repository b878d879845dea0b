//! The log in a stream of NATS JetStream: one subject, one message a batch, its position the message's sequence.
//!
//! The condition of an append is `Nats-Expected-Last-Sequence`, which the stream's leader checks against all that it has
//! passed on to the others, so that a batch may be refused for one that is not yet safe, and in the end is not kept. And
//! for a moment there may be two who take themselves for the leader, and a batch reaches both: the first answer may be the
//! old one's conflict, and the new one stores it. So a conflict says nothing for sure, neither that there is something to
//! read nor that this batch is not it: what stands at its position in the end will tell. The log's own name is a part
//! of the subject: a stream that was made anew does not listen to what was meant for the old one, whatever their positions.

mod api;
mod follow;
mod link;
mod session;
mod stream;
mod sync;
mod target;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_nats::{HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::{
    api::{ApiFailure, code},
    follow::Follower,
    link::Link,
    session::{AskError, Session},
    target::Target,
};
use super::{
    Position,
    engine::{ANSWER_WAIT, AppendFailure, Engine, EngineError, Entry, Forgettable, Identity, Look},
    place::{EngineSettings, EngineUrl},
};

/// What went nowhere is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// And for so long: the rest of the wait is for the answer.
const RETRY_MAX: Duration = Duration::from_secs(2);
const _: () = assert!(RETRY_MAX.as_millis() < ANSWER_WAIT.as_millis());
/// How long one question about the stream may take before it is asked again.
const INFO_WAIT: Duration = Duration::from_secs(1);
/// A log with too few replicas is tried to be given more so often.
const RAISE_INTERVAL: Duration = Duration::from_secs(60);
/// The server chooses where a consumer is. One that is itself behind is not taken; so often another one is asked for.
const HOSTS_TRIED: usize = 8;
/// Whose batch a message is, for people who look. Nothing reads it.
const BATCH_HEADER: &str = "Herald-Batch";

/// A stream, and the way to it.
pub(crate) struct Jetstream {
    link: Link,
    /// How long the stream must keep batches; `None` is for ever.
    age: Option<Duration>,
    // Plain mutexes: held to copy a few words.
    /// The log that was seen last.
    log_id: Mutex<Option<Uuid>>,
    /// When it was last tried to raise the number of replicas.
    raised: Mutex<Option<Instant>>,
    /// What has been said, so that it is not said again each time somebody looks.
    said: Mutex<BTreeSet<&'static str>>,
}

impl Jetstream {
    /// Reads the URL; nothing is connected yet. The error says what is wrong with the URL.
    pub(crate) fn new(url: &EngineUrl, settings: &EngineSettings) -> Result<Self, String> {
        Ok(Self {
            link: Link::new(Target::new(url, settings)?),
            age: stream::age(settings.retention),
            log_id: Mutex::default(),
            raised: Mutex::default(),
            said: Mutex::default(),
        })
    }

    fn name(&self) -> &str {
        &self.link.target.stream
    }

    /// Whether this has not been said before.
    fn is_new(&self, what: &'static str) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }

    async fn call(
        &self,
        session: &Session,
        what: &str,
        question: &Value,
        deadline: Instant,
    ) -> Result<Value, ApiFailure> {
        session.call(&format!("$JS.API.STREAM.{what}.{}", self.name()), question, deadline).await
    }

    /// The stream's settings and state, as its leader has them; `None` where there is no stream.
    async fn info(
        &self,
        session: &Session,
        deadline: Instant,
    ) -> Result<Option<Value>, EngineError> {
        loop {
            // Asked while there is no leader, nobody ever answers; a moment later somebody may.
            let until = deadline.min(Instant::now() + INFO_WAIT);
            return match self.call(session, "INFO", &json!({}), until).await {
                Ok(info) if stream::is_led(&info) => Ok(Some(info)),
                Ok(_) => {
                    session.leave("the stream's leader, which answers there, has lost touch with the other servers");
                    Err(away("the stream's leader has lost touch with the other servers"))
                }
                Err(failure) if failure.number() == Some(code::STREAM_NOT_FOUND) => Ok(None),
                // A server that has just started may not know yet who of the others has JetStream.
                Err(ApiFailure::Ask(AskError::NoResponders(_)))
                    if Instant::now() + ANSWER_WAIT - RETRY_MAX < deadline =>
                {
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(ApiFailure::Ask(AskError::Lost { .. }))
                    if until < deadline && session.is_usable() =>
                {
                    continue;
                }
                Err(failure) => Err(failure.into()),
            };
        }
    }

    async fn info_of_log(
        &self,
        session: &Session,
        deadline: Instant,
    ) -> Result<Value, EngineError> {
        let info = self.info(session, deadline).await?;
        info.ok_or_else(|| EngineError::Broken(format!("the stream {} is not there", self.name())))
    }

    async fn update(
        &self,
        session: &Session,
        config: &Value,
        deadline: Instant,
    ) -> Result<(), ApiFailure> {
        self.call(session, "UPDATE", config, deadline).await.map(drop)
    }

    /// Changes for the better what is safe to change, and warns of what can not be.
    async fn mend(
        &self,
        session: &Session,
        config: &Value,
        deadline: Instant,
    ) -> Result<(), EngineError> {
        let name = self.name();
        let mend = stream::mend(config, self.age);
        let mut config = config.clone();
        if let Some(kept) = mend.short_age {
            config = stream::with(&config, "max_age", json!(stream::nanos(self.age)));
            self.update(session, &config, deadline).await?;
            tracing::info!(stream = name, setting = "max_age", was = ?kept, is = ?self.age, "raised a setting of the log's stream");
        }
        if let Some(kept) = mend.long_age
            && self.is_new("max_age")
        {
            tracing::info!(stream = name, setting = "max_age", is = ?kept, needed = ?self.age, "the log's stream keeps batches for longer than it needs to");
        }
        match mend.few_replicas {
            // Up to 2.12 at least, a server alone takes the setting, and does not find the stream when it starts again.
            Some(replicas) if session.client.server_info().cluster.is_none() => {
                self.warn_of_replicas(replicas, "the NATS server is alone");
            }
            Some(replicas) if self.may_raise() => {
                let raised = stream::with(&config, "num_replicas", json!(stream::REPLICAS));
                match self.update(session, &raised, deadline).await {
                    Ok(()) => {
                        tracing::info!(
                            stream = name,
                            setting = "num_replicas",
                            was = replicas,
                            is = stream::REPLICAS,
                            "raised a setting of the log's stream"
                        );
                    }
                    Err(failure) => self.warn_of_replicas(replicas, &failure.to_string()),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn may_raise(&self) -> bool {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let may = raised.is_none_or(|at| at.elapsed() >= RAISE_INTERVAL);
        if may {
            *raised = Some(Instant::now());
        }
        may
    }

    fn warn_of_replicas(&self, replicas: u64, reason: &str) {
        if self.is_new("num_replicas") {
            tracing::warn!(
                stream = self.name(),
                setting = "num_replicas",
                is = replicas,
                needed = stream::REPLICAS,
                reason,
                "the log is kept by too few servers to survive the loss of one; they are raised when there are enough"
            );
        }
    }

    /// What is checked once for each connection: whether Herald may append, and what the servers say of their syncing.
    async fn check_once(
        &self,
        session: &Session,
        subject: &str,
        deadline: Instant,
    ) -> Result<(), EngineError> {
        if session.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        // For a stream that there is not: it is refused before anything happens, but only if it may be sent at all.
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, "herald asks whether it may append");
        match session.send(subject, Some(headers), Bytes::new(), deadline).await {
            Err(failure) if failure.number() == Some(code::STREAM_NOT_MATCH) => {}
            Ok(_) => return Err(away("a batch for another stream was taken")),
            Err(ApiFailure::Ask(AskError::NoResponders(_))) => {
                return Err(away("the log's stream has no leader"));
            }
            Err(failure) => return Err(failure.into()),
        }
        sync::look(session, |what| self.is_new(what)).await;
        session.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a batch, as often as it is certain that it went nowhere.
    async fn send(&self, entry: &Entry, deadline: Instant) -> Result<Value, AppendFailure> {
        let subject = self.link.target.subject(entry.log_id);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, self.name());
        headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, entry.after.position.0.to_string());
        headers.insert(BATCH_HEADER, Uuid::from_u128(entry.batch_id).to_string());
        let until = deadline - ANSWER_WAIT + RETRY_MAX;
        loop {
            let refused = match self.link.session(until).await {
                Ok(session) => {
                    let (headers, frame) = (Some(headers.clone()), entry.frame.clone());
                    match session.send(&subject, headers, frame, deadline).await {
                        Ok(ack) => return Ok(ack),
                        // Nobody listened. While the stream's servers choose a new leader that is usual.
                        Err(ApiFailure::Ask(error @ AskError::NoResponders(_))) => error.into(),
                        Err(failure) => return Err(judge(failure)),
                    }
                }
                Err(error) => error.into(),
            };
            if Instant::now() + RETRY_PAUSE >= until {
                return Err(AppendFailure::Away(refused));
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// What it means for a batch that it was not acknowledged.
fn judge(failure: ApiFailure) -> AppendFailure {
    match failure {
        ApiFailure::Ask(error @ (AskError::Denied(_) | AskError::NotSent(_))) => {
            AppendFailure::Refused(error.into())
        }
        ApiFailure::Said(error) => match error.number {
            code::WRONG_LAST_SEQUENCE => AppendFailure::Conflict,
            number if code::NOTHING_HAPPENED.contains(&number) => {
                AppendFailure::Refused(error.into())
            }
            _ => AppendFailure::Unknown(error.into()),
        },
        failure => AppendFailure::Unknown(failure.into()),
    }
}

impl Engine for Jetstream {
    type Follow = Follower;

    fn address(&self) -> String {
        self.link.target.shown.clone()
    }

    async fn look(&self) -> Result<Option<Look>, EngineError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let session = self.link.session(deadline).await?;
        let Some(info) = self.info(&session, deadline).await? else { return Ok(None) };
        let look = stream::look(self.name(), &info)?;
        let subject = self.link.target.subject(look.identity.log_id);
        let config = &info["config"];
        stream::check(self.name(), &subject, config)?;
        self.check_once(&session, &subject, deadline).await?;
        // Not while it is being seeded: to write settings that were read before would undo what the seeding has written since.
        if !look.identity.is_seeding {
            self.mend(&session, config, deadline).await?;
        }
        *self.log_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(look.identity.log_id);
        Ok(Some(look))
    }

    async fn create(&self, identity: &Identity) -> Result<(), EngineError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let session = self.link.session(deadline).await?;
        let subject = self.link.target.subject(identity.log_id);
        let mut replicas = stream::REPLICAS;
        loop {
            let config = stream::settings(self.name(), &subject, identity, self.age, replicas);
            let Err(failure) = self.call(&session, "CREATE", &config, deadline).await else {
                tracing::info!(stream = self.name(), replicas, "made a stream for the log");
                return Ok(());
            };
            match failure.number() {
                Some(code::STREAM_NAME_IN_USE) => return Ok(()),
                Some(code::NO_PEERS | code::REPLICAS_NOT_SUPPORTED) if replicas > 1 => {
                    self.warn_of_replicas(1, &failure.to_string());
                    replicas = 1;
                }
                _ => return Err(self.not_made(failure)),
            }
        }
    }

    async fn seeded(&self, identity: &Identity) -> Result<(), EngineError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let session = self.link.session(deadline).await?;
        let info = self.info_of_log(&session, deadline).await?;
        let found = stream::identity(self.name(), &info["config"])?;
        if found.log_id != identity.log_id {
            return Err(EngineError::Unfit(format!(
                "the stream {} was made anew while its log was seeded",
                self.name()
            )));
        }
        let config = stream::seeded(info["config"].clone());
        Ok(self.update(&session, &config, deadline).await?)
    }

    async fn append(&self, entry: &Entry) -> Result<(), AppendFailure> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let ack = self.send(entry, deadline).await?;
        let (stream, position) = (ack["stream"].as_str(), ack["seq"].as_u64());
        let expected = entry.after.position.next();
        if stream == Some(self.name()) && position == Some(expected.0) {
            return Ok(());
        }
        // Something took it that does not keep to the condition. What it has done, the follower will see.
        Err(AppendFailure::Unknown(
            format!("a batch for position {expected} was stored at {position:?} of {stream:?}")
                .into(),
        ))
    }

    async fn follow(&self, from: Position) -> Result<Follower, EngineError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let session = self.link.session(deadline).await?;
        let info = self.info_of_log(&session, deadline).await?;
        let look = stream::look(self.name(), &info)?;
        if *self.log_id.lock().unwrap_or_else(PoisonError::into_inner) != Some(look.identity.log_id)
        {
            return Err(EngineError::Broken(format!("the stream {} is another log", self.name())));
        }
        if from < look.first {
            return Err(follow::gone(from, look.first));
        }
        let subject = self.link.target.subject(look.identity.log_id);
        for _ in 0..HOSTS_TRIED {
            let follower =
                Follower::begin(&session, self.name(), subject.clone(), from, deadline).await?;
            if stream::is_current(&info, follower.host()) {
                return Ok(follower);
            }
        }
        Err(away("the servers that follow the stream's leader are far behind"))
    }

    async fn read(&self, position: Position) -> Result<Option<Bytes>, EngineError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        let session = self.link.session(deadline).await?;
        let answer = self.call(&session, "MSG.GET", &json!({"seq": position.0}), deadline).await;
        match answer {
            // A stream's leader answers this, from what has been stored.
            Ok(answer) => {
                let data = answer["message"]["data"].as_str().unwrap_or("");
                let frame = BASE64_STANDARD.decode(data).map_err(|_| ApiFailure::Unreadable)?;
                Ok(Some(frame.into()))
            }
            Err(failure) if failure.number() == Some(code::MESSAGE_NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn forget(&self, _: Forgettable) -> Result<(), EngineError> {
        // The stream's own maximum age does it.
        Ok(())
    }
}

impl Jetstream {
    fn not_made(&self, failure: ApiFailure) -> EngineError {
        match &failure {
            // 5xx is about the servers' state, the rest about what was asked.
            ApiFailure::Said(error) if error.status < 500 => EngineError::Unfit(format!(
                "the stream {} could not be made: {failure}",
                self.name()
            )),
            _ => failure.into(),
        }
    }
}

fn away(text: &str) -> EngineError {
    EngineError::Away(text.to_owned().into())
}
