//! What clients do meanwhile: producers that repeat themselves, on other replicas too, pollers, streams, and somebody who
//! asks whether all are ready. All of it is written down.

mod client;
mod http;
mod producer;
mod reader;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use self::http::Http;
use crate::history::{Answered, Call, Copy, Recorder};

/// Whom notifications are for.
const RECEIVERS: std::ops::RangeInclusive<u32> = 8_139_701..=8_139_712;
/// Producers that wander from replica to replica, beside one for each: whoever waits for one replica does not keep the others
/// from being asked.
const PRODUCERS: usize = 4;
const POLLERS: usize = 3;
/// Streams that wander from replica to replica.
const STREAMS: usize = 4;
/// How often everybody's health is asked.
const PROBE_EVERY: Duration = Duration::from_millis(400);
/// How long readers may take to come to the end when all is well: a client may be waiting before its next try.
const READ_ALL_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So many equal looks in a row show that nothing is under way any more.
const QUIET_LOOKS: u32 = 10;

/// How far the load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// Producers send again what has no answer yet, and end.
    Settling,
    /// Readers end.
    Over,
}

/// What every client has.
#[derive(Clone, Debug)]
struct World {
    http: Http,
    recorder: Recorder,
    /// Where each replica's API is reached.
    urls: Vec<String>,
    phase: watch::Receiver<Phase>,
    /// How far each stream has come. A plain mutex: held to copy a number.
    progress: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl World {
    fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }

    async fn until(&self, phase: Phase) {
        // The sender lives as long as the load.
        self.phase.clone().wait_for(|now| *now >= phase).await.ok();
    }

    fn has_come_to(&self, client: &str, until: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let known = progress.entry(client.to_owned()).or_default();
        *known = until.max(*known);
    }

    /// Who has not come so far.
    fn behind(&self, tail: u64) -> BTreeMap<String, u64> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = progress.iter().filter(|(_, until)| **until < tail);
        behind.map(|(name, until)| (name.clone(), *until)).collect()
    }

    fn any(&self, rng: &mut StdRng) -> usize {
        rng.random_range(0..self.urls.len())
    }
}

/// The load on a cluster.
pub(crate) struct Load {
    world: World,
    phase: watch::Sender<Phase>,
    producers: JoinSet<()>,
    readers: JoinSet<()>,
}

impl Load {
    /// Begins. `urls` lead to the replicas' APIs, `ops` to their health.
    ///
    /// # Errors
    /// When no client can be made.
    pub(crate) fn begin(
        recorder: &Recorder,
        urls: &[String],
        ops: &[String],
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (phase, phases) = watch::channel(Phase::Running);
        let world = World {
            http: Http::new()?,
            recorder: recorder.clone(),
            urls: urls.to_vec(),
            phase: phases,
            progress: Arc::default(),
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut producers, mut readers) = (JoinSet::new(), JoinSet::new());
        for number in 0..PRODUCERS {
            let name = format!("producer-{number}");
            producers.spawn(producer::run(world.clone(), name, None, rng.random()));
        }
        for replica in 0..urls.len() {
            let name = format!("producer-of-{replica}");
            producers.spawn(producer::run(world.clone(), name, Some(replica), rng.random()));
        }
        for number in 0..POLLERS {
            readers.spawn(reader::poll(world.clone(), format!("poller-{number}"), rng.random()));
        }
        for number in 0..STREAMS {
            readers.spawn(reader::stream(world.clone(), format!("stream-{number}"), rng.random()));
        }
        for (replica, ops) in ops.iter().enumerate() {
            readers.spawn(client::run(world.clone(), replica));
            readers.spawn(probe(world.clone(), replica, ops.clone()));
        }
        Ok(Self { world, phase, producers, readers })
    }

    /// Ends the load when all is well again: whatever has no answer is sent again, readers read to the end, and everything
    /// that each replica holds is read.
    ///
    /// # Errors
    /// When that does not come about.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.phase.send_replace(Phase::Settling);
        while let Some(ended) = self.producers.join_next().await {
            ended.context("a producer failed")?;
        }
        let quiet = self.quiet().await;
        let behind = match &quiet {
            Ok(tail) => self.readers_come_to(*tail).await,
            Err(_) => BTreeMap::new(),
        };
        self.phase.send_replace(Phase::Over);
        while let Some(ended) = self.readers.join_next().await {
            ended.context("a reader failed")?;
        }
        // Those that can be read are judged, whatever became of the others.
        let mut unread = Ok(());
        for replica in 0..self.world.urls.len() {
            match self.copy(replica).await {
                Ok(copy) => self.world.recorder.copy(copy),
                Err(error) => unread = Err(error),
            }
        }
        let tail = quiet?;
        ensure!(behind.is_empty(), "readers have not come to {tail} by themselves: {behind:?}");
        unread
    }

    /// Waits until all replicas have the same tail, for a while.
    async fn quiet(&self) -> anyhow::Result<u64> {
        let (began, mut last, mut equal) = (Instant::now(), Vec::new(), 0);
        loop {
            let mut tails = Vec::new();
            for replica in 0..self.world.urls.len() {
                let url = &self.world.urls[replica];
                let answer = self.world.http.poll(url, &[*RECEIVERS.start()], 0, 1).await;
                let Answered::Told(page) = answer else { break };
                tails.push(page.head.tail);
            }
            let is_even =
                tails.len() == self.world.urls.len() && tails.iter().all(|tail| *tail == tails[0]);
            equal = if is_even && tails == last { equal + 1 } else { 0 };
            if equal == QUIET_LOOKS {
                return Ok(tails[0]);
            }
            ensure!(
                began.elapsed() < READ_ALL_WITHIN,
                "replicas do not agree on a tail: {tails:?}"
            );
            last = tails;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Who has not come so far in time.
    async fn readers_come_to(&self, tail: u64) -> BTreeMap<String, u64> {
        let began = Instant::now();
        loop {
            let behind = self.world.behind(tail);
            if behind.is_empty() || began.elapsed() > READ_ALL_WITHIN {
                return behind;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn copy(&self, replica: usize) -> anyhow::Result<Copy> {
        let receivers: Vec<u32> = RECEIVERS.collect();
        let (mut after, mut items) = (0, Vec::new());
        loop {
            let url = &self.world.urls[replica];
            let answer = self.world.http.poll(url, &receivers, after, 1000).await;
            let Answered::Told(page) = answer else {
                anyhow::bail!("replica {replica} is not read in the end: {answer:?}");
            };
            items.extend(page.items);
            if page.until >= page.head.tail {
                return Ok(Copy { copy_of: replica, head: page.head, items });
            }
            ensure!(page.until > after, "a page of replica {replica} does not lead on");
            after = page.until;
        }
    }
}

/// Asks a replica whether it is ready.
async fn probe(world: World, replica: usize, ops: String) {
    while !world.is(Phase::Over) {
        let began = world.recorder.now();
        let ready = world.http.ready(&ops).await;
        world.recorder.record("prober", replica, began, Call::Ready(ready));
        sleep(PROBE_EVERY).await;
    }
}
