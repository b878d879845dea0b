//! What the log takes from the process around it beside the clock and the disk: threads that may block, and chance. The
//! simulation puts both in the place of its own, so that one seed decides all that happens.

use rand::distr::{Distribution, StandardUniform};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Runs what may wait for the disk where it holds nobody up.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(test)]
    if let Some(wait) = simulated::disk_wait() {
        return tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            work()
        });
    }
    tokio::task::spawn_blocking(work)
}

/// A random value.
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    #[cfg(test)]
    if let Some(value) = simulated::with(|random| StandardUniform.sample(random)) {
        return value;
    }
    rand::random()
}

/// A random UUID.
pub(crate) fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}

/// One seed's.
#[cfg(test)]
pub(crate) mod simulated {
    use std::{cell::RefCell, time::Duration};

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    thread_local! {
        static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// Until it is dropped, whatever runs on this thread gets its chance from one seed, and has no other threads.
    pub(crate) struct Simulated(());

    impl Simulated {
        pub(crate) fn new(seed: u64) -> Self {
            RANDOM.with_borrow_mut(|random| *random = Some(StdRng::seed_from_u64(seed)));
            Self(())
        }
    }

    impl Drop for Simulated {
        fn drop(&mut self) {
            RANDOM.with_borrow_mut(|random| *random = None);
        }
    }

    pub(crate) fn with<T>(use_it: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
        RANDOM.with_borrow_mut(|random| random.as_mut().map(use_it))
    }

    /// How long the next work on the disk takes: mostly no time, but long enough for others to come between.
    pub(super) fn disk_wait() -> Option<Duration> {
        with(|random| match random.random_range(0..10) {
            0 => Duration::from_millis(random.random_range(1..20)),
            _ => Duration::ZERO,
        })
    }
}
