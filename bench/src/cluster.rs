//! What the rows of a cluster share: a real engine, replicas on it, and the engine's own client as their limit.

mod nats;
mod postgres;

use std::{
    fs,
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use herald_rig::{
    Engine,
    replica::{Replica, Settings},
};
use tokio::runtime::Runtime;

use crate::server::{Places, seconds_in};

/// How much of Herald's batches is kept to be appended again.
const FRAMES_BYTES_MAX: usize = 64 << 20;
/// How long an engine may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// What every record has once, in a batch as it is stored.
const RECORD_MARK: &[u8] = b"\"relatedMessageId\":";

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// NATS JetStream: three nodes, each write synced.
    Nats,
    /// PostgreSQL: a primary and two standbys, one of which confirms each commit.
    Postgres,
}

impl Kind {
    /// What follows the number of a row.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Nats => "n",
            Self::Postgres => "p",
        }
    }
}

/// An engine and replicas on it. They are gone when it is dropped.
pub(crate) struct Cluster {
    // Before the engine: they end first.
    pub(crate) replicas: Vec<Replica>,
    pub(crate) engine: Engine,
    places: Places,
    runtime: Runtime,
}

impl Cluster {
    /// Starts an engine of so many nodes, and replicas with empty views.
    pub(crate) fn start(
        places: &Places,
        kind: Kind,
        nodes: usize,
        replicas: usize,
    ) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let engine = runtime.block_on(async {
            Ok::<_, anyhow::Error>(match kind {
                Kind::Nats => Engine::Nats(herald_rig::nats::Cluster::start(nodes).await?),
                Kind::Postgres => Engine::Postgres(
                    herald_rig::postgres::Settings { nodes, ..Default::default() }.start().await?,
                ),
            })
        })?;
        let places = places.clone();
        let mut cluster = Self { replicas: Vec::new(), engine, places, runtime };
        for _ in 0..replicas {
            let replica = cluster.replica()?;
            cluster.replicas.push(replica);
        }
        Ok(cluster)
    }

    /// One more replica, ready, with all that is stored.
    pub(crate) fn replica(&self) -> anyhow::Result<Replica> {
        let name = format!("herald{}", self.replicas.len() + 1);
        let settings = Settings::new(&name, &self.places.herald, &self.engine.url());
        self.wait(settings.flags(&["--log-level", "warn"]).start())
    }

    /// Waits for what is not.
    pub(crate) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// The value of a metric of a replica; 0 before it has one.
    pub(crate) fn metric(&self, replica: &Replica, name: &str) -> anyhow::Result<f64> {
        Ok(self.wait(replica.metric(name))?.unwrap_or_default())
    }

    /// How many batches a replica has stored, without those that another's came before.
    pub(crate) fn batches(&self, replica: &Replica) -> anyhow::Result<f64> {
        let tried = self.metric(replica, "herald_log_batch_records_count")?;
        Ok(tried - self.metric(replica, "herald_log_conflicts_total")?)
    }

    /// The CPU time of all nodes of the engine, in seconds.
    pub(crate) fn engine_cpu(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.engine.ids().into_iter().flatten())
    }

    /// The CPU time of these replicas, in seconds.
    pub(crate) fn cpu<'a>(
        &self,
        replicas: impl IntoIterator<Item = &'a Replica>,
    ) -> anyhow::Result<f64> {
        cpu_seconds(replicas.into_iter().filter_map(Replica::id))
    }

    /// Waits until all replicas show the same newest offset.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let mut tails = Vec::new();
            for replica in &self.replicas {
                tails.push(self.metric(replica, "herald_tail_offset")?);
            }
            if tails.iter().all(|tail| *tail == tails[0]) {
                return Ok(());
            }
            ensure!(began.elapsed() < ANSWER_MAX, "the replicas do not meet: {tails:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The engine's own client, with an empty log of its own beside Herald's.
    pub(crate) fn bare(&self) -> anyhow::Result<Bare> {
        self.wait(async {
            Ok(match &self.engine {
                Engine::Nats(cluster) => {
                    Bare::Nats(nats::Client::open(&cluster.url(), cluster.len().min(3)).await?)
                }
                Engine::Postgres(cluster) => {
                    Bare::Postgres(postgres::Client::open(&cluster.url()).await?)
                }
            })
        })
    }
}

/// The CPU time of processes and all that they have started, in seconds.
fn cpu_seconds(ids: impl Iterator<Item = u32>) -> anyhow::Result<f64> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that ends meanwhile is as good as one that never was.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields = stat.rsplit_once(") ").context("no fields")?.1;
        let parent = fields.split(' ').nth(1).and_then(|parent| parent.parse::<u32>().ok());
        parents.push((id, parent.context("no parent")?, seconds_in(&stat, 11)?));
    }
    let (mut wanted, mut total) = (ids.collect::<Vec<_>>(), 0.0);
    while let Some(id) = wanted.pop() {
        total += parents.iter().filter(|(own, ..)| *own == id).map(|(.., cpu)| cpu).sum::<f64>();
        wanted.extend(parents.iter().filter(|(_, parent, _)| *parent == id).map(|(own, ..)| *own));
    }
    Ok(total)
}

/// How much of the machine's time since it started went by, and how much of that its cores had something to do.
pub(crate) struct CoreTime {
    all: u64,
    busy: u64,
}

impl CoreTime {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("no cores")?;
        let times: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("a time of the cores")?;
        // user, nice, system, idle, iowait, and what goes to interrupts and other machines.
        let idle = times.get(3..5).context("too few times")?.iter().sum::<u64>();
        let all = times.iter().sum::<u64>();
        Ok(Self { all, busy: all - idle })
    }

    /// The share of the time since `before` in which they were busy.
    pub(crate) fn busy_since(&self, before: &Self) -> f64 {
        (self.busy - before.busy) as f64 / (self.all - before.all).max(1) as f64
    }
}

/// The engine driven by its own client, with the condition that Herald appends on.
pub(crate) enum Bare {
    Nats(nats::Client),
    Postgres(postgres::Client),
}

/// Somebody who only listens.
pub(crate) enum Listener {
    Nats(nats::Listener),
    Postgres(postgres::Listener),
}

/// What appending reached.
pub(crate) struct Pumped {
    pub(crate) batches: u64,
    pub(crate) took: Duration,
}

impl Pumped {
    pub(crate) fn rate(&self) -> f64 {
        self.batches as f64 / self.took.as_secs_f64()
    }
}

macro_rules! either {
    ($bare:expr, $client:ident => $call:expr) => {
        match $bare {
            Bare::Nats($client) => $call,
            Bare::Postgres($client) => $call,
        }
    };
}

impl Bare {
    /// The newest position of Herald's log.
    pub(crate) async fn newest(&self) -> anyhow::Result<u64> {
        either!(self, client => client.newest().await)
    }

    /// Herald's batches at `(after, until]`, the newest of them if they are too many to keep.
    pub(crate) async fn batches(&self, after: u64, until: u64) -> anyhow::Result<Batches> {
        let mut frames = either!(self, client => client.frames(after, until).await)?;
        let mut bytes = 0;
        let kept = frames.iter().rev().take_while(|frame| {
            bytes += frame.len();
            bytes <= FRAMES_BYTES_MAX
        });
        let kept = kept.count().max(1);
        let frames = frames.split_off(frames.len().saturating_sub(kept));
        ensure!(!frames.is_empty(), "no batches between positions {after} and {until}");
        let records =
            frames.iter().map(|frame| memchr::memmem::find_iter(frame, RECORD_MARK).count()).sum();
        Ok(Batches { frames, records })
    }

    /// Appends batches with `depth` of them under way, each on the condition that the one before it is there.
    pub(crate) async fn pump(
        &mut self,
        batches: &Batches,
        depth: usize,
        warm_up: Duration,
        length: Duration,
    ) -> anyhow::Result<Pumped> {
        let began = Instant::now();
        let (from, until) = (began + warm_up, began + warm_up + length);
        let (mut under_way, mut count, mut counted_from) = (0, 0, None);
        let mut frames = batches.frames.iter().cycle();
        loop {
            let now = Instant::now();
            if now >= until {
                break;
            }
            if now >= from && counted_from.is_none() {
                counted_from = Some(now);
            }
            while under_way < depth {
                let frame = frames.next().context("there are batches")?.clone();
                either!(self, client => client.send(frame).await)?;
                under_way += 1;
            }
            self.stored().await?;
            under_way -= 1;
            count += u64::from(counted_from.is_some());
        }
        let took = counted_from.unwrap_or(from).elapsed();
        for _ in 0..under_way {
            self.stored().await?;
        }
        Ok(Pumped { batches: count, took })
    }

    /// Waits until the oldest batch under way is safe.
    async fn stored(&mut self) -> anyhow::Result<()> {
        let stored = async { either!(self, client => client.stored().await) };
        tokio::time::timeout(ANSWER_MAX, stored).await.context("the engine does not answer")?
    }

    /// Somebody who listens to what is appended from now on.
    pub(crate) async fn listener(&mut self, url: &str) -> anyhow::Result<Listener> {
        Ok(match self {
            Self::Nats(client) => Listener::Nats(client.listener(url).await?),
            Self::Postgres(client) => Listener::Postgres(client.listener(url).await?),
        })
    }

    /// From sending a batch until the listener has it.
    pub(crate) async fn echo(
        &mut self,
        listener: &mut Listener,
        frame: &Bytes,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        either!(self, client => client.send(frame.clone()).await)?;
        // The answer has to be read, for PostgreSQL even to be asked for.
        let heard = async {
            let heard = match listener {
                Listener::Nats(listener) => listener.next().await,
                Listener::Postgres(listener) => listener.next().await,
            };
            heard.map(|heard| (heard, began.elapsed()))
        };
        let ((heard, took), ()) =
            tokio::time::timeout(ANSWER_MAX, async { tokio::try_join!(heard, self.stored()) })
                .await
                .context("a batch was not heard of")??;
        ensure!(heard == *frame, "another batch was heard");
        Ok(took)
    }
}

/// Batches as Herald made them.
pub(crate) struct Batches {
    pub(crate) frames: Vec<Bytes>,
    records: usize,
}

impl Batches {
    /// Records of one, on average.
    pub(crate) fn records(&self) -> f64 {
        self.records as f64 / self.frames.len() as f64
    }

    /// Bytes of one, on average.
    pub(crate) fn bytes(&self) -> f64 {
        let bytes: usize = self.frames.iter().map(Bytes::len).sum();
        bytes as f64 / self.frames.len() as f64
    }
}
