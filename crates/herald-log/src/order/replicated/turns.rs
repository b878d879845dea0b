//! Who appends next, where several replicas would: nobody must lose for ever.
//!
//! A replica that has won knows of its own batch before all others, and would win again. So, as long as others append,
//! it waits after each win until all of those whose batches it met in the last second have had one, or until they could
//! have. One that has lost every time is met by nobody: for it a winner waits a little longer now and then, whoever came
//! meanwhile.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::surroundings;

/// Others count for so long after their last batch.
const OTHERS_WINDOW: Duration = Duration::from_secs(1);
/// So many appends' time is for each of the others to follow, number and append.
const APPENDS_PER_TURN: u32 = 2;
/// The longest wait, however slow the engine.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// One win of so many is followed by a wait that nothing shortens.
const LONG_WAIT_ONE_IN: u32 = 8;
/// How many others are told apart; a cluster has fewer replicas.
const OTHERS_MAX: usize = 64;

pub(crate) struct Turns {
    /// Which replica this one is; known when it has won.
    own: Option<u64>,
    /// By what their batch ids begin with: when each of them last won, and whether that was after this replica did.
    others: HashMap<u64, Other>,
    /// What an append takes, smoothed.
    append_time: Duration,
    wait_until: Option<Instant>,
    is_long: bool,
}

#[derive(Clone, Copy)]
struct Other {
    won: Instant,
    had_turn: bool,
}

/// Which replica made a batch: the upper half of its id is the replica's own for as long as it runs.
pub(crate) fn replica_of(batch_id: u128) -> u64 {
    u64::try_from(batch_id >> 64).expect("half of it is left")
}

impl Turns {
    pub(crate) fn new() -> Self {
        let (append_time, wait_until, is_long) = (Duration::ZERO, None, false);
        Self { own: None, others: HashMap::new(), append_time, wait_until, is_long }
    }

    /// A batch came that this replica did not have. It may be its own, where that comes to be followed before the answer
    /// does: nobody waits for oneself.
    pub(crate) fn other(&mut self, batch_id: u128, now: Instant) {
        let replica = replica_of(batch_id);
        if self.own == Some(replica) {
            return;
        }
        if self.others.len() < OTHERS_MAX || self.others.contains_key(&replica) {
            self.others.insert(replica, Other { won: now, had_turn: true });
        }
    }

    /// This batch of this replica came first; its append took so long.
    pub(crate) fn won(&mut self, batch_id: u128, took: Duration, now: Instant) {
        let own = replica_of(batch_id);
        self.own = Some(own);
        self.others.remove(&own);
        self.append_time =
            if self.append_time.is_zero() { took } else { (self.append_time * 7 + took) / 8 };
        self.others.retain(|_, other| now.saturating_duration_since(other.won) < OTHERS_WINDOW);
        self.others.values_mut().for_each(|other| other.had_turn = false);
        let others = u32::try_from(self.others.len()).expect("they are few");
        if others == 0 {
            self.wait_until = None;
            return;
        }
        self.is_long = surroundings::random::<u32>().is_multiple_of(LONG_WAIT_ONE_IN);
        let appends = (others + u32::from(self.is_long)) * APPENDS_PER_TURN;
        self.wait_until = Some(now + (self.append_time * appends).min(WAIT_MAX));
    }

    /// Until when to wait before the next append, if at all.
    pub(crate) fn wait(&self, now: Instant) -> Option<Instant> {
        self.wait_until.filter(|until| *until > now)
    }

    /// Whether all others have had their turn.
    pub(crate) fn is_next(&self) -> bool {
        !self.is_long && self.others.values().all(|other| other.had_turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u128 = 6 << 64;
    const OTHER: u128 = 7 << 64;

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_waits_for_nobody() {
        let mut turns = Turns::new();
        turns.won(OWN, Duration::from_millis(2), Instant::now());
        assert_eq!(turns.wait(Instant::now()), None);
        turns.other(OTHER, Instant::now());
        tokio::time::advance(OTHERS_WINDOW).await;
        turns.won(OWN, Duration::from_millis(2), Instant::now());
        assert_eq!(turns.wait(Instant::now()), None, "the other one has not been met for a second");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_does_not_wait_for_itself_when_its_batch_is_followed_before_it_is_answered()
     {
        let mut turns = Turns::new();
        for batch in 1..=3 {
            turns.other(OWN + batch, Instant::now());
            turns.won(OWN + batch, Duration::from_millis(2), Instant::now());
            assert_eq!(turns.wait(Instant::now()), None, "batch {batch}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_winner_waits_for_those_it_has_met_and_no_longer_than_their_appends_take() {
        let mut turns = Turns::new();
        let now = Instant::now();
        turns.other(OTHER, now);
        let took = Duration::from_millis(2);
        loop {
            turns.won(OWN, took, now);
            if !turns.is_long {
                break;
            }
        }
        assert_eq!(turns.wait(now), Some(now + took * APPENDS_PER_TURN));
        assert!(!turns.is_next());
        turns.other(OTHER + 1, now);
        assert!(turns.is_next());
        turns.won(OWN, Duration::from_secs(60), now);
        assert_eq!(turns.wait(now), Some(now + WAIT_MAX));
        assert_eq!(turns.wait(now + WAIT_MAX), None);
    }

    #[tokio::test(start_paused = true)]
    async fn now_and_then_a_winner_waits_whoever_came() {
        let mut turns = Turns::new();
        let now = Instant::now();
        let long = (0..800).filter(|_| {
            turns.other(OTHER, now);
            turns.won(OWN, Duration::from_millis(2), now);
            turns.other(OTHER, now);
            !turns.is_next()
        });
        let long = long.count();
        assert!((50..200).contains(&long), "{long} of 800");
    }
}
