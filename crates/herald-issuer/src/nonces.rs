//! What a proof must repeat, so that it cannot have been made long before.

use std::sync::{Mutex, MutexGuard, PoisonError};

use herald_auth::encode;
use jiff::Timestamp;
use ring::{hmac, rand::SystemRandom};

/// The system has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no random numbers")]
pub struct NoRandomNumbers;

/// How many bytes of the tag a nonce has.
const NONCE_BYTES: usize = 16;

/// Nonces of a period and the one before: the tag of the period's number, so that none has to be remembered.
pub(crate) struct Nonces {
    // A lock, since a key is replaced as a whole and hardly ever.
    key: Mutex<hmac::Key>,
    period_s: i64,
}

/// What a nonce in a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Current,
    /// Accepted still; it is time to hand out another.
    Previous,
    Unknown,
}

impl Nonces {
    pub(crate) fn new(period_s: i64) -> Result<Self, NoRandomNumbers> {
        Ok(Self { key: Mutex::new(new_key()?), period_s: period_s.max(1) })
    }

    /// Takes another key, so that no nonce that was handed out is known any more.
    pub(crate) fn renew(&self) -> Result<(), NoRandomNumbers> {
        *self.key() = new_key()?;
        Ok(())
    }

    /// The nonce to hand out.
    pub(crate) fn current(&self, now: Timestamp) -> String {
        self.of(now.as_second().div_euclid(self.period_s))
    }

    pub(crate) fn freshness(&self, nonce: &str, now: Timestamp) -> Freshness {
        let period = now.as_second().div_euclid(self.period_s);
        if nonce == self.of(period) {
            Freshness::Current
        } else if nonce == self.of(period - 1) {
            Freshness::Previous
        } else {
            Freshness::Unknown
        }
    }

    fn of(&self, period: i64) -> String {
        encode(&hmac::sign(&self.key(), &period.to_be_bytes()).as_ref()[..NONCE_BYTES])
    }

    fn key(&self) -> MutexGuard<'_, hmac::Key> {
        // A key is whole whoever panicked.
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_key() -> Result<hmac::Key, NoRandomNumbers> {
    hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandomNumbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_accepted_in_its_period_and_the_next() {
        let nonces = Nonces::new(60).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let nonce = nonces.current(at(600));
        assert_eq!(nonces.current(at(659)), nonce);
        assert_ne!(nonces.current(at(660)), nonce);
        for (second, freshness) in [
            (599, Freshness::Unknown),
            (600, Freshness::Current),
            (659, Freshness::Current),
            (660, Freshness::Previous),
            (719, Freshness::Previous),
            (720, Freshness::Unknown),
        ] {
            assert_eq!(nonces.freshness(&nonce, at(second)), freshness, "{second}");
        }
        assert_eq!(Nonces::new(60).unwrap().freshness(&nonce, at(600)), Freshness::Unknown);
        nonces.renew().unwrap();
        assert_eq!(nonces.freshness(&nonce, at(600)), Freshness::Unknown);
    }
}
