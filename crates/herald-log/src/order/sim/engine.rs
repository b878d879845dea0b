//! An engine behind a network that delays, reorders and loses, and its clients. It keeps its promise of a conditional append
//! unless it is told to break it.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::World;
use crate::order::{
    Position,
    engine::{
        ANSWER_WAIT, AppendFailure, Engine, EngineError, Entry, Follow, Followed, Forgettable,
        Identity, Look, Source, kept_for,
    },
};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// The truth begins at this time.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// How the network and the engine are at the moment. Chances are of each message.
#[derive(Clone, Debug)]
pub(super) struct Mood {
    /// What a message takes, one way, in milliseconds.
    pub(super) latency: Range<u64>,
    pub(super) loses_request: f64,
    pub(super) loses_answer: f64,
    /// It lands long after, whoever waits for it.
    pub(super) late: f64,
    pub(super) refuses: f64,
    pub(super) breaks: f64,
    pub(super) repeats: f64,
    pub(super) falls_silent: f64,
    /// Those who follow see a batch so much later, at most.
    pub(super) follow_delay: u64,
}

impl Mood {
    pub(super) fn calm() -> Self {
        Self {
            latency: 1..4,
            loses_request: 0.0,
            loses_answer: 0.0,
            late: 0.0,
            refuses: 0.0,
            breaks: 0.0,
            repeats: 0.0,
            falls_silent: 0.0,
            follow_delay: 1,
        }
    }

    pub(super) fn drawn(world: &World) -> Self {
        let chance = |most: f64| if world.is(0.5) { 0.0 } else { most * world.part() };
        let slowest = [3, 20, 200, 1500][world.below(4)];
        Self {
            latency: 1..slowest,
            loses_request: chance(0.2),
            loses_answer: chance(0.4),
            late: chance(0.3),
            refuses: chance(0.1),
            breaks: chance(0.1),
            repeats: chance(0.3),
            falls_silent: chance(0.03),
            follow_delay: [2, 20, 300, 3000][world.below(4)],
        }
    }
}

/// The engine itself.
pub(super) struct SimLog {
    pub(super) world: Arc<World>,
    /// It compares which batch an append is to stand behind, and not only its position.
    compares_ids: bool,
    state: Mutex<State>,
    changed: Notify,
}

pub(super) struct State {
    pub(super) identity: Option<Identity>,
    /// The position before the first batch that is still there.
    pub(super) forgotten: u64,
    pub(super) batches: Vec<Entry>,
    /// All that was ever stored and not taken back, each with its true time.
    pub(super) stored: Vec<(Bytes, u64)>,
    pub(super) term: u64,
    pub(super) mood: Mood,
    pub(super) is_down: bool,
    pub(super) is_full: bool,
    /// While another leader is being found, looks show an older newest position.
    pub(super) stale: Option<Position>,
    /// How often that has been.
    pub(super) changes_of_leader: u64,
    /// How often all of it was started again, which nobody goes on following over.
    pub(super) starts: u64,
    /// What the clocks of all have leapt ahead.
    pub(super) leapt_ms: u64,
    /// Clients that are cut off.
    pub(super) cut: Vec<bool>,
    /// This client's following leaves out the next batch, or gets it damaged: what no engine may do.
    pub(super) skips: Option<usize>,
    pub(super) damages: Option<usize>,
}

impl SimLog {
    pub(super) fn new(world: &Arc<World>, clients: usize) -> Arc<Self> {
        let state = State {
            identity: None,
            forgotten: 0,
            batches: Vec::new(),
            stored: Vec::new(),
            term: 1,
            mood: Mood::calm(),
            is_down: false,
            is_full: false,
            stale: None,
            changes_of_leader: 0,
            starts: 0,
            leapt_ms: 0,
            cut: vec![false; clients],
            skips: None,
            damages: None,
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        let compares_ids = world.is(0.5);
        Arc::new(Self { world: Arc::clone(world), compares_ids, state, changed })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it behind everybody's back.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    /// The true time.
    pub(super) fn time_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.world.elapsed().as_millis()).unwrap();
        EPOCH_MS + elapsed + self.state().leapt_ms
    }

    /// Stores it, if it stands behind what is there.
    fn land(&self, entry: &Entry) -> Result<(), AppendFailure> {
        let time_ms = self.time_ms();
        {
            let mut state = self.state();
            let before = state.at(entry.after.position).map_or(0, |before| before.batch_id);
            let is_behind = before == entry.after.batch_id || !self.compares_ids;
            if state.newest() != entry.after.position || !is_behind {
                return Err(AppendFailure::Conflict);
            }
            state.batches.push(entry.clone());
            state.stored.push((entry.frame.clone(), time_ms));
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

impl State {
    pub(super) fn newest(&self) -> Position {
        Position(self.forgotten + self.batches.len() as u64)
    }

    fn at(&self, position: Position) -> Option<&Entry> {
        let index = position.0.checked_sub(self.forgotten + 1)?;
        self.batches.get(usize::try_from(index).unwrap())
    }

    fn reaches(&self, client: usize) -> bool {
        !self.is_down && !self.cut[client]
    }
}

/// One replica's way to the engine.
#[derive(Clone)]
pub(super) struct SimEngine {
    pub(super) log: Arc<SimLog>,
    pub(super) client: usize,
}

fn away() -> Source {
    "the network has lost it".into()
}

/// What becomes of one message that asks for an append.
struct Fate {
    there: Duration,
    back: Duration,
    is_lost: bool,
    is_answer_lost: bool,
    is_refused: bool,
}

impl SimEngine {
    fn latency(&self) -> Duration {
        let range = self.log.state().mood.latency.clone();
        Duration::from_millis(self.log.world.between(range))
    }

    fn reaches(&self) -> bool {
        self.log.state().reaches(self.client)
    }

    /// A question and its answer take so long, and there is one or not.
    async fn reach(&self) -> Result<(), EngineError> {
        if self.reaches() {
            sleep(self.latency()).await;
        }
        if self.reaches() {
            return Ok(());
        }
        let wait = if self.log.world.is(0.5) { ANSWER_WAIT } else { self.latency() };
        sleep(wait).await;
        Err(EngineError::Away(away()))
    }

    fn fate(&self) -> Fate {
        let (world, mood) = (&self.log.world, self.log.state().mood.clone());
        let is_late = world.is(mood.late);
        let late = Duration::from_millis(world.between(500..12_000));
        Fate {
            there: if is_late { late } else { self.latency() },
            back: self.latency(),
            // One that is on its way when the line is cut may come through when it is whole again.
            is_lost: world.is(mood.loses_request) || !self.reaches() && world.is(0.7),
            is_answer_lost: world.is(mood.loses_answer),
            is_refused: world.is(mood.refuses),
        }
    }

    /// Carries one append, whether or not anybody still waits for its answer. Says nothing where the answer is lost.
    async fn carry(self, entry: Entry, answer: oneshot::Sender<Result<(), AppendFailure>>) {
        let (fate, world) = (self.fate(), Arc::clone(&self.log.world));
        sleep(fate.there).await;
        while !self.reaches() && !fate.is_lost {
            sleep(Duration::from_millis(100)).await;
        }
        let is_between_leaders = self.log.state().stale.is_some();
        let landed = if fate.is_lost || is_between_leaders {
            None
        } else if fate.is_refused || self.log.state().is_full {
            Some(Err(AppendFailure::Refused("the engine is full".into())))
        } else {
            Some(self.log.land(&entry))
        };
        let position = entry.after.position.next();
        world.tell(|| {
            let (client, id) = (self.client, entry.batch_id & 0xffff);
            format!("engine: {client} appends {id:04x} at {position}: {landed:?}")
        });
        sleep(fate.back).await;
        match landed {
            Some(landed) if !fate.is_answer_lost && self.reaches() => drop(answer.send(landed)),
            // The connection breaks at once, or nothing comes for a long time.
            _ if world.is(0.3) => {}
            _ => sleep(2 * ANSWER_WAIT).await,
        }
    }
}

impl Engine for SimEngine {
    type Follow = SimFollow;

    fn address(&self) -> String {
        "simulated".into()
    }

    async fn look(&self) -> Result<Option<Look>, EngineError> {
        self.reach().await?;
        let time_ms = self.log.time_ms();
        let state = self.log.state();
        Ok(state.identity.map(|identity| Look {
            identity,
            first: Position(state.forgotten + 1),
            newest: state.stale.unwrap_or(state.newest()),
            time_ms,
            term: state.term,
        }))
    }

    async fn create(&self, identity: &Identity) -> Result<(), EngineError> {
        self.reach().await?;
        self.log.state().identity.get_or_insert(*identity);
        Ok(())
    }

    async fn seeded(&self, identity: &Identity) -> Result<(), EngineError> {
        self.reach().await?;
        self.log.state().identity = Some(Identity { is_seeding: false, ..*identity });
        Ok(())
    }

    async fn append(&self, entry: &Entry) -> Result<(), AppendFailure> {
        let (answer, answered) = oneshot::channel();
        tokio::spawn(self.clone().carry(entry.clone(), answer));
        match timeout(ANSWER_WAIT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(AppendFailure::Unknown(away())),
        }
    }

    async fn follow(&self, from: Position) -> Result<SimFollow, EngineError> {
        self.reach().await?;
        let starts = self.log.state().starts;
        Ok(SimFollow { engine: self.clone(), next: from, starts })
    }

    async fn read(&self, position: Position) -> Result<Option<Bytes>, EngineError> {
        self.reach().await?;
        Ok(self.log.state().at(position).map(|entry| entry.frame.clone()))
    }

    async fn forget(&self, what: Forgettable) -> Result<(), EngineError> {
        self.reach().await?;
        let time_ms = self.log.time_ms();
        let mut state = self.log.state();
        let may_go =
            |entry: &&Entry| entry.tail <= what.trim_point && entry.time_ms < what.before_ms;
        let held = state.batches.len().saturating_sub(1);
        let count = state.batches[..held].iter().take_while(may_go).count();
        if let Some(retention) = self.log.world.retention {
            let kept_ms = u64::try_from(kept_for(retention).as_millis()).unwrap();
            let is_old = what.before_ms + kept_ms <= time_ms;
            self.log.world.check(is_old, "the engine is told to forget too early");
        }
        state.batches.drain(..count);
        state.forgotten += count as u64;
        Ok(())
    }
}

pub(super) struct SimFollow {
    engine: SimEngine,
    next: Position,
    starts: u64,
}

impl SimFollow {
    /// What there is, up to a few; none of it is taken before the answer is on its way.
    fn page(&mut self) -> Result<Followed, EngineError> {
        let (log, client) = (Arc::clone(&self.engine.log), self.engine.client);
        let most = log.world.below(8) + 1;
        let is_repeated = log.world.is(log.state().mood.repeats);
        let back = if is_repeated { log.world.between(1..5) } else { 0 };
        let mut state = log.state();
        let from = self.next.0.saturating_sub(back).max(state.forgotten + 1);
        if self.next.0 <= state.forgotten && self.next.0 > 0 {
            return Err(EngineError::Broken("positions are not there any more".into()));
        }
        let newest = state.newest();
        let is_due = newest.0 >= self.next.0;
        let mut batches: Vec<_> = (from..=newest.0)
            .take(most)
            .map(|at| (Position(at), state.at(Position(at)).unwrap().frame.clone()))
            .collect();
        if state.skips == Some(client) && is_due {
            self.next = self.next.next();
            batches.retain(|(position, _)| *position >= self.next);
            state.skips = None;
        }
        if let Some((_, bytes)) = batches.last_mut()
            && state.damages == Some(client)
            && is_due
        {
            let mut damaged = bytes.to_vec();
            *damaged.last_mut().unwrap() ^= 1;
            *bytes = damaged.into();
            state.damages = None;
        }
        if let Some((last, _)) = batches.last() {
            self.next = self.next.max(last.next());
        }
        Ok(Followed { batches, newest })
    }
}

impl Follow for SimFollow {
    async fn next(&mut self) -> Result<Followed, EngineError> {
        let log = Arc::clone(&self.engine.log);
        let mut changed = std::pin::pin!(log.changed.notified());
        changed.as_mut().enable();
        let heartbeat = Instant::now() + HEARTBEAT;
        let mood = log.state().mood.clone();
        if log.world.is(mood.falls_silent) {
            return std::future::pending().await;
        }
        if log.world.is(mood.breaks) {
            let broken = EngineError::Broken("it has lost its place".into());
            return Err(if log.world.is(0.5) { broken } else { EngineError::Away(away()) });
        }
        while log.state().newest() < self.next {
            if timeout_at(heartbeat, changed.as_mut()).await.is_err() {
                break;
            }
            changed.set(log.changed.notified());
            changed.as_mut().enable();
        }
        sleep(Duration::from_millis(log.world.between(0..mood.follow_delay))).await;
        if log.state().starts != self.starts {
            return Err(EngineError::Away(away()));
        }
        if !self.engine.reaches() {
            // Some cuts are noticed, some only by the silence.
            if log.world.is(0.5) {
                return std::future::pending().await;
            }
            return Err(EngineError::Away(away()));
        }
        self.page()
    }
}
