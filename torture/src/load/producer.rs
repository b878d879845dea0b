//! Producers: each request is sent until it is answered, on whatever replica comes up; some again after that, some on
//! several at once, some with an id of old whose content is another.

use std::time::Duration;

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Phase, RECEIVERS, World};
use crate::history::{Append, Call, Draft, Outcome};

/// The five types of the page.
const KINDS: [&str; 5] = [
    "NewMessage",
    "RefusedMessage",
    "MessageSentStateUpdated",
    "MessageApprecInfoUpdated",
    "MessageDeliveryStateUpdated",
];
/// Texts that break careless framing.
const WORDS: [&str; 6] = ["Melding mottatt", "\"quoted\"", "line\nbreak", "æøå", "😀", "\\"];
/// Between two requests.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(5)..Duration::from_millis(200);
/// Before a request is repeated.
const AGAIN: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_millis(700);
/// One of so many is given up, and nobody ever knows.
const GIVEN_UP_ONE_IN: u32 = 40;

/// `home` is the only replica that it asks while the load runs; without one it wanders.
pub(super) async fn run(world: World, name: String, home: Option<usize>, seed: u64) {
    let rng = StdRng::seed_from_u64(seed);
    let mut producer = Producer { world, name, home, rng, sent: Vec::new(), open: Vec::new() };
    while !producer.world.is(Phase::Settling) {
        producer.step().await;
    }
    producer.settle().await;
}

struct Producer {
    world: World,
    name: String,
    home: Option<usize>,
    rng: StdRng,
    /// Known to be stored.
    sent: Vec<Asking>,
    /// Not known.
    open: Vec<Asking>,
}

#[derive(Clone)]
struct Asking {
    is_atomic: bool,
    drafts: Vec<Draft>,
}

impl Producer {
    async fn step(&mut self) {
        let asking = match self.rng.random_range(0..100) {
            0..8 if !self.sent.is_empty() => self.old(),
            8..14 if !self.sent.is_empty() => {
                let mut mixed = self.fresh();
                let old = self.old().drafts[0].clone();
                let at = self.rng.random_range(0..=mixed.drafts.len());
                mixed.drafts.insert(at, old);
                mixed
            }
            14..19 if !self.sent.is_empty() => self.changed(),
            _ => self.fresh(),
        };
        let replicas = match self.rng.random_range(0..100) {
            0..8 if self.home.is_none() => (0..self.world.urls.len()).collect(),
            _ => vec![self.replica()],
        };
        let outcomes = join_all(replicas.iter().map(|replica| self.send(*replica, &asking))).await;
        if outcomes.iter().any(is_stored) {
            self.keep(asking);
        } else if !outcomes.contains(&Outcome::Differs) {
            self.repeat(asking).await;
        }
        let pause = self.rng.random_range(PAUSE);
        sleep(pause).await;
    }

    /// Sends it until it is answered, or given up, or the time is over.
    async fn repeat(&mut self, asking: Asking) {
        while !self.world.is(Phase::Settling) {
            if self.rng.random_ratio(1, GIVEN_UP_ONE_IN) {
                return;
            }
            let wait = self.rng.random_range(AGAIN);
            sleep(wait).await;
            let replica = self.replica();
            match self.send(replica, &asking).await {
                Outcome::Stored(_) => return self.keep(asking),
                Outcome::Differs | Outcome::Unexpected(_) => return,
                Outcome::Refused(_) | Outcome::Unknown(_) | Outcome::Nothing(_) => {}
            }
        }
        self.open.push(asking);
    }

    /// All is well: whatever has no answer gets one now, on the first replica that is asked or the next.
    async fn settle(&mut self) {
        for asking in std::mem::take(&mut self.open) {
            for try_number in 0..self.world.urls.len() * 4 {
                let replica = try_number % self.world.urls.len();
                let outcome = self.send(replica, &asking).await;
                if is_stored(&outcome) || outcome == Outcome::Differs {
                    break;
                }
                sleep(AGAIN.end).await;
            }
        }
    }

    fn replica(&mut self) -> usize {
        self.home.unwrap_or_else(|| self.world.any(&mut self.rng))
    }

    async fn send(&self, replica: usize, asking: &Asking) -> Outcome {
        let began = self.world.recorder.now();
        let Asking { is_atomic, drafts } = asking.clone();
        let outcome = Outcome::Nothing("not sent".to_owned());
        let mut append = Append { is_atomic, drafts, outcome };
        append.outcome = self.world.http.append(&self.world.urls[replica], &append).await;
        let outcome = append.outcome.clone();
        self.world.recorder.record(&self.name, replica, began, Call::Append(append));
        outcome
    }

    fn keep(&mut self, asking: Asking) {
        // Enough to choose from.
        if self.sent.len() < 500 {
            self.sent.push(asking);
        } else {
            let at = self.rng.random_range(0..self.sent.len());
            self.sent[at] = asking;
        }
    }

    fn old(&mut self) -> Asking {
        self.sent[self.rng.random_range(0..self.sent.len())].clone()
    }

    /// New drafts, and an id of old with another content among them.
    fn changed(&mut self) -> Asking {
        let mut asking = self.fresh();
        let mut changed = self.old().drafts[0].clone();
        changed.related_message_id = Uuid::from_u128(self.rng.random());
        let at = self.rng.random_range(0..=asking.drafts.len());
        asking.drafts.insert(at, changed);
        // Lines before it would be stored, each for itself.
        asking.is_atomic = true;
        asking
    }

    fn fresh(&mut self) -> Asking {
        let count = match self.rng.random_range(0..100) {
            0..65 => self.rng.random_range(1..4),
            65..97 => self.rng.random_range(4..25),
            _ => self.rng.random_range(100..400),
        };
        let is_atomic = self.rng.random_bool(0.8);
        Asking { is_atomic, drafts: (0..count).map(|_| self.draft()).collect() }
    }

    fn draft(&mut self) -> Draft {
        let rng = &mut self.rng;
        let words = (0..rng.random_range(0..5)).map(|_| WORDS[rng.random_range(0..WORDS.len())]);
        let words = words.collect::<Vec<_>>().join(" ");
        Draft {
            notification_id: Uuid::from_u128(rng.random()),
            related_message_id: Uuid::from_u128(rng.random()),
            kind: KINDS[rng.random_range(0..KINDS.len())].to_owned(),
            notification_receiver_her_id: rng.random_range(RECEIVERS),
            notification_triggered_by_her_id: rng
                .random_bool(0.5)
                .then(|| rng.random_range(1..=2_147_483_647)),
            description: rng.random_bool(0.8).then_some(words),
        }
    }
}

fn is_stored(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Stored(_))
}
