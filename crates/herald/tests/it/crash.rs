//! `kill -9` at random moments under load: whatever was promised is kept, whoever promised it.
//!
//! The judge is a model that knows only what producers and readers were told. `cargo xtask crash --rounds N` runs more
//! rounds; a run prints its seed, and `--seed` repeats its requests and its moments (not the scheduling of threads).

mod load;
mod model;

use std::{path::Path, process::Stdio, time::Duration};

use load::{HER_IDS, Reader, Shared};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    http::{Events, client, poll, poll_through},
    server::{Server, herald},
    setting,
};

/// Producers at work at the same time.
const PRODUCERS: usize = 4;
/// Rounds on one directory: the judge reads all of it, so its size is bounded.
const ROUNDS_PER_DIRECTORY: u32 = 15;
/// The latest moment of a kill after the load has begun.
const KILL_WITHIN: Duration = Duration::from_millis(500);
/// The latest moment of a kill during a start.
const KILL_START_WITHIN: Duration = Duration::from_millis(60);
/// One round in so many kills a start instead.
const START_KILLED_IN: f64 = 0.2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo xtask crash"]
async fn nothing_promised_is_lost_moved_or_doubled_by_a_kill() {
    let rounds = setting("HERALD_CRASH_ROUNDS").unwrap_or(30);
    let rounds = u32::try_from(rounds).expect("a number of rounds");
    let seed = setting("HERALD_CRASH_SEED").unwrap_or_else(rand::random);
    println!("crash: {rounds} rounds with seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while done < rounds {
        let count = ROUNDS_PER_DIRECTORY.min(rounds - done);
        done += count;
        directory(count, &mut rng).await;
        println!("crash: {done} of {rounds} kills survived");
    }
}

/// Some rounds on one directory, and a last look at all of it.
async fn directory(rounds: u32, rng: &mut StdRng) {
    let home = tempfile::tempdir().expect("a directory");
    let data_dir = home.path().join("data");
    let shared = Shared::default();
    let mut reader = Reader::default();
    for _ in 0..rounds {
        if rng.random_bool(START_KILLED_IN) {
            kill_while_it_starts(&data_dir, rng).await;
        } else {
            reader = kill_under_load(&data_dir, &shared, reader, rng).await;
        }
        if shared.model().has_history() {
            check_directory(&data_dir);
        }
    }
    finish(&data_dir, &shared, reader).await;
    let model = shared.model();
    println!(
        "crash: {} acknowledged, {} stored, the newest offset is {}",
        model.acknowledged_count(),
        model.shown_count(),
        model.newest()
    );
}

async fn kill_while_it_starts(data_dir: &Path, rng: &mut StdRng) {
    let launched = Server::launch(data_dir, &[]);
    tokio::time::sleep(rng.random_range(Duration::ZERO..KILL_START_WITHIN)).await;
    launched.kill();
}

async fn kill_under_load(
    data_dir: &Path,
    shared: &Shared,
    reader: Reader,
    rng: &mut StdRng,
) -> Reader {
    let mut server = Server::start(data_dir, &[]).await;
    let after = rng.random_range(0..=shared.model().newest());
    judge(&server, shared, &reader, after).await;

    shared.set_over(false);
    let produce = |seed| tokio::spawn(load::produce(shared.clone(), server.url(), seed));
    let producers: Vec<_> = (0..PRODUCERS).map(|_| produce(rng.random())).collect();
    let reader = tokio::spawn(reader.follow(shared.clone(), server.url()));
    tokio::time::sleep(rng.random_range(Duration::ZERO..KILL_WITHIN)).await;
    server.kill();
    shared.set_over(true);
    for producer in producers {
        producer.await.expect("a producer found nothing wrong");
    }
    reader.await.expect("a reader found nothing wrong")
}

/// Sends again what has no answer, and looks at everything.
async fn finish(data_dir: &Path, shared: &Shared, reader: Reader) {
    let server = Server::start(data_dir, &[]).await;
    judge(&server, shared, &reader, 0).await;
    let count = shared.model().requests.len();
    for request in 0..count {
        load::send(shared, &client(), &server.url(), request).await;
    }
    assert!(shared.model().requests.iter().all(|request| request.is_acknowledged));
    judge(&server, shared, &reader, 0).await;
    assert!(server.stop().success(), "a stop after all that is clean");
}

/// A quiet server's polls and streams agree with each other, with the model, and with what the reader saw.
async fn judge(server: &Server, shared: &Shared, reader: &Reader, after: u64) {
    let (client, url) = (client(), server.url());
    let first = poll(&client, &url, &HER_IDS, after, 1).await;
    shared.model().same_history(&first.history);
    let all = poll_through(&client, &url, &HER_IDS, after).await;
    shared.model().judge(after, &all);

    let mut streamed = Vec::new();
    let mut events = Events::open(&client, &url, &HER_IDS, after).await.expect("a stream opens");
    while streamed.len() < all.len() {
        streamed.push(events.next().await.expect("a stream goes on"));
    }
    assert_eq!(streamed, all, "a stream and a sequence of polls give the same bytes");

    let polled = poll_through(&client, &url, Reader::HER_IDS, 0).await;
    let handled: Vec<_> =
        polled.into_iter().filter(|(offset, _)| *offset <= reader.after()).collect();
    assert_eq!(reader.seen, handled, "a resumed stream has no gap and no repeat");
}

/// A killed server leaves no damage: at most a torn end, which `log check` knows to be harmless.
fn check_directory(data_dir: &Path) {
    let mut check = herald();
    check.args(["log", "check"]).arg(data_dir).stdin(Stdio::null());
    let output = check.output().expect("the binary starts");
    assert!(
        output.status.success(),
        "herald log check: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
