//! How a replica and the engine of its log get on: what health, metrics and producers are told.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Gauge, describe_gauge, gauge};
use tokio::{sync::watch, time::Instant};

use super::{Position, engine::Look};
use crate::Clock;

const REPLICA_LAG: &str = "herald_replica_lag";
const ENGINE_AWAY: &str = "herald_engine_away";
const LOG_REFUSED: &str = "herald_log_refused";

/// An engine that was heard of within so long is not counted as silent.
const SILENCE_USUAL: Duration = Duration::from_secs(3);

/// Says what the metrics of this module mean.
pub(crate) fn describe() {
    describe_gauge!(
        REPLICA_LAG,
        "Batches that the order has and this replica's view has not, as far as is known; while the engine does not answer, \
         one more for each second. Always 0 with --log local."
    );
    describe_gauge!(
        ENGINE_AWAY,
        "1 while the engine of the cluster's log does not answer, else 0."
    );
    describe_gauge!(
        LOG_REFUSED,
        "1 once the engine has shown another log than this replica holds, or has lost something; else 0."
    );
    // What an alert looks at must be there before anything has happened.
    for gauge in [gauge!(REPLICA_LAG), gauge!(ENGINE_AWAY), gauge!(LOG_REFUSED)] {
        gauge.set(0.0);
    }
}

/// How the log gets on with what keeps its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All is well.
    Fine,
    /// The engine does not answer: reads go on, appends are refused until it is back.
    Away,
    /// The engine's log is another one, or has lost something; the text says what happened. Ends only with the process, but
    /// where an engine that was behind itself has caught up.
    Refused(Arc<str>),
}

/// Why the engine's log is not the view's.
#[derive(Clone, Debug)]
struct Refusal {
    what: Arc<str>,
    /// Another batch than the view's has been seen. Otherwise it is what an engine says that may be behind itself: a node
    /// without its majority, an old primary.
    is_proven: bool,
}

/// What a clock showed at some moment, or may have.
#[derive(Clone, Copy, Debug)]
struct Shown {
    time_ms: u64,
    at: Instant,
}

impl Shown {
    /// What it shows now.
    fn now_ms(&self) -> u64 {
        let since_ms = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.time_ms.saturating_add(since_ms)
    }
}

/// The engine's clock, as its answers tell of it.
#[derive(Clone, Copy, Debug)]
struct EngineClock {
    /// At least what it shows, by the last answer.
    earliest: Shown,
    /// At most what it shows, by any answer. Whoever steps it back, or chooses a leader whose clock is behind, does not make
    /// batches older than they are.
    latest: Shown,
}

/// Shared by the follower and the sequencer, who write it, and those who ask.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What the engine has, and what the view has reached.
    newest: AtomicU64,
    reached: AtomicU64,
    /// What the last look said.
    looked_newest: AtomicU64,
    is_following: AtomicBool,
    /// The view's last batch has been found in the engine.
    is_verified: AtomicBool,
    /// A batch waits for its outcome whose producers have been told that it is unknown.
    is_stuck: AtomicBool,
    /// An append was given up that has certainly not happened; until something is heard of the engine, no other waits.
    is_out: AtomicBool,
    refused: Mutex<Option<Refusal>>,
    /// A look has said that the engine's log may not be the view's, and none yet that it is.
    is_suspicious: AtomicBool,
    /// It is heard of, and does not answer questions: a node without its leader.
    is_mute: AtomicBool,
    // Plain mutexes: held to copy a few words.
    heard: Mutex<Instant>,
    /// Nothing before the first answer.
    clock: Mutex<Option<EngineClock>>,
    /// The engine has removed what the view has not.
    is_outrun: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(reached: Position) -> Self {
        let now = Instant::now();
        Self {
            newest: AtomicU64::new(reached.0),
            reached: AtomicU64::new(reached.0),
            looked_newest: AtomicU64::new(u64::MAX),
            is_following: AtomicBool::new(true),
            is_verified: AtomicBool::new(reached == Position(0)),
            is_stuck: AtomicBool::new(false),
            is_out: AtomicBool::new(false),
            refused: Mutex::new(None),
            is_suspicious: AtomicBool::new(false),
            is_mute: AtomicBool::new(false),
            heard: Mutex::new(now),
            clock: Mutex::new(None),
            is_outrun: watch::Sender::new(false),
        }
    }

    /// The engine has answered, and its log reaches at least to `newest`.
    pub(crate) fn heard(&self, newest: Position) {
        self.newest.fetch_max(newest.0, Ordering::Relaxed);
        self.is_following.store(true, Ordering::Relaxed);
        self.is_out.store(false, Ordering::Relaxed);
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The engine was asked which log it keeps, and has answered.
    pub(crate) fn looked(&self, look: &Look, asked: Instant) {
        self.heard(look.newest);
        self.looked_newest.store(look.newest.0, Ordering::Relaxed);
        self.is_mute.store(false, Ordering::Relaxed);
        let time_ms = look.time_ms;
        let earliest = Shown { time_ms, at: Instant::now() };
        let mut latest = Shown { time_ms, at: asked };
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = *clock
            && before.latest.now_ms() > latest.now_ms()
        {
            latest = before.latest;
        }
        *clock = Some(EngineClock { earliest, latest });
    }

    /// The engine was asked which log it keeps, and did not answer.
    pub(crate) fn is_mute(&self) {
        self.is_mute.store(true, Ordering::Relaxed);
    }

    fn engine_clock(&self) -> Option<EngineClock> {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reached(&self, position: Position) {
        self.reached.store(position.0, Ordering::Relaxed);
        self.newest.fetch_max(position.0, Ordering::Relaxed);
    }

    pub(crate) fn set_verified(&self) {
        self.is_verified.store(true, Ordering::Relaxed);
    }

    /// Whether the engine has been seen to hold what the view holds.
    pub(crate) fn is_verified(&self) -> bool {
        self.is_verified.load(Ordering::Relaxed)
    }

    /// The engine could not be followed.
    pub(crate) fn is_away(&self) {
        self.is_following.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_stuck(&self, is_stuck: bool) {
        self.is_stuck.store(is_stuck, Ordering::Relaxed);
    }

    pub(crate) fn set_out(&self) {
        self.is_out.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }

    /// Whether appends are to be refused at once.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Relaxed)
    }

    /// The engine's log is not the view's, for good: a batch has been seen that the view has another one for.
    pub(crate) fn refuse(&self, what: &str) {
        self.set_refused(what, true);
    }

    /// The engine's log seems not to be the view's: until the engine says otherwise.
    pub(crate) fn doubt(&self, what: &str) {
        self.set_refused(what, false);
    }

    /// The engine has removed batches that the view has not: it cannot go on from there, and must be built again.
    pub(crate) fn outrun(&self, what: &str) {
        if !self.is_outrun.send_replace(true) {
            tracing::error!(what, "the log has left this replica behind");
        }
    }

    pub(crate) fn is_outrun(&self) -> bool {
        *self.is_outrun.borrow()
    }

    /// Waits until that has happened.
    pub(crate) async fn when_outrun(&self) {
        let _ = self.is_outrun.subscribe().wait_for(|is_outrun| *is_outrun).await;
    }

    fn set_refused(&self, what: &str, is_proven: bool) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_said = refused.as_ref().is_some_and(|refusal| refusal.is_proven || !is_proven);
        if !is_said {
            tracing::error!(
                what,
                "the history does not match: no append is taken until this is mended"
            );
            *refused = Some(Refusal { what: what.into(), is_proven });
        }
    }

    /// The engine's log may not be the view's: until that is known nothing is appended to it.
    pub(crate) fn suspect(&self) {
        self.is_suspicious.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.is_suspicious.load(Ordering::Relaxed)
    }

    /// The engine shows the view's log again.
    pub(crate) fn trust(&self) {
        self.is_suspicious.store(false, Ordering::Relaxed);
        let doubt = |refusal: &mut Refusal| !refusal.is_proven;
        if self.refused.lock().unwrap_or_else(PoisonError::into_inner).take_if(doubt).is_some() {
            tracing::info!("the history matches again");
        }
    }

    pub(crate) fn is_refused_for_good(&self) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref().is_some_and(|refusal| refusal.is_proven)
    }

    pub(crate) fn refused(&self) -> Option<Arc<str>> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref().map(|refusal| Arc::clone(&refusal.what))
    }

    /// The engine's newest position as it said last when it was asked.
    pub(crate) fn looked_newest(&self) -> Position {
        Position(self.looked_newest.load(Ordering::Relaxed))
    }

    pub(crate) fn newest(&self) -> Position {
        Position(self.newest.load(Ordering::Relaxed))
    }

    /// Batches that the engine has and the view has not, and one for each second of silence.
    pub(crate) fn lag(&self) -> u64 {
        let known = self.newest().0.saturating_sub(self.reached.load(Ordering::Relaxed));
        let mut heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_mute.load(Ordering::Relaxed)
            && let Some(clock) = self.engine_clock()
        {
            heard = clock.earliest.at;
        }
        let silence = heard.elapsed();
        known + if silence > SILENCE_USUAL { silence.as_secs() } else { 0 }
    }

    pub(crate) fn condition(&self) -> Condition {
        if let Some(what) = self.refused() {
            Condition::Refused(what)
        } else if self.is_stuck()
            || self.is_out()
            || self.is_mute.load(Ordering::Relaxed)
            || !self.is_following.load(Ordering::Relaxed)
        {
            Condition::Away
        } else {
            Condition::Fine
        }
    }

    /// What batches get their times by: the engine's clock, and no replica's own. By one that is behind they would be trimmed
    /// too early, for all.
    pub(crate) fn stamps(self: &Arc<Self>) -> Clock {
        let shared = Arc::clone(self);
        Arc::new(move || shared.engine_clock().map_or(0, |clock| clock.latest.now_ms()))
    }

    /// What ages are counted by: the engine's clock or `own`, whichever is behind. By one that is ahead all would be trimmed
    /// too early.
    pub(crate) fn ages(self: &Arc<Self>, own: Clock) -> Clock {
        let shared = Arc::clone(self);
        Arc::new(move || {
            shared.engine_clock().map_or(0, |clock| own().min(clock.earliest.now_ms()))
        })
    }
}

/// What is on the metrics page of it.
pub(crate) struct ConditionMeters {
    lag: Gauge,
    away: Gauge,
    refused: Gauge,
}

impl ConditionMeters {
    pub(crate) fn new() -> Self {
        Self { lag: gauge!(REPLICA_LAG), away: gauge!(ENGINE_AWAY), refused: gauge!(LOG_REFUSED) }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
    pub(crate) fn set(&self, shared: &Shared) {
        let condition = shared.condition();
        let flag = |is_so| f64::from(u8::from(is_so));
        self.lag.set(shared.lag() as f64);
        self.away.set(flag(condition == Condition::Away));
        self.refused.set(flag(matches!(condition, Condition::Refused(_))));
    }
}
