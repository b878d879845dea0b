//! Which proofs have been used: remembered for as long as they could be used again, and not longer.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ring::digest;
use tokio::time::Instant;

/// Used proofs, in bounded memory. What it knows is of one process: another replica would take a proof that was used here,
/// once, in the seconds for which a proof is valid (docs/security.md says what that means).
///
/// Invariant: nothing is forgotten before its time. When there is no room, a new proof is refused.
#[derive(Debug)]
pub struct Replays {
    remembered_for: Duration,
    entries_max: usize,
    // A plain mutex: held for a lookup and, now and then, for forgetting; never across a wait.
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    ids: HashSet<Id>,
    // In the order of their coming, which is the order of their going: all are remembered for the same time.
    coming: VecDeque<(Instant, Id)>,
}

/// Half a SHA-256: enough that nobody finds two proofs with the same one.
type Id = [u8; 16];

/// Why a proof may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It was used before.
    Used,
    /// There is no room to remember it.
    Full,
}

impl Replays {
    /// Remembers each proof for `remembered_for`, at most `entries_max` of them.
    #[must_use]
    pub fn new(remembered_for: Duration, entries_max: usize) -> Self {
        Self { remembered_for, entries_max, used: Mutex::default() }
    }

    /// Notes that the proof `id` of the key with this thumbprint is used now.
    ///
    /// # Errors
    /// [`Unusable`] when it was used before, or cannot be remembered.
    pub fn use_up(&self, thumbprint: &str, id: &str, now: Instant) -> Result<(), Unusable> {
        let id = id_of(thumbprint, id);
        let mut used = self.used();
        used.forget(now);
        if used.ids.contains(&id) {
            return Err(Unusable::Used);
        }
        if used.ids.len() >= self.entries_max {
            return Err(Unusable::Full);
        }
        used.ids.insert(id);
        used.coming.push_back((now + self.remembered_for, id));
        Ok(())
    }

    /// Whether the proof `id` of the key with this thumbprint is remembered as used.
    #[must_use]
    pub fn is_used(&self, thumbprint: &str, id: &str, now: Instant) -> bool {
        let mut used = self.used();
        used.forget(now);
        used.ids.contains(&id_of(thumbprint, id))
    }

    /// How many are remembered now.
    #[must_use]
    pub fn count(&self, now: Instant) -> usize {
        let mut used = self.used();
        used.forget(now);
        used.ids.len()
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn forget(&mut self, now: Instant) {
        while let Some((until, id)) = self.coming.front()
            && *until <= now
        {
            self.ids.remove(id);
            self.coming.pop_front();
        }
    }
}

/// A key's thumbprint has one length, so that no two pairs run together.
fn id_of(thumbprint: &str, id: &str) -> Id {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(thumbprint.as_bytes());
    context.update(b"\0");
    context.update(id.as_bytes());
    let mut half = Id::default();
    half.copy_from_slice(&context.finish().as_ref()[..size_of::<Id>()]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(12);

    #[test]
    fn a_proof_counts_once_per_key_until_it_could_not_be_used_again() {
        let (replays, began) = (Replays::new(TIME, 10), Instant::now());
        assert_eq!(replays.use_up("key", "a", began), Ok(()));
        assert_eq!(replays.use_up("other", "a", began), Ok(()));
        assert_eq!(replays.use_up("key", "b", began), Ok(()));
        assert!(replays.is_used("key", "a", began) && !replays.is_used("key", "c", began));
        let last = began + TIME - Duration::from_nanos(1);
        for id in ["a", "b"] {
            assert_eq!(replays.use_up("key", id, last), Err(Unusable::Used));
        }
        assert_eq!(replays.count(last), 3);
        assert_eq!(replays.count(began + TIME), 0);
        assert_eq!(replays.use_up("key", "a", began + TIME), Ok(()));
    }

    #[test]
    fn over_its_bound_it_refuses_and_does_not_forget() {
        let (replays, now) = (Replays::new(TIME, 3), Instant::now());
        for id in ["a", "b", "c"] {
            assert_eq!(replays.use_up("key", id, now), Ok(()));
        }
        assert_eq!(replays.use_up("key", "d", now), Err(Unusable::Full));
        assert_eq!(replays.use_up("key", "a", now), Err(Unusable::Used));
        assert_eq!(replays.use_up("key", "d", now + TIME), Ok(()));
    }
}
