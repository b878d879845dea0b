//! What may be used once.

use std::collections::HashMap;

use ring::digest;

/// How many assertions, and how many proofs, are remembered at once. Beyond that a request is refused rather than an older
/// one forgotten.
pub const SEEN_MAX: usize = 100_000;

/// Names that were used, each until it would be refused anyway.
#[derive(Debug, Default)]
pub(crate) struct Seen(HashMap<[u8; 32], i64>);

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    New,
    Again,
    /// There is no room to remember it.
    Full,
}

impl Seen {
    /// Notes that `name` of `owner` is used at `now`, and refused by other checks after `until`.
    pub(crate) fn note(&mut self, owner: &str, name: &str, until: i64, now: i64) -> Noted {
        let hash = hash(owner, name);
        if self.0.get(&hash).is_some_and(|until| *until >= now) {
            return Noted::Again;
        }
        if self.0.len() >= SEEN_MAX {
            self.0.retain(|_, until| *until >= now);
        }
        if self.0.len() >= SEEN_MAX {
            return Noted::Full;
        }
        self.0.insert(hash, until);
        Noted::New
    }
}

/// Of a size that the caller does not choose. Neither an owner nor a name has to be free of any character: the owner's
/// length keeps them apart.
fn hash(owner: &str, name: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(owner.len() as u64).to_be_bytes());
    context.update(owner.as_bytes());
    context.update(name.as_bytes());
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_once_for_each_owner_until_its_time_is_over() {
        let mut seen = Seen::default();
        assert_eq!(seen.note("a", "bc", 10, 0), Noted::New);
        assert_eq!(seen.note("a", "bc", 99, 10), Noted::Again);
        assert_eq!(seen.note("ab", "c", 10, 0), Noted::New);
        assert_eq!(seen.note("a", "bc", 20, 11), Noted::New);
    }

    #[test]
    fn when_there_is_no_room_nothing_is_forgotten() {
        let mut seen = Seen::default();
        for name in 0..SEEN_MAX - 1 {
            assert_eq!(seen.note("a", &name.to_string(), 10, 0), Noted::New);
        }
        assert_eq!(seen.note("a", "the last", 11, 0), Noted::New);
        assert_eq!(seen.note("a", "one more", 10, 10), Noted::Full);
        assert_eq!(seen.note("a", "0", 10, 10), Noted::Again);
        assert_eq!(seen.note("a", "one more", 20, 11), Noted::New);
        assert_eq!(seen.note("a", "the last", 20, 11), Noted::Again);
        assert_eq!(seen.0.len(), 2);
    }
}
