//! Wake-ups per receiver. A wake-up carries nothing: register, read, wait.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;
use foldhash::HashMap;
use herald_types::{HerId, Receivers};

/// How many locks the registry is spread over, so that registering 1500 receivers does not hold up a wake-up for long.
const SHARDS: usize = 64;

/// Who waits for which receiver.
#[derive(Debug)]
pub(crate) struct Watches {
    // A plain mutex: held for one lookup, never across a wait.
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<HerId, Vec<Arc<Waiter>>>;

#[derive(Debug, Default)]
struct Waiter {
    // Set by the first wake-up and taken by the reader, so that a batch, and all batches until it looks, wake it once.
    woken: AtomicBool,
    waker: AtomicWaker,
}

impl Default for Watches {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Watches {
    fn shard(&self, receiver: HerId) -> std::sync::MutexGuard<'_, Shard> {
        let shard = &self.shards[receiver.get() as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(self: &Arc<Self>, receivers: Receivers) -> Watch {
        let waiter = Arc::new(Waiter::default());
        for &receiver in receivers.as_slice() {
            // Most receivers are followed by one stream; a vector would make room for four.
            let mut shard = self.shard(receiver);
            let waiters = shard.entry(receiver).or_insert_with(|| Vec::with_capacity(1));
            waiters.push(Arc::clone(&waiter));
        }
        Watch { waiter, receivers, watches: Arc::clone(self) }
    }

    /// Wakes all who watch one of `receivers`; returns how many.
    pub(crate) fn wake(&self, receivers: impl IntoIterator<Item = HerId>) -> usize {
        let mut woken = 0;
        for receiver in receivers {
            if let Some(waiters) = self.shard(receiver).get(&receiver) {
                woken += waiters.iter().filter(|waiter| waiter.wake()).count();
            }
        }
        woken
    }
}

impl Waiter {
    fn wake(&self) -> bool {
        let first = !self.woken.swap(true, Ordering::AcqRel);
        if first {
            self.waker.wake();
        }
        first
    }
}

/// A registration for wake-ups, until it is dropped. One task waits on it.
#[derive(Debug)]
pub struct Watch {
    waiter: Arc<Waiter>,
    receivers: Receivers,
    watches: Arc<Watches>,
}

impl Watch {
    /// Ready once after the tail has moved for one of the receivers since it was last ready.
    pub fn poll_woken(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiter.woken.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.waiter.waker.register(cx.waker());
        // Again behind the registration: a wake-up in between would otherwise be lost.
        if self.waiter.woken.swap(false, Ordering::AcqRel) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Waits until it is woken.
    pub async fn woken(&self) {
        poll_fn(|cx| self.poll_woken(cx)).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for &receiver in self.receivers.as_slice() {
            let mut shard = self.watches.shard(receiver);
            if let Some(waiters) = shard.get_mut(&receiver) {
                if let Some(at) =
                    waiters.iter().position(|waiter| Arc::ptr_eq(waiter, &self.waiter))
                {
                    waiters.swap_remove(at);
                }
                if waiters.is_empty() {
                    shard.remove(&receiver);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use herald_types::{Grant, HerIds};

    use super::*;

    fn receivers(numbers: impl IntoIterator<Item = u32>) -> Receivers {
        let her_ids = HerIds::new(numbers.into_iter().map(|number| HerId::new(number).unwrap()));
        Grant::everything().narrow(her_ids.unwrap()).unwrap()
    }

    #[test]
    fn a_batch_wakes_a_watch_once_and_only_for_its_receivers() {
        let watches = Arc::new(Watches::default());
        let watch = watches.register(receivers([1, 2, 3]));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(watch.poll_woken(&mut cx).is_pending());
        assert_eq!(watches.wake([HerId::new(4).unwrap()]), 0);
        assert_eq!(watches.wake([1, 3].map(|number| HerId::new(number).unwrap())), 1);
        assert!(watch.poll_woken(&mut cx).is_ready());
        assert!(watch.poll_woken(&mut cx).is_pending());
    }

    #[test]
    fn a_dropped_watch_leaves_nothing_behind() {
        let watches = Arc::new(Watches::default());
        let first = watches.register(receivers(1..=1500));
        let second = watches.register(receivers([7]));
        drop(first);
        assert_eq!(watches.wake([HerId::new(7).unwrap()]), 1);
        drop(second);
        assert!(watches.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
