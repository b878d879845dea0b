//! All of it at once, by a schedule from one seed.
//!
//! A failure prints its seed; `HERALD_CHAOS_SEED` repeats the schedule (not the scheduling of threads), and
//! `HERALD_CHAOS_ROUNDS` makes it longer.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use herald_client::{Client, Event, Notification, Status};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{
    Log,
    answers::gateway,
    append, client, drafts, everything, has_come_to,
    restarts::{FLAGS, HER_IDS, copy, receivers_of},
};
use crate::support::{
    proxy::{End, Fault, Proxy, STREAM, Size},
    server::Server,
    setting,
};

const CLIENTS: usize = 8;
/// Without `HERALD_CHAOS_ROUNDS`.
const ROUNDS: u64 = 8;
/// In each round, with something happening in the midst of them.
const BATCHES: u64 = 10;
const BATCH: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_in_whatever_order_every_client_is_handed_the_log() {
    let seed = setting("HERALD_CHAOS_SEED").unwrap_or_else(rand::random);
    let rounds = setting("HERALD_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    println!("chaos: {rounds} rounds, again with HERALD_CHAOS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed).await;
    let (end, end_known) = watch::channel(None);
    let mut clients = JoinSet::new();
    for which in 0..CLIENTS {
        let (client, end) = (client(&world.readers.url, &which.to_string()), end_known.clone());
        let rng = StdRng::seed_from_u64(rng.random());
        clients.spawn(async move {
            (which, follow_restlessly(&client, &receivers_of(which), end, rng).await)
        });
    }
    let mut newest = 0;
    for round in 0..rounds {
        let producer = client(&world.writers.url, &CLIENTS.to_string());
        let (half, half_done) = tokio::sync::oneshot::channel();
        let appending = tokio::spawn(async move {
            let batch =
                |number| drafts(seed.wrapping_add(round * BATCHES + number), BATCH, &HER_IDS);
            for number in 0..BATCHES / 2 {
                append(&producer, &batch(number)).await;
            }
            half.send(()).unwrap();
            let mut newest = 0;
            for number in BATCHES / 2..BATCHES {
                newest = append(&producer, &batch(number)).await;
            }
            newest
        });
        half_done.await.unwrap();
        world.turn(&mut rng).await;
        newest = appending.await.unwrap();
    }
    world.calm_down();
    end.send_replace(Some(newest));
    let handed = clients.join_all().await;
    for (which, handed) in handed {
        let log = Log::of(&world.server, &receivers_of(which)).await;
        log.judge(&format!("client {which} with seed {seed}"), &handed);
    }
    let stored = Log::of(&world.server, &HER_IDS).await.len() as u64;
    assert_eq!(stored, rounds * BATCHES * BATCH as u64, "each draft is stored once");
}

/// A client that drops its calls, and starts again from its cursor when it has failed a few times: its waits stay short,
/// and a restart is one more thing that may happen.
async fn follow_restlessly(
    client: &Client,
    her_ids: &[u32],
    end: watch::Receiver<Option<u64>>,
    mut rng: StdRng,
) -> Vec<Notification> {
    let mut handed = Vec::new();
    let mut notifications = everything(client, her_ids);
    let mut failures_left = 2;
    while !has_come_to(notifications.cursor(), *end.borrow()) {
        let patience = Duration::from_micros(rng.random_range(0..200_000));
        match timeout(patience, notifications.next()).await {
            Ok(Ok(Event::Notification(notification))) => {
                notifications.ack(&notification);
                handed.push(notification);
            }
            Ok(Ok(Event::Status(Status::Waiting { .. }))) if failures_left == 0 => {
                notifications = client.notifications(notifications.cursor().clone());
                failures_left = rng.random_range(0..5);
            }
            Ok(Ok(Event::Status(Status::Waiting { .. }))) => failures_left -= 1,
            Ok(event) => drop(event.expect("nothing ends it for good")),
            Err(_) => {}
        }
    }
    handed
}

/// A server, a replica that stands where the server stood a while ago, and the ways to them.
struct World {
    server: Server,
    replica: Server,
    directory: tempfile::TempDir,
    /// How many replicas there have been: each has a directory of its own.
    replicas: u32,
    /// Readers may be sent to the replica; who writes may not, or there would be two logs.
    readers: Proxy,
    writers: Proxy,
    is_calm: Arc<AtomicBool>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Until it has started once, there is no log that a replica could be of.
        assert!(Server::start(&data_dir(directory.path()), &FLAGS).await.stop().success());
        let (server, replica) = start_both(directory.path(), 0).await;
        let is_calm = Arc::new(AtomicBool::new(false));
        let proxy = || {
            let is_calm = Arc::clone(&is_calm);
            Proxy::start(server.api, move |request, number| {
                let caller: u64 = request.header("nhn-source-system").unwrap().parse().unwrap();
                let is_stream = request.target() == STREAM;
                // What happens to a caller depends on nobody else.
                let seed = seed ^ (caller << 40) ^ ((number as u64) << 1) ^ u64::from(is_stream);
                let fault = random_fault(&mut StdRng::seed_from_u64(seed), is_stream);
                if is_calm.load(Ordering::Relaxed) { Fault::Pass } else { fault }
            })
        };
        let (readers, writers) = (proxy(), proxy());
        Self { server, replica, directory, replicas: 0, readers, writers, is_calm }
    }

    /// Something happens to all.
    async fn turn(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..5) {
            0 => {
                assert!(self.server.terminate().success());
                self.replicas += 1;
                let path = self.directory.path();
                (self.server, self.replica) = start_both(path, self.replicas).await;
            }
            1 => {
                self.server.kill();
                self.server = Server::start(&data_dir(self.directory.path()), &FLAGS).await;
            }
            2 | 3 => {
                let asked = |which| self.readers.asked(&usize::to_string(&which), STREAM);
                let before: Vec<_> = (0..CLIENTS).map(asked).collect();
                self.readers.switch(self.replica.api);
                for (which, before) in before.into_iter().enumerate() {
                    self.readers.streams_asked(&which.to_string(), before + 1).await;
                }
            }
            _ => {}
        }
        self.readers.switch(self.server.api);
        self.writers.switch(self.server.api);
    }

    fn calm_down(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
        self.readers.switch(self.server.api);
    }
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// The server, and a replica as of now.
async fn start_both(directory: &Path, number: u32) -> (Server, Server) {
    let replica = directory.join(format!("replica-{number}"));
    copy(&data_dir(directory), &replica);
    (Server::start(&data_dir(directory), &FLAGS).await, Server::start(&replica, &FLAGS).await)
}

/// Half of all answers come as they are.
fn random_fault(rng: &mut StdRng, is_stream: bool) -> Fault {
    // As often among the first bytes as far behind.
    let bits = rng.random_range(1..17);
    let at = rng.random_range(0..1_usize << bits);
    match rng.random_range(0..40) {
        0..8 => Fault::Cut { at, end: End::Close },
        8..12 => Fault::Cut { at, end: End::Reset },
        // Of a poll or an append that ends with its long patience; a stream's ends with the next turn, if not before.
        12 if is_stream => Fault::Cut { at, end: End::Silence },
        13..15 => Fault::Pieces { bytes: 1, pause: Duration::ZERO },
        15 => Fault::Pieces {
            bytes: rng.random_range(200..3000),
            pause: Duration::from_millis(rng.random_range(0..30)),
        },
        16 if is_stream => {
            let sizes = [Size::Garbage, Size::TooLarge, Size::TooSmall, Size::HalfAndTheEnd];
            Fault::Chunk {
                number: rng.random_range(0..3),
                size: sizes[rng.random_range(0..sizes.len())],
            }
        }
        21 if is_stream => Fault::Unframed { at },
        17 => Fault::Late(Duration::from_millis(rng.random_range(0..2000))),
        18 => gateway("429 Too Many Requests", "retry-after: 1\r\n"),
        19 => gateway("503 Service Unavailable", ""),
        20 => gateway("502 Bad Gateway", ""),
        _ => Fault::Pass,
    }
}
