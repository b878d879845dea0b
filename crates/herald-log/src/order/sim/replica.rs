//! One replica: a real log on a disk in memory, started, killed and begun afresh.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Notify, task::JoinHandle, time::sleep};

use super::{World, engine::SimEngine};
use crate::{
    Condition, JoinError, Log, LogSettings, Progress, disk::memory::MemoryDisk,
    order::join::Joining, view::ViewSettings,
};

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In good order.
    Stop,
    /// The process is killed.
    Kill,
    /// With all that was not synced.
    PowerCut,
    /// With its disk.
    Wipe,
}

pub(super) struct Replica {
    pub(super) number: usize,
    pub(super) engine: SimEngine,
    world: Arc<World>,
    slot: Mutex<Slot>,
    life: Arc<Life>,
    /// What its clock is ahead of the true time; behind it where this is negative.
    pub(super) skew_ms: Arc<AtomicI64>,
}

/// Counts a replica's lives; whoever talks to it learns by that that it is gone. No `watch`, whose waiters draw lots.
#[derive(Default)]
struct Life {
    number: AtomicU64,
    ended: Notify,
}

struct Slot {
    disk: MemoryDisk,
    view_settings: ViewSettings,
    log: Option<Log>,
    task: Option<JoinHandle<()>>,
    /// A new one whenever the disk may have lost what was shown.
    lineage: u64,
    /// Why it does not join.
    refused: Option<String>,
}

/// A running replica, to ask.
pub(super) struct Running {
    pub(super) log: Log,
    pub(super) lineage: u64,
    life: (Arc<Life>, u64),
}

impl Running {
    /// Asks, unless the replica ends meanwhile.
    pub(super) async fn ask<T>(&self, asked: impl Future<Output = T>) -> Option<T> {
        let (life, number) = (&self.life.0, self.life.1);
        let mut ended = std::pin::pin!(life.ended.notified());
        ended.as_mut().enable();
        if life.number.load(Ordering::Relaxed) != number {
            return None;
        }
        tokio::select! {
            biased;
            () = ended => None,
            answer = asked => Some(answer),
        }
    }
}

impl Life {
    fn ends(&self) {
        self.number.fetch_add(1, Ordering::Relaxed);
        self.ended.notify_waiters();
    }
}

impl Replica {
    pub(super) fn new(world: &Arc<World>, engine: SimEngine) -> Arc<Self> {
        let small =
            ViewSettings { segment_bytes: 4000, reserve_step_bytes: 512, recent_bytes: 3000 };
        let view_settings = if world.is(0.5) { small } else { ViewSettings::default() };
        let slot = Slot {
            disk: MemoryDisk::default(),
            view_settings,
            log: None,
            task: None,
            lineage: 0,
            refused: None,
        };
        Arc::new(Self {
            number: engine.client,
            engine,
            world: Arc::clone(world),
            slot: Mutex::new(slot),
            life: Arc::default(),
            skew_ms: Arc::default(),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disk(&self) -> MemoryDisk {
        self.slot().disk.clone()
    }

    pub(super) fn running(&self) -> Option<Running> {
        let (slot, number) = (self.slot(), self.life.number.load(Ordering::Relaxed));
        let life = (Arc::clone(&self.life), number);
        Some(Running { log: slot.log.clone()?, lineage: slot.lineage, life })
    }

    pub(super) fn is_started(&self) -> bool {
        self.slot().task.is_some()
    }

    /// What it says that is wrong with the engine's log.
    pub(super) fn refused(&self) -> Option<String> {
        let slot = self.slot();
        match slot.log.as_ref().map(Log::condition) {
            Some(Condition::Refused(what)) => Some(what.to_string()),
            _ => slot.refused.clone(),
        }
    }

    /// Starts it: it tries to join as an operator's supervisor would, until it has, or is told that it must not.
    pub(super) fn start(self: &Arc<Self>) {
        self.world.tell(|| format!("replica {}: starts", self.number));
        let replica = Arc::clone(self);
        let task = tokio::spawn(async move { replica.join().await });
        let mut slot = self.slot();
        slot.refused = None;
        assert!(slot.task.replace(task).is_none(), "it runs once");
    }

    async fn join(self: Arc<Self>) {
        loop {
            let (disk, view_settings) = {
                let slot = self.slot();
                (slot.disk.clone(), slot.view_settings)
            };
            let (skew_ms, engine) = (Arc::clone(&self.skew_ms), Arc::clone(&self.engine.log));
            let own_clock =
                move || engine.time_ms().saturating_add_signed(skew_ms.load(Ordering::Relaxed));
            let joining = Joining {
                disk: Arc::new(disk),
                engine: Arc::new(self.engine.clone()),
                view_settings,
                settings: LogSettings { retention: self.world.retention },
                own_clock: Arc::new(own_clock),
                progress: Progress::default(),
            };
            let leaders = || {
                let state = self.engine.log.state();
                (state.stale.is_none(), state.changes_of_leader)
            };
            let leader = leaders();
            let answered = self.world.judge().answered_up_to;
            match joining.join().await {
                Ok(None) => self.world.tell(|| format!("replica {}: is outrun", self.number)),
                Ok(Some(log)) => {
                    let tail = log.tail().get();
                    self.world.tell(|| format!("replica {}: ready at {tail}", self.number));
                    // What was shown between two leaders may have been less.
                    let is_plain = leader.0 && leader == leaders();
                    let has_all = !is_plain || tail >= answered;
                    self.world.check(has_all, "a replica is ready without what was answered");
                    let mut slot = self.slot();
                    (slot.log, slot.refused) = (Some(log), None);
                    return;
                }
                Err(JoinError::History(what)) => {
                    self.world.tell(|| format!("replica {}: does not join: {what}", self.number));
                    self.slot().refused = Some(what);
                    // Leaders that came one after another may have looked like it: a supervisor starts it again.
                    sleep(Duration::from_secs(2)).await;
                }
                Err(error) => {
                    self.world.tell(|| format!("replica {}: cannot start: {error}", self.number));
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Ends it.
    pub(super) async fn end(&self, end: End) {
        self.world.tell(|| format!("replica {}: {end:?}", self.number));
        if end != End::Stop {
            self.life.ends();
        }
        let (log, task) = {
            let mut slot = self.slot();
            (slot.log.take(), slot.task.take())
        };
        if let Some(task) = task {
            task.abort();
        }
        let Some(log) = log else {
            // Whatever it had begun to do to its disk goes on with the old one.
            return self.lose(if end == End::Stop { End::Kill } else { end });
        };
        if end == End::Stop {
            log.close().await;
            self.life.ends();
            return;
        }
        for task in super::tasks_of(&log) {
            task.abort();
        }
        self.lose(end);
    }

    /// What a crash does to the disk. Work on it that is still under way goes on with the old one.
    fn lose(&self, end: End) {
        let mut slot = self.slot();
        match end {
            End::Stop => return,
            End::Kill => slot.disk = slot.disk.copy(),
            End::PowerCut => {
                let mut random = StdRng::seed_from_u64(self.world.with(|random| random.random()));
                slot.disk = slot.disk.after_power_cut(&mut random);
            }
            End::Wipe => slot.disk = MemoryDisk::default(),
        }
        slot.lineage += u64::from(end != End::Kill);
    }
}
