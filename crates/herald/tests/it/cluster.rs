//! Replicas of one log behind a real balancer, restarted one after the other, made more and made fewer, while hundreds of
//! clients are at work: nobody loses, doubles or reorders anything, nobody is away for long, and no replica is stormed.
//!
//! `cargo xtask rolling` installs the engines, the balancers and Node, and runs these tests. A time is judged only by how
//! long the protocol says that it may be.

mod clients;
mod judge;
mod load;
mod plain;
mod presence;
mod shares;

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Duration};

use clients::{Followers, Reader};
use futures_util::future::join_all;
use herald_client::Client;
use herald_rig::{
    Engine,
    balancer::{Backend, Balancer, Kind},
    nats, postgres,
    replica::{Replica, Settings},
};
use judge::Log;
use load::{Polled, Producers, append, drafts, poll_all};
use plain::Plain;
use presence::{Absence, Connected};
use rand::{SeedableRng as _, rngs::StdRng};
use shares::{Looker, open_streams, spread};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::support::{
    drafts::Draft,
    http::{self, identified},
};

/// Whose notifications there are.
const HER_IDS: RangeInclusive<u32> = 8_139_001..=8_139_100;
const HER_ID_COUNT: usize = 100;
/// What is in the log before anybody comes.
const STORED: usize = 1000;
/// How long a replica may take to stop.
const DRAIN: Duration = Duration::from_secs(12);
/// The part of it in which streams end.
const STREAMS_END_WITHIN: f64 = 0.55;
/// How much faster than evenly over that part they may come to another replica: waits are random, and the machine is busy.
const HASTE_MAX: f64 = 2.0;
/// Streams of our own client.
const FOLLOWERS: usize = 450;
/// Streams of npm's `eventsource`.
const PLAIN: usize = 50;
/// Streams that come when all replicas have been restarted.
const NEWCOMERS: usize = 200;
/// How often it is looked whether a change is there.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The offset of the last notification for each receiver.
pub(crate) struct End(HashMap<u32, u64>);

impl End {
    /// Where whoever reads for `receivers` has seen all.
    pub(crate) fn of(&self, receivers: &[u32]) -> u64 {
        receivers.iter().map(|her_id| self.0[her_id]).max().expect("receivers")
    }
}

/// Some read for one, some for many, and all share theirs with others.
fn receivers_of(which: usize) -> Vec<u32> {
    let all: Vec<u32> = HER_IDS.collect();
    let places = (0..1 << (which % 5)).map(|more| (which * 7 + more) % HER_ID_COUNT);
    let mut receivers: Vec<u32> = places.map(|place| all[place]).collect();
    receivers.sort_unstable();
    receivers
}

fn backends(replicas: &[Arc<Replica>]) -> Vec<Backend> {
    replicas.iter().map(|replica| replica.backend()).collect()
}

/// Starts replicas with these numbers and waits until all are ready.
async fn start(settings: &Settings, numbers: RangeInclusive<usize>) -> Vec<Arc<Replica>> {
    let launch = |number| {
        let settings = Settings { name: format!("herald{number}"), ..settings.clone() };
        Arc::new(settings.launch().expect("a start"))
    };
    let replicas: Vec<Arc<Replica>> = numbers.map(launch).collect();
    for replica in &replicas {
        replica.ready().await.expect("ready");
    }
    replicas
}

async fn tail(replica: &Replica) -> f64 {
    let tail = replica.metric("herald_tail_offset").await.expect("metrics");
    tail.expect("a gauge")
}

/// Asks a replica itself until it refuses; its `Retry-After`.
async fn refused(replica: &Replica) -> String {
    let (client, url) =
        (http::client(), format!("{}/notifications?HerIds=1&Offset=0", replica.url()));
    loop {
        let answer = identified(client.get(&url)).send().await.expect("it answers while it drains");
        if answer.status() == 503 {
            return answer.headers()["retry-after"].to_str().expect("a number").to_owned();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// An engine, replicas that come and go, a balancer, and everybody who uses it.
struct World {
    // Dropped in this order: clients do not outlive what they talk to.
    producers: Producers,
    pollers: JoinSet<Polled>,
    followers: Followers,
    plain: Plain,
    connected: Connected,
    end: watch::Sender<Option<Arc<End>>>,
    /// What was stored before anybody came.
    stored: Vec<(Draft, u64)>,
    balancer: Balancer,
    /// Those that run.
    replicas: Vec<Arc<Replica>>,
    settings: Settings,
    _engine: Engine,
}

impl World {
    /// So many replicas that have some log, and everybody at work.
    async fn new(engine: Engine, kind: Kind, replicas: usize, flags: &[&str]) -> Self {
        let drain = format!("{}s", DRAIN.as_secs());
        let settings = Settings::new("", env!("CARGO_BIN_EXE_herald"), &engine.url());
        let settings = settings.flags(&["--drain", &drain]).flags(flags);
        let replicas = start(&settings, 1..=replicas).await;
        let balancer = Balancer::start(kind, &backends(&replicas)).await.expect("a balancer");
        let url = balancer.url();
        let stored = drafts(&mut StdRng::seed_from_u64(u64::MAX), STORED);
        let stored = append(&Client::new(&url, "producer").expect("a client"), stored).await;
        let (connected, end) = (Connected::new(), watch::Sender::new(None));
        let mut followers = Followers::new(&url, &connected, end.subscribe());
        followers.start((0..FOLLOWERS).map(receivers_of));
        let plain = (FOLLOWERS..FOLLOWERS + PLAIN).map(receivers_of).collect();
        let plain = Plain::start(&url, plain, &connected, &end.subscribe());
        connected.ever(FOLLOWERS + PLAIN).await;
        let producers = Producers::start(&url);
        let pollers = poll_all(&url, &end.subscribe());
        Self {
            producers,
            pollers,
            followers,
            plain,
            connected,
            end,
            stored,
            balancer,
            replicas,
            settings,
            _engine: engine,
        }
    }

    /// Restarts a replica and waits until the balancer sends requests to it; how many streams it had.
    async fn restart(&self, replica: &Replica) -> f64 {
        let had = replica.metric("herald_open_streams").await.expect("metrics").expect("a gauge");
        let (status, retry_after) = tokio::join!(replica.terminate(), refused(replica));
        assert_eq!(status.expect("it ends within its drain").code(), Some(0), "{}", replica.name());
        assert_eq!(retry_after, "1", "the others answer now");
        replica.restart().expect("a start");
        replica.ready().await.expect("ready again");
        let polls = || replica.metric("herald_polls_total");
        while polls().await.expect("metrics").is_none_or(|count| count == 0.0) {
            sleep(LOOK_EVERY).await;
        }
        had
    }

    /// Ends everybody's work and judges it; when clients were without a stream.
    async fn judge(self) -> Vec<Absence> {
        let Self { producers, pollers, followers, plain, end, replicas, .. } = self;
        let (mut appended, newest) = producers.end(&self.balancer.url()).await;
        appended.with_ids.extend(self.stored);
        end.send_replace(Some(Arc::clone(&newest)));
        let mut readers: Vec<Reader> = followers.ended().await;
        readers.extend(plain.ended().await);
        let polled = pollers.join_all().await;
        let log = Log::of(&replicas, newest.of(&HER_IDS.collect::<Vec<u32>>())).await;
        log.judge_appended(&appended);
        for reader in &readers {
            log.judge_reader(reader, DRAIN);
        }
        for polled in &polled {
            log.judge_poller(polled);
        }
        let given: usize = readers.iter().map(|reader| reader.given.len()).sum();
        let absences: Vec<_> = readers.into_iter().flat_map(|reader| reader.absences).collect();
        let longest = absences.iter().map(|absence| absence.lasted).max().unwrap_or_default();
        println!("{} in the log, {given} events", log.len());
        println!("{} times without a stream, for {longest:.1?} at most", absences.len());
        println!("{} appends without ids were refused", appended.refused);
        absences
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and needs Node: cargo xtask rolling"]
async fn three_replicas_restarted_one_by_one_behind_haproxy_lose_nothing_and_storm_nobody() {
    let engine = Engine::Nats(nats::Cluster::start(3).await.expect("NATS"));
    let mut world = World::new(engine, Kind::HaProxy, 3, &[]).await;
    let looker = Looker::start(world.replicas.clone());
    let (mut moved, mut largest) = (0.0, 0.0_f64);
    for replica in &world.replicas {
        let had = world.restart(replica).await;
        world.connected.now(FOLLOWERS + PLAIN).await;
        println!("{}: restarted with {had} streams", replica.name());
        moved += had;
        largest = largest.max(had);
    }
    let share = largest / (DRAIN.as_secs_f64() * STREAMS_END_WITHIN);
    looker.assert_none_was_stormed(HASTE_MAX * share).await;
    // The one restarted last has given its streams away and got none. It is the one that newcomers are sent to.
    println!("after the last restart: {:?}", open_streams(&world.replicas).await);
    let newcomers = FOLLOWERS + PLAIN..FOLLOWERS + PLAIN + NEWCOMERS;
    world.followers.start(newcomers.clone().map(receivers_of));
    world.connected.now(newcomers.end).await;
    println!("with newcomers: {:?}", spread(&world.replicas, newcomers.end).await);
    let absences = world.judge().await;
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let count = absences.len() as f64;
    assert!(count >= moved, "{moved} streams had to move, {count} did");
    assert!(absences.iter().all(|absence| absence.tries == 1), "each is back at its first try");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute, and needs Node: cargo xtask rolling"]
async fn one_replica_made_five_and_then_two_behind_nginx_loses_nothing_and_shares_evenly() {
    let engine = Engine::Postgres(postgres::Cluster::start().await.expect("PostgreSQL"));
    // As streams end by themselves, they come to replicas that are new.
    let mut world = World::new(engine, Kind::Nginx, 1, &["--stream-max-age", "30s"]).await;
    let known = tail(&world.replicas[0]).await;
    let fresh = start(&world.settings, 2..=5).await;
    for replica in &fresh {
        let tail = tail(replica).await;
        assert!(tail >= known, "{} is ready at {tail}, behind {known}", replica.name());
    }
    world.replicas.extend(fresh);
    world.balancer.set(&backends(&world.replicas)).await.expect("a change");
    let streams = FOLLOWERS + PLAIN;
    println!("on five: {:?}", spread(&world.replicas, streams).await);

    let retired = world.replicas.split_off(2);
    world.balancer.set(&backends(&world.replicas)).await.expect("a change");
    for status in join_all(retired.iter().map(|replica| replica.terminate())).await {
        assert_eq!(status.expect("it ends within its drain").code(), Some(0));
    }
    println!("on two: {:?}", spread(&world.replicas, streams).await);
    assert!(world.judge().await.len() >= streams, "each stream has moved at least once");
}
