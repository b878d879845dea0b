//! An engine in memory for tests: it can be away, lose answers, and forget what it has acknowledged.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Position,
    engine::{
        AppendFailure, Engine, EngineError, Entry, Follow, Followed, Forgettable, Identity, Look,
        Source,
    },
};

const HEARTBEAT: Duration = Duration::from_secs(1);

/// What all who use the same engine share.
#[derive(Default)]
pub(crate) struct MemoryLog {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) identity: Option<Identity>,
    /// The position before the first batch.
    pub(crate) forgotten: u64,
    pub(crate) batches: Vec<Entry>,
    pub(crate) term: u64,
    /// Its clock, which stands still.
    pub(crate) time_ms: u64,
    /// When somebody begins to follow, so many of the oldest batches go first.
    pub(crate) forgets_next: usize,
}

/// One client's way to it.
#[derive(Clone, Default)]
pub(crate) struct MemoryEngine {
    pub(crate) log: Arc<MemoryLog>,
    /// Nothing comes through.
    pub(crate) is_away: Arc<AtomicBool>,
    /// Appends are stored, and their answers are lost.
    pub(crate) loses_answers: Arc<AtomicBool>,
}

impl MemoryLog {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes it behind everybody's back.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }
}

impl State {
    pub(crate) fn newest(&self) -> Position {
        Position(self.forgotten + self.batches.len() as u64)
    }

    /// The oldest batches go.
    pub(crate) fn forget(&mut self, count: usize) {
        self.batches.drain(..count);
        self.forgotten += count as u64;
    }

    fn at(&self, position: Position) -> Option<&Entry> {
        let index = position.0.checked_sub(self.forgotten + 1)?;
        self.batches.get(usize::try_from(index).unwrap())
    }
}

fn away() -> Source {
    "the test has cut the line".into()
}

impl MemoryEngine {
    /// Another client of the same log.
    pub(crate) fn another(&self) -> Self {
        Self { log: Arc::clone(&self.log), ..Self::default() }
    }

    fn reach(&self) -> Result<(), EngineError> {
        if self.is_away.load(Ordering::Relaxed) { Err(EngineError::Away(away())) } else { Ok(()) }
    }
}

impl Engine for MemoryEngine {
    type Follow = MemoryFollow;

    fn address(&self) -> String {
        "memory".into()
    }

    async fn look(&self) -> Result<Option<Look>, EngineError> {
        self.reach()?;
        let state = self.log.state();
        Ok(state.identity.map(|identity| Look {
            identity,
            first: Position(state.forgotten + 1),
            newest: state.newest(),
            time_ms: state.time_ms,
            term: state.term,
        }))
    }

    async fn create(&self, identity: &Identity) -> Result<(), EngineError> {
        self.reach()?;
        self.log.state().identity.get_or_insert(*identity);
        Ok(())
    }

    async fn seeded(&self, identity: &Identity) -> Result<(), EngineError> {
        self.reach()?;
        self.log.state().identity = Some(Identity { is_seeding: false, ..*identity });
        Ok(())
    }

    async fn append(&self, entry: &Entry) -> Result<(), AppendFailure> {
        tokio::task::yield_now().await;
        if self.is_away.load(Ordering::Relaxed) {
            sleep(Duration::from_secs(1)).await;
            return Err(AppendFailure::Unknown(away()));
        }
        {
            let mut state = self.log.state();
            let before = state.at(entry.after.position).map_or(0, |before| before.batch_id);
            if (state.newest(), before) != (entry.after.position, entry.after.batch_id) {
                return Err(AppendFailure::Conflict);
            }
            state.batches.push(entry.clone());
        }
        self.log.changed.notify_waiters();
        tokio::task::yield_now().await;
        if self.loses_answers.load(Ordering::Relaxed) {
            return Err(AppendFailure::Unknown(away()));
        }
        Ok(())
    }

    async fn follow(&self, from: Position) -> Result<MemoryFollow, EngineError> {
        self.reach()?;
        {
            let mut state = self.log.state();
            let count = std::mem::take(&mut state.forgets_next);
            state.forget(count);
        }
        Ok(MemoryFollow { engine: self.clone(), next: from })
    }

    async fn read(&self, position: Position) -> Result<Option<Bytes>, EngineError> {
        self.reach()?;
        Ok(self.log.state().at(position).map(|entry| entry.frame.clone()))
    }

    async fn forget(&self, what: Forgettable) -> Result<(), EngineError> {
        self.reach()?;
        let mut state = self.log.state();
        let may_go =
            |entry: &&Entry| entry.tail <= what.trim_point && entry.time_ms < what.before_ms;
        let held = state.batches.len().saturating_sub(1);
        let count = state.batches[..held].iter().take_while(may_go).count();
        state.forget(count);
        Ok(())
    }
}

pub(crate) struct MemoryFollow {
    engine: MemoryEngine,
    next: Position,
}

impl Follow for MemoryFollow {
    async fn next(&mut self) -> Result<Followed, EngineError> {
        const BATCHES_MAX: usize = 100;
        let log = Arc::clone(&self.engine.log);
        let mut changed = std::pin::pin!(log.changed.notified());
        changed.as_mut().enable();
        self.engine.reach()?;
        let page = || {
            let state = log.state();
            let from = self.next.0..=state.newest().0;
            let batches = from.map_while(|at| {
                state.at(Position(at)).map(|entry| (Position(at), entry.frame.clone()))
            });
            let batches: Vec<_> = batches.take(BATCHES_MAX).collect();
            Followed { batches, newest: state.newest() }
        };
        if log.state().forgotten >= self.next.0.max(1) {
            return Err(EngineError::Broken("it is not there any more".into()));
        }
        let mut followed = page();
        if followed.batches.is_empty() {
            let _ = timeout(HEARTBEAT, changed).await;
            self.engine.reach()?;
            followed = page();
        }
        if let Some((last, _)) = followed.batches.last() {
            self.next = last.next();
        }
        Ok(followed)
    }
}
