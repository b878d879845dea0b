//! What befalls a cluster, and that it heals.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::{
    World,
    clients::{self, append},
    engine::{Mood, SimEngine, SimLog},
    judge::Told,
    replica::{End, Replica},
};
use crate::{
    Condition,
    disk::memory::{Call, Failure},
    order::Position,
};

/// Everything is mended by then, once the faults have ended.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// Nothing of before is on its way any more.
const QUIET: Duration = Duration::from_secs(20);

pub(super) struct Cluster {
    pub(super) world: Arc<World>,
    pub(super) engine: Arc<SimLog>,
    pub(super) replicas: Vec<Arc<Replica>>,
}

/// One seed from its beginning to long after the last fault.
pub(super) async fn live(world: Arc<World>) {
    let cluster = Cluster::new(&world, world.below(5) + 1);
    for replica in &cluster.replicas {
        replica.start();
    }
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..world.below(4) + 1 {
        clients.spawn(clients::produce(Arc::clone(&world), cluster.replicas.clone()));
    }
    for _ in 0..world.below(3) {
        clients.spawn(clients::poll(Arc::clone(&world), cluster.replicas.clone()));
    }
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..world.below(3) {
        streams.spawn(clients::stream(Arc::clone(&world), cluster.replicas.clone()));
    }
    cluster.storm().await;
    cluster.calm().await;
    while let Some(ended) = clients.join_next().await {
        if let Err(broken) = ended {
            std::panic::resume_unwind(broken.into_panic());
        }
    }
    cluster.heals().await;
    cluster.takes_appends().await;
    sleep(QUIET).await;
    cluster.heals().await;
    if let Some(Err(broken)) = streams.try_join_next() {
        std::panic::resume_unwind(broken.into_panic());
    }
    cluster.settle().await;
}

impl Cluster {
    pub(super) fn new(world: &Arc<World>, count: usize) -> Self {
        let engine = SimLog::new(world, count);
        let replica = |client| Replica::new(world, SimEngine { log: Arc::clone(&engine), client });
        let replicas = (0..count).map(replica).collect();
        Self { world: Arc::clone(world), engine, replicas }
    }

    async fn storm(&self) {
        let world = &self.world;
        let ends_at = Instant::now() + world.millis(5_000..40_000);
        let pause = [300, 1000, 4000][world.below(3)];
        while Instant::now() < ends_at {
            sleep(world.millis(0..pause)).await;
            self.supervise().await;
            self.befall().await;
        }
    }

    /// Restarts what has ended or is poisoned, as an operator would.
    async fn supervise(&self) {
        for replica in &self.replicas {
            if replica.running().is_some_and(|running| running.log.is_poisoned()) {
                replica.end(if self.world.is(0.5) { End::Kill } else { End::PowerCut }).await;
            }
            if replica
                .running()
                .is_some_and(|running| running.log.outrun().now_or_never().is_some())
            {
                // It was away for longer than the engine keeps what is trimmed, and ends.
                replica.end(End::Stop).await;
            }
            if !replica.is_started() && (self.world.is_calm() || self.world.is(0.5)) {
                replica.disk().fail(None);
                replica.start();
            }
        }
    }

    /// One thing happens.
    async fn befall(&self) {
        let (world, engine) = (&self.world, &self.engine);
        let replica = &self.replicas[world.below(self.replicas.len())];
        let number = replica.number;
        match world.below(14) {
            0..3 => {
                let mood = Mood::drawn(world);
                world.tell(|| format!("{mood:?}"));
                engine.change(|state| state.mood = mood);
            }
            3 => engine.change(|state| state.mood = Mood::calm()),
            4 => {
                world.tell(|| format!("replica {number}: is cut off"));
                engine.change(|state| state.cut[number] = true);
                self.later(200..9_000, move |engine| {
                    engine.change(|state| state.cut[number] = false);
                });
            }
            5 => {
                world.tell(|| "engine: is down".into());
                engine.change(|state| state.is_down = true);
                self.later(200..12_000, |engine| engine.change(|state| state.is_down = false));
            }
            6 => {
                world.tell(|| "engine: is full".into());
                engine.change(|state| state.is_full = true);
                self.later(200..5_000, |engine| engine.change(|state| state.is_full = false));
            }
            7 => self.change_leader().await,
            8 | 9 => {
                let ends = [End::Stop, End::Kill, End::PowerCut, End::Wipe];
                replica.end(ends[world.below(4)]).await;
            }
            10 => {
                world.tell(|| format!("replica {number}: its disk is full"));
                let disk = replica.disk();
                let (kind, only) = (io::ErrorKind::StorageFull, Some(Call::Reserve));
                disk.fail(Some(Failure { at: 0, kind, for_ever: true, only }));
                self.later(200..6_000, move |_| disk.fail(None));
            }
            11 if world.is(0.5) => {
                world.tell(|| format!("replica {number}: its disk does not sync"));
                let (kind, only) = (io::ErrorKind::Other, Some(Call::Sync));
                replica.disk().fail(Some(Failure { at: 0, kind, for_ever: true, only }));
            }
            12 => {
                let skew_ms = i64::try_from(world.between(0..7_200_000)).unwrap() - 3_600_000;
                world.tell(|| format!("replica {number}: its clock is ahead by {skew_ms} ms"));
                replica.skew_ms.store(skew_ms, Ordering::Relaxed);
            }
            13 if world.is(0.3) => {
                let leap_ms = world.between(0..1_500_000);
                world.tell(|| format!("all clocks leap by {leap_ms} ms"));
                engine.change(|state| state.leapt_ms += leap_ms);
            }
            _ => {}
        }
    }

    fn later(&self, wait: std::ops::Range<u64>, mend: impl FnOnce(&SimLog) + Send + 'static) {
        let (wait, engine) = (self.world.millis(wait), Arc::clone(&self.engine));
        tokio::spawn(async move {
            sleep(wait).await;
            mend(&engine);
        });
    }

    /// For a moment nobody appends, and who looks may be shown an older end of the log, of an older term even.
    async fn change_leader(&self) {
        let world = &self.world;
        let (behind, is_older) = (world.between(0..5), world.is(0.3));
        world.tell(|| format!("engine: another leader, shown {behind} behind"));
        self.engine.change(|state| {
            let newest = state.newest().0.saturating_sub(behind).max(state.forgotten);
            state.stale = Some(Position(newest));
            state.changes_of_leader += 1;
            state.term -= u64::from(is_older);
        });
        sleep(world.millis(0..3_000)).await;
        self.engine.change(|state| {
            state.stale = None;
            state.term += 1 + u64::from(is_older);
        });
        // Not again before everybody has looked at the new one.
        sleep(Duration::from_secs(1)).await;
    }

    async fn calm(&self) {
        self.world.tell(|| "it is calm".into());
        self.engine.change(|state| {
            (state.mood, state.is_down, state.is_full) = (Mood::calm(), false, false);
            state.cut.fill(false);
        });
        for replica in &self.replicas {
            replica.disk().fail(None);
        }
        self.world.is_calm.store(true, Ordering::Relaxed);
        self.supervise().await;
    }

    /// Waits until every replica is well.
    pub(super) async fn heals(&self) {
        let began = Instant::now();
        loop {
            self.supervise().await;
            let ill: Vec<String> = self.replicas.iter().filter_map(|it| self.ill(it)).collect();
            if ill.is_empty() {
                return;
            }
            assert!(began.elapsed() < HEALED_WITHIN, "not healed: {ill:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn ill(&self, replica: &Replica) -> Option<String> {
        let number = replica.number;
        if let Some(what) = replica.refused() {
            return Some(format!("replica {number} refuses a log that has lost nothing: {what}"));
        }
        let Some(running) = replica.running() else {
            return Some(format!("replica {number} has not joined"));
        };
        let (log, newest) = (&running.log, self.engine.state().newest());
        let (condition, lag) = (log.condition(), log.shared().unwrap().lag());
        let position = log.position();
        let is_well = condition == Condition::Fine && lag == 0 && position == newest;
        (!is_well || log.is_poisoned()).then(|| {
            format!("replica {number} is {condition:?}, lags {lag}, at {position} of {newest}")
        })
    }

    /// Each replica stores something again.
    async fn takes_appends(&self) {
        for replica in &self.replicas {
            let drafts = clients::new_drafts(&self.world);
            let told = append(&self.world, replica, drafts).await;
            assert!(matches!(told, Told::Stored(_)), "replica {}: {told}", replica.number);
        }
    }

    async fn settle(&self) {
        let mut shown = Vec::new();
        for replica in &self.replicas {
            let records = clients::read_all(&self.world, replica).await;
            let trim_point = replica.running().expect("it runs").log.trim_point().get();
            shown.push((records, trim_point));
        }
        let state = self.engine.state();
        let salt = state.identity.expect("there is a log").salt;
        let frames: Vec<_> = state.stored.iter().map(|(frame, _)| frame.clone()).collect();
        // Who does not hear of a leap of all clocks numbers with the old time for as long.
        let retention = self.world.retention.filter(|_| state.leapt_ms == 0);
        self.world.judge().settle(&frames, salt, retention, &shown);
    }
}
