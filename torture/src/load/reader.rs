//! Pollers and streams that wander from replica to replica, and resume where they were.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use super::{Phase, RECEIVERS, World};
use crate::history::{Answered, Call, Poll, Seen, Stream};

/// Between two polls.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(10)..Duration::from_millis(120);
/// Before a stream is opened again.
const AGAIN: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(500);
/// One poll of so many begins at the beginning, or somewhere, instead of where the poller is.
const ELSEWHERE_ONE_IN: u32 = 6;
/// A stream is left for another replica after so many things at the latest.
const LEFT_AFTER: std::ops::Range<u32> = 20..1500;

fn some_receivers(rng: &mut StdRng) -> Vec<u32> {
    loop {
        let some: Vec<u32> = RECEIVERS.filter(|_| rng.random_bool(0.6)).collect();
        if !some.is_empty() {
            return some;
        }
    }
}

pub(super) async fn poll(world: World, name: String, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let receivers = some_receivers(&mut rng);
    let mut at = 0;
    while !world.is(Phase::Over) {
        let is_elsewhere = rng.random_ratio(1, ELSEWHERE_ONE_IN);
        let after = if is_elsewhere { rng.random_range(0..=at) } else { at };
        let limit = [1, 7, 100, 1000][rng.random_range(0..4)];
        let replica = world.any(&mut rng);
        let began = world.recorder.now();
        let answer = world.http.poll(&world.urls[replica], &receivers, after, limit).await;
        if let Answered::Told(page) = &answer
            && !is_elsewhere
        {
            at = page.until;
        }
        let poll = Poll { receivers: receivers.clone(), after, limit, answer };
        world.recorder.record(&name, replica, began, Call::Poll(poll));
        let pause = rng.random_range(PAUSE);
        sleep(pause).await;
    }
}

pub(super) async fn stream(world: World, name: String, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let receivers = some_receivers(&mut rng);
    let mut at = 0;
    world.has_come_to(&name, at);
    while !world.is(Phase::Over) {
        let replica = world.any(&mut rng);
        let resumes = at > 0 && rng.random_bool(0.5);
        let left_after = rng.random_range(LEFT_AFTER);
        let connection = Connection { world: &world, name: &name, receivers: &receivers };
        at = connection.run(replica, at, resumes, left_after).await;
        let pause = rng.random_range(AGAIN);
        sleep(pause).await;
    }
}

struct Connection<'a> {
    world: &'a World,
    name: &'a str,
    receivers: &'a [u32],
}

impl Connection<'_> {
    /// One connection from its beginning to its end; where it has come to.
    async fn run(&self, replica: usize, after: u64, resumes: bool, left_after: u32) -> u64 {
        let Self { world, name, receivers } = *self;
        let began = world.recorder.now();
        let url = &world.urls[replica];
        let (answer, mut events) = match world.http.stream(url, receivers, after, resumes).await {
            Ok((head, events)) => (Answered::Told(head), Some(events)),
            Err(answer) => (answer, None),
        };
        let (mut at, mut all, mut is_last) = (after, Vec::new(), false);
        while let Some(open) = &mut events {
            // Whoever is being judged for how far it comes does not leave.
            if all.len() >= left_after as usize && !world.is(Phase::Settling) {
                break;
            }
            let seen = tokio::select! {
                seen = open.next() => seen,
                () = world.until(Phase::Over) => {
                    is_last = true;
                    break;
                }
            };
            let Some(seen) = seen else { break };
            at = at.max(match &seen {
                Seen::Item(item) => item.offset,
                Seen::Until(until) => *until,
            });
            all.push(seen);
            world.has_come_to(name, at);
        }
        let receivers = receivers.to_vec();
        let stream = Stream { receivers, after, answer, seen: all, is_last };
        world.recorder.record(name, replica, began, Call::Stream(stream));
        at
    }
}
