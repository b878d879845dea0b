//! Appenders that compete while servers die and stall: what was answered is there once, and what was refused is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64},
};

use tokio::sync::watch;

use super::{following::again, *};

const APPENDERS: u64 = 3;
/// So many batches are answered for between two faults, whatever the machine's pace.
const BETWEEN_FAULTS: usize = 60;

/// What one appender was told.
#[derive(Default)]
struct Told {
    stored: BTreeMap<u64, u128>,
    /// Batches of which nothing may be there.
    refused: BTreeSet<u128>,
    /// Batches of which only what stands at their position tells whether they are there.
    open: BTreeMap<u128, u64>,
}

struct Shared {
    url: String,
    has_ended: AtomicBool,
    /// How many still append.
    appending: AtomicU64,
    stored: watch::Sender<usize>,
}

/// Follows from the beginning, begins again whenever it must, and publishes how far it has come.
async fn follow_all(
    shared: &Shared,
    engine: &Jetstream,
    reached: &watch::Sender<u64>,
) -> Vec<Bytes> {
    let mut frames: Vec<Bytes> = Vec::new();
    loop {
        let mut follower = again(engine, Position(frames.len() as u64 + 1)).await;
        loop {
            let followed = match timeout(HANG, follower.next()).await.unwrap() {
                Ok(followed) => followed,
                Err(EngineError::Away(_)) => break,
                Err(error) => panic!("{error}"),
            };
            for (position, frame) in followed.batches {
                frames.push(frame);
                assert_eq!(position.0, frames.len() as u64);
            }
            reached.send_replace(frames.len() as u64);
            if shared.has_ended.load(Ordering::Relaxed) && followed.newest.0 == frames.len() as u64
            {
                return frames;
            }
        }
    }
}

async fn append_all_the_time(
    shared: &Shared,
    engine: &Jetstream,
    number: u64,
    mut reached: watch::Receiver<u64>,
) -> Told {
    let mut told = Told::default();
    let mut next_id = u128::from(number) << 64;
    while !shared.has_ended.load(Ordering::Relaxed) {
        let after = *reached.borrow_and_update();
        next_id += 1;
        let entry = Entry {
            after: Place { position: Position(after), batch_id: 0 },
            batch_id: next_id,
            frame: Bytes::from(next_id.to_string()),
            ..entry(after + 1)
        };
        match append(engine, &entry, &mut reached, after).await {
            Outcome::Stored => {
                told.stored.insert(after + 1, next_id);
                shared.stored.send_modify(|stored| *stored += 1);
                // As the sequencer does: its own batch is the newest it knows of.
                let _ = timeout(HANG, reached.wait_for(|reached| *reached > after)).await;
            }
            Outcome::Refused => drop(told.refused.insert(next_id)),
            Outcome::Open => drop(told.open.insert(next_id, after + 1)),
        }
    }
    shared.appending.fetch_sub(1, Ordering::Relaxed);
    told
}

enum Outcome {
    Stored,
    Refused,
    Open,
}

/// Repeats a batch until something stands at its position.
async fn append(
    engine: &Jetstream,
    entry: &Entry,
    reached: &mut watch::Receiver<u64>,
    after: u64,
) -> Outcome {
    let mut is_open = false;
    loop {
        match engine.append(entry).await {
            Ok(()) => return Outcome::Stored,
            Err(AppendFailure::Refused(_) | AppendFailure::Away(_)) if !is_open => {
                return Outcome::Refused;
            }
            Err(AppendFailure::Conflict) => {
                // Perhaps of a leader that is none any more, while another one has got it, too: what stands there will tell.
                is_open = true;
                let moved = reached.wait_for(|reached| *reached > after);
                if let Ok(Ok(_)) = timeout(ANSWER_WAIT, moved).await {
                    return Outcome::Open;
                }
            }
            Err(AppendFailure::Refused(_) | AppendFailure::Away(_)) => {}
            Err(AppendFailure::Unknown(_)) => is_open = true,
        }
    }
}

async fn break_things(cluster: &Cluster, shared: &Shared) {
    let mut stored = shared.stored.subscribe();
    let mut until = 0;
    let mut pause = async || {
        until += BETWEEN_FAULTS;
        timeout(HANG, stored.wait_for(|stored| *stored >= until)).await.unwrap().unwrap();
        until = *shared.stored.borrow();
    };
    for _ in 0..2 {
        pause().await;
        let leader = cluster.stream_leader("HERALD").await.unwrap();
        cluster.kill(leader);
        pause().await;
        cluster.restart(leader).unwrap();
        cluster.ready().await.unwrap();
    }
    pause().await;
    let leader = cluster.stream_leader("HERALD").await.unwrap();
    // It still takes itself for the leader when it goes on.
    cluster.stop(leader);
    pause().await;
    cluster.go_on(leader);
    pause().await;
    let other = (cluster.stream_leader("HERALD").await.unwrap() + 1) % 3;
    cluster.kill(other);
    pause().await;
    cluster.restart(other).unwrap();
    pause().await;
    shared.has_ended.store(true, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_servers_an_answered_batch_is_there_once() {
    let cluster = Cluster::start(3).await.unwrap();
    let shared = Shared {
        url: cluster.url(),
        has_ended: AtomicBool::new(false),
        appending: AtomicU64::new(APPENDERS),
        stored: watch::channel(0).0,
    };
    let first = engine(&shared.url);
    super::cluster::create_at_last(&first).await;
    let appenders = (1..=APPENDERS).map(|number| {
        let shared = &shared;
        async move {
            let engine = engine(&shared.url);
            let (sender, reached) = watch::channel(0);
            tokio::join!(
                follow_all(shared, &engine, &sender),
                append_all_the_time(shared, &engine, number, reached)
            )
        }
    });
    let (ends, ()) =
        tokio::join!(futures_util::future::join_all(appenders), break_things(&cluster, &shared));

    let newest = first.look().await.unwrap().unwrap().newest.0;
    let mut follower = again(&first, Position(1)).await;
    let log = follow_until(&mut follower, 1, newest).await;
    let ids: Vec<u128> =
        log.iter().map(|frame| std::str::from_utf8(frame).unwrap().parse().unwrap()).collect();
    let there: BTreeSet<u128> = ids.iter().copied().collect();
    assert_eq!(there.len(), ids.len(), "each batch once");
    for (followed, told) in &ends {
        assert!(log.starts_with(followed), "all see one log");
        for (position, id) in &told.stored {
            assert_eq!(ids[usize::try_from(*position).unwrap() - 1], *id, "at {position}");
        }
        let refused: Vec<&u128> = told.refused.intersection(&there).collect();
        assert_eq!(refused, Vec::<&u128>::new(), "nothing happened, it was said");
        assert!(!told.stored.is_empty(), "everybody gets a turn");
    }
    let own = ends.iter().flat_map(|(_, told)| &told.open);
    let own = own.filter(|(id, _)| there.contains(id)).inspect(|(id, position)| {
        let stands = ids.iter().position(|other| other == *id).unwrap() + 1;
        assert_eq!(stands as u64, **position, "where it was to be, or nowhere");
    });
    let (own, stored) =
        (own.count(), ends.iter().map(|(_, told)| told.stored.len()).sum::<usize>());
    assert_eq!(ids.len(), stored + own, "nothing from nowhere");
    println!("{} batches, {stored} answered for, {own} found where they were to be", ids.len());
}
