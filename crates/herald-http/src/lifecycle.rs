//! Starting, serving, draining: which requests are taken, and when each stream ends at a stop.

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use herald_log::{Condition, Log, Progress, Step};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The part of the drain in which streams end: new connections go elsewhere before, stragglers are cut after.
const STREAM_END_WINDOW: Range<f64> = 0.25..0.8;

/// The part of the drain after which nothing is waited for: the rest is for closing the log.
const CUT_AT: f64 = 0.95;

/// What `Retry-After` says while the log is being opened.
const STARTING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What `Retry-After` says of a stop when other replicas have the log, which whoever asks again is sent to; and the least that
/// it says.
const STOPPING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a server is doing. It only ever moves downwards in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The ports are bound and the log is being opened.
    Starting,
    /// All is well.
    Serving,
    /// A stop has begun: no new request, streams end one after the other.
    Draining,
}

/// Why a request is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The log is still being opened.
    #[error("the server has not finished starting")]
    Starting {
        /// After how long it is worth asking again.
        retry_after: Duration,
    },
    /// A stop has begun.
    #[error("the server is stopping")]
    Stopping {
        /// After how long another process may answer: a replica soon, the next process when this one is gone.
        retry_after: Duration,
    },
}

impl Unavailable {
    /// After how long it is worth asking again; never zero.
    #[must_use]
    pub const fn retry_after(self) -> Duration {
        match self {
            Self::Starting { retry_after } | Self::Stopping { retry_after } => retry_after,
        }
    }

    /// `Retry-After` in whole seconds, rounded up.
    #[must_use]
    pub const fn retry_after_seconds(self) -> u64 {
        let wait = self.retry_after();
        wait.as_secs() + (wait.subsec_nanos() > 0) as u64
    }
}

/// Why `/health/ready` is 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The log is still being opened.
    Starting,
    /// A stop has begun.
    Stopping,
    /// The token issuer's keys have not been had yet, so that no token can be checked.
    IssuerKeys,
    /// A document that grants depend on has not been had yet: the organisations, or the publishers.
    Documents,
    /// The engine that keeps the log does not answer, and has not since the start.
    EngineAway,
    /// The view follows what the log held at the start, or the engine is still being filled.
    Following,
    /// The engine's log is another one than this replica's, or has lost something.
    History,
    /// A write or sync failed: no append is taken until the process is started again.
    LogPoisoned,
}

impl NotReady {
    /// The reason as `/health/ready` names it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::IssuerKeys => "issuer-keys",
            Self::Documents => "documents",
            Self::EngineAway => ENGINE_AWAY,
            Self::Following => "following",
            Self::History => "history",
            Self::LogPoisoned => "log-poisoned",
        }
    }
}

/// How health calls an engine that does not answer, whether that makes the replica unready or not.
pub(crate) const ENGINE_AWAY: &str = "engine-away";

/// A stop that has begun: when, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    began: Instant,
    length: Duration,
}

impl Drain {
    /// When everything must have ended.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.began + self.length
    }

    /// When what has not ended is cut, a little before the deadline.
    #[must_use]
    pub fn cut_at(&self) -> Instant {
        self.began + self.length.mul_f64(CUT_AT)
    }

    /// When the first and the last stream end.
    #[must_use]
    pub fn stream_end_window(&self) -> Range<Instant> {
        let at = |part| self.began + self.length.mul_f64(part);
        at(STREAM_END_WINDOW.start)..at(STREAM_END_WINDOW.end)
    }
}

/// The server's phase, and the log once it is open. Clones are the same server.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    drain_length: Duration,
    has_replicas: bool,
    log: OnceLock<Log>,
    drain: OnceLock<Drain>,
    progress: Progress,
    lacks_keys: AtomicBool,
    lacks_documents: AtomicBool,
    // Cancelled right after `drain` is set, so whoever sees it cancelled also sees the drain.
    stopping: CancellationToken,
}

impl Lifecycle {
    /// A server that is starting, whose stop may take `drain_length`.
    #[must_use]
    pub fn new(drain_length: Duration) -> Self {
        Self::made(drain_length, false)
    }

    /// The same for one of several replicas, which answer while it stops.
    #[must_use]
    pub fn replicated(drain_length: Duration) -> Self {
        Self::made(drain_length, true)
    }

    fn made(drain_length: Duration, has_replicas: bool) -> Self {
        Self(Arc::new(Inner {
            drain_length,
            has_replicas,
            log: OnceLock::new(),
            drain: OnceLock::new(),
            progress: Progress::default(),
            lacks_keys: AtomicBool::new(false),
            lacks_documents: AtomicBool::new(false),
            stopping: CancellationToken::new(),
        }))
    }

    /// From now on requests are answered from `log`. Only the first call counts.
    pub fn serve(&self, log: Log) {
        let _ = self.0.log.set(log);
    }

    /// How far the log is in being opened: whoever opens it notes it here.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.0.progress
    }

    /// Says whether the token issuer's keys have still to be had: until then balancers should send nobody here.
    pub fn lacks_keys(&self, lacks_keys: bool) {
        self.0.lacks_keys.store(lacks_keys, Ordering::Relaxed);
    }

    /// Says whether a document that grants depend on has still to be had, likewise.
    pub fn lacks_documents(&self, lacks_documents: bool) {
        self.0.lacks_documents.store(lacks_documents, Ordering::Relaxed);
    }

    /// A stop begins now. Only the first call counts.
    pub fn stop(&self) -> Drain {
        let length = self.0.drain_length;
        let drain = *self.0.drain.get_or_init(|| Drain { began: Instant::now(), length });
        self.0.stopping.cancel();
        drain
    }

    /// What the server is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (self.0.drain.get(), self.0.log.get()) {
            (Some(_), _) => Phase::Draining,
            (None, Some(_)) => Phase::Serving,
            (None, None) => Phase::Starting,
        }
    }

    /// The log, for a request that begins now.
    ///
    /// # Errors
    /// [`Unavailable`] while starting and as soon as a stop has begun.
    pub fn gate(&self) -> Result<&Log, Unavailable> {
        if let Some(drain) = self.0.drain.get() {
            let left = drain.deadline().saturating_duration_since(Instant::now());
            let wait = if self.0.has_replicas { STOPPING_RETRY_AFTER } else { left };
            return Err(Unavailable::Stopping { retry_after: wait.max(STOPPING_RETRY_AFTER) });
        }
        self.0.log.get().ok_or(Unavailable::Starting { retry_after: STARTING_RETRY_AFTER })
    }

    /// The log if it is open, whatever the phase: for health, metrics and the end of a stop.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.0.log.get()
    }

    /// Whether balancers should send requests here.
    ///
    /// # Errors
    /// [`NotReady`] says why they should not.
    pub fn readiness(&self) -> Result<(), NotReady> {
        match self.gate() {
            Err(Unavailable::Stopping { .. }) => Err(NotReady::Stopping),
            Err(Unavailable::Starting { .. }) => Err(match self.0.progress.step() {
                Step::Opening => NotReady::Starting,
                Step::EngineAway => NotReady::EngineAway,
                Step::Seeding | Step::Following { .. } => NotReady::Following,
            }),
            Ok(_) if self.0.lacks_keys.load(Ordering::Relaxed) => Err(NotReady::IssuerKeys),
            Ok(_) if self.0.lacks_documents.load(Ordering::Relaxed) => Err(NotReady::Documents),
            Ok(log) if log.is_poisoned() => Err(NotReady::LogPoisoned),
            Ok(log) if matches!(log.condition(), Condition::Refused(_)) => Err(NotReady::History),
            Ok(_) => Ok(()),
        }
    }

    /// What a replica that is ready lacks all the same: reading goes on without it.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        let log = self.0.log.get()?;
        (log.condition() == Condition::Away).then_some(ENGINE_AWAY)
    }

    /// The stop, if one has begun.
    #[must_use]
    pub fn drain(&self) -> Option<Drain> {
        self.0.drain.get().copied()
    }

    /// Waits until a stop begins: an upload still running then is answered with 503.
    pub async fn stop_begun(&self) -> Drain {
        self.0.stopping.cancelled().await;
        // It has begun, so this only tells when.
        self.stop()
    }

    /// The same as a nameable future, for a body that is polled; [`Lifecycle::drain`] is `Some` when it is ready.
    pub fn stop_signal(&self) -> WaitForCancellationFutureOwned {
        self.0.stopping.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use herald_log::LogSettings;

    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);

    fn open_log() -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LogSettings::default()).unwrap();
        (dir, log)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_taken_only_between_ready_and_stop() {
        let (_dir, log) = open_log();
        let life = Lifecycle::new(DRAIN);
        assert_eq!(life.phase(), Phase::Starting);
        assert_eq!(life.gate().unwrap_err().retry_after(), STARTING_RETRY_AFTER);
        assert_eq!(life.readiness(), Err(NotReady::Starting));
        life.serve(log);
        assert_eq!((life.phase(), life.readiness()), (Phase::Serving, Ok(())));
        assert!(life.gate().is_ok());
        life.stop();
        assert_eq!((life.phase(), life.readiness()), (Phase::Draining, Err(NotReady::Stopping)));
        assert_eq!(life.gate().unwrap_err(), Unavailable::Stopping { retry_after: DRAIN });
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_of_a_stop_is_what_is_left_of_it_and_never_zero() {
        let life = Lifecycle::new(DRAIN);
        life.stop();
        tokio::time::advance(Duration::from_millis(7_500)).await;
        assert_eq!(life.gate().unwrap_err().retry_after_seconds(), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(life.gate().unwrap_err().retry_after_seconds(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_of_a_replicas_stop_is_short_however_long_its_drain_is() {
        let life = Lifecycle::replicated(DRAIN);
        life.stop();
        assert_eq!(life.gate().unwrap_err().retry_after_seconds(), 1);
        assert_eq!(life.stop().deadline() - life.stop().began, DRAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_between_a_quarter_and_four_fifths_and_the_rest_is_cut_before_the_deadline()
    {
        let drain = Lifecycle::new(DRAIN).stop();
        let at = |moment: Instant| (moment - drain.began).as_millis();
        let window = drain.stream_end_window();
        assert_eq!((at(window.start), at(window.end)), (2_500, 8_000));
        assert_eq!((at(drain.cut_at()), at(drain.deadline())), (9_500, 10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_stop_does_not_lengthen_the_first() {
        let life = Lifecycle::new(DRAIN);
        let first = life.stop();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(life.stop(), first);
        assert_eq!(life.stop_begun().await, first);
    }
}
