//! What an engine must do that keeps a cluster's log: a replicated log of opaque batches with a conditional append.
//!
//! An engine knows nothing of frames, offsets and views: it stores bytes at positions. All that makes these bytes a log
//! of notifications is in [`replicated`](super::replicated), once for all engines. docs/engines.md says how another
//! engine is added.

use std::{fmt, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use super::Position;

/// A follower that has heard nothing for so long takes the engine for away, and begins again. Each [`Follow::next`]
/// must return within a third of it.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long an engine may take for one answer before its caller is told that there is none.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// How long an engine keeps a batch at least, where notifications are kept for `retention`: longer than any view shows what
/// is in it, whatever the clocks say, and long enough for a replica that was away.
pub(crate) fn kept_for(retention: Duration) -> Duration {
    const MARGIN_MIN: Duration = Duration::from_secs(60 * 60);
    retention.saturating_add((retention / 4).max(MARGIN_MIN))
}

/// Which log an engine keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name of the offsets; kept when an engine is seeded from a view.
    pub(crate) history: Uuid,
    /// The name of the positions; of each log another one.
    pub(crate) log_id: Uuid,
    /// What every checksum of its frames begins with.
    pub(crate) salt: u64,
    /// Whether the log is still being seeded, so that no replica may follow it yet.
    pub(crate) is_seeding: bool,
}

impl fmt::Debug for Identity {
    // Without the salt, which nobody outside may know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { history, log_id, is_seeding, .. } = self;
        write!(f, "Identity {{ history: {history}, log_id: {log_id}, is_seeding: {is_seeding} }}")
    }
}

/// What an engine says of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) identity: Identity,
    /// The oldest batch that is still there, or the place of the next one where none is.
    pub(crate) first: Position,
    /// The newest batch that was ever stored, 0 where none was. [`first`](Self::first) is behind it when all have gone.
    pub(crate) newest: Position,
    /// The engine's clock, milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// Which of its lives a failover has begun: never goes back in an engine that has lost nothing. 0 where there is no
    /// such thing.
    pub(crate) term: u64,
}

impl Look {
    /// Whether there has been something, and nothing of it is left to read.
    pub(crate) fn is_hollow(&self) -> bool {
        self.newest > Position(0) && self.first > self.newest
    }
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// It could not be reached, or not in time: worth trying again, for ever.
    #[error("the log's engine does not answer")]
    Away(#[source] Source),
    /// It answers, and something about it must be changed first. The text names the setting and says what to do.
    #[error("{0}")]
    Unfit(String),
    /// Something that follows must begin again from a fresh look, because positions went missing, came twice, or are not
    /// there any more.
    #[error("{0}")]
    Broken(String),
}

/// What a library said.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendFailure {
    /// Another batch stands at that position, or the newest one is not the one it was to stand behind. What
    /// stands there in the end tells: it may be said by a leader that is none any more.
    #[error("another batch stands there")]
    Conflict,
    /// The engine said no, and nothing happened: it is full, or may not.
    #[error("the log's engine refused a batch")]
    Refused(#[source] Source),
    /// Nothing happened: the engine could not be reached, or nobody there took it. Worth another try.
    #[error("the log's engine could not be reached")]
    Away(#[source] Source),
    /// No answer, or none that says for sure: it may appear at that position at any time, or never.
    #[error("the log's engine gave no answer")]
    Unknown(#[source] Source),
}

/// A batch in the engine: where, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) batch_id: u128,
}

/// One batch to append.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The log that it is for: another one that has taken its place must not get it.
    pub(crate) log_id: Uuid,
    /// The batch that it must stand right behind; position 0 and id 0 before everything.
    pub(crate) after: Place,
    pub(crate) batch_id: u128,
    pub(crate) frame: Bytes,
    /// The newest offset up to it, and its time: what [`Engine::forget`] goes by in engines that need it.
    pub(crate) tail: u64,
    pub(crate) time_ms: u64,
}

/// What no view shows any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgettable {
    /// The log that it is said of: another one that has taken its place keeps all.
    pub(crate) log_id: Uuid,
    /// Batches whose every record has an offset up to this.
    pub(crate) trim_point: u64,
    /// And whose time is before this.
    pub(crate) before_ms: u64,
}

/// Some batches, ascending by position without a gap.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    /// None at all is a sign of life.
    pub(crate) batches: Vec<(Position, Bytes)>,
    /// The newest position that the engine has, as far as this is known.
    pub(crate) newest: Position,
}

/// An engine with the settings for reaching it. Connections are made when something is asked and kept for the next time;
/// a lost one is made again.
pub(crate) trait Engine: Send + Sync + 'static {
    type Follow: Follow;

    /// Where it is, for messages: without secrets.
    fn address(&self) -> String;

    /// Looks which log is there; `None` where there is none. Checks, and mends where it can, all settings on which the
    /// log's safety depends: what is unsafe is an error or a warning in the log, by name.
    ///
    /// # Errors
    /// [`EngineError::Away`] and [`EngineError::Unfit`].
    fn look(&self) -> impl Future<Output = Result<Option<Look>, EngineError>> + Send;

    /// Makes a log, unless there is one by then: the next look tells which it is.
    ///
    /// # Errors
    /// [`EngineError::Away`] and [`EngineError::Unfit`].
    fn create(&self, identity: &Identity) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Ends the seeding of the log: replicas may follow it.
    ///
    /// # Errors
    /// [`EngineError::Away`] and [`EngineError::Unfit`].
    fn seeded(&self, identity: &Identity) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stores a batch right behind `entry.after`, or not at all; answered when it is safe: no failure that the engine is
    /// made to survive can take it away again. Dropping the future leaves the outcome open.
    ///
    /// # Errors
    /// [`AppendFailure`] says what is certain. When in doubt it is [`AppendFailure::Unknown`].
    fn append(&self, entry: &Entry) -> impl Future<Output = Result<(), AppendFailure>> + Send;

    /// Follows the log from the batch at `from` on, that one included. Gives only batches that are safe in the same sense.
    ///
    /// # Errors
    /// [`EngineError::Away`] and [`EngineError::Broken`].
    fn follow(
        &self,
        from: Position,
    ) -> impl Future<Output = Result<Self::Follow, EngineError>> + Send;

    /// The batch at one position, if it is there. Need not be known to be safe.
    ///
    /// # Errors
    /// [`EngineError::Away`].
    fn read(
        &self,
        position: Position,
    ) -> impl Future<Output = Result<Option<Bytes>, EngineError>> + Send;

    /// Removes the oldest batches as far as they may be forgotten, but never the newest one. Nothing where the engine does
    /// that by itself.
    ///
    /// # Errors
    /// [`EngineError::Away`].
    fn forget(&self, what: Forgettable) -> impl Future<Output = Result<(), EngineError>> + Send;
}

/// Batches as they come.
pub(crate) trait Follow: Send {
    /// Waits for the next ones, or for a sign of life. Cancel-safe.
    ///
    /// # Errors
    /// [`EngineError::Away`] and [`EngineError::Broken`]; then it has ended.
    fn next(&mut self) -> impl Future<Output = Result<Followed, EngineError>> + Send;
}
