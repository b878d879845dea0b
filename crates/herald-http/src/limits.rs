//! What one client may ask for: requests a second, and streams at once.
//!
//! A client is who a token says it is, so whoever calls without one is not counted here: those limits are the
//! connection's. Requests are counted by the generic cell rate algorithm: one time for each client, to which each
//! request adds its share of a second, and which may be ahead of the clock by a burst.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::limited::Limit;

/// How many requests a second one client may make, usually.
pub const CLIENT_REQUESTS_PER_SECOND: u32 = 1000;
/// How many streams one client may have open, usually.
pub const CLIENT_STREAMS_MAX: u32 = 1000;
/// How many seconds' worth of requests may come at once.
const BURST_SECONDS: u32 = 2;
/// After how long a client that has all the streams it may have should ask again.
const STREAMS_RETRY_AFTER: Duration = Duration::from_secs(10);
/// So many clients are known before it is looked for those that can be forgotten.
const SWEEP_MIN: usize = 1024;

/// What one client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Requests a second in the long run, at least 1; twice as many may come at once.
    /// [`CLIENT_REQUESTS_PER_SECOND`].
    pub requests_per_second: u32,
    /// Streams open at once; [`CLIENT_STREAMS_MAX`].
    pub streams_max: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { requests_per_second: CLIENT_REQUESTS_PER_SECOND, streams_max: CLIENT_STREAMS_MAX }
    }
}

/// A client has asked for more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// It has used up its requests.
    #[error("the client makes more than {per_second} requests a second")]
    Requests {
        /// How many it may make.
        per_second: u32,
        /// When the next one may come.
        retry_after: Duration,
    },
    /// It has all the streams that it may have.
    #[error("the client has {max} streams open")]
    Streams {
        /// How many it may have.
        max: u32,
    },
}

impl TooMany {
    /// After how long it is worth asking again.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match *self {
            Self::Requests { retry_after, .. } => retry_after,
            Self::Streams { .. } => STREAMS_RETRY_AFTER,
        }
    }
}

/// The clients of one server, and what each has used.
#[derive(Debug)]
pub struct Clients {
    limits: ClientLimits,
    // What all times are measured from, so that one fits into an atomic.
    epoch: Instant,
    // A plain mutex: held for a lookup, now and then for a pass; a signature was checked before it.
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    // Bounded by the clients that have a stream, or have asked within the burst, or were known at the last pass.
    clients: HashMap<Box<str>, Arc<Client>>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Client {
    // Up to when its requests are paid for, in nanoseconds.
    paid_until: AtomicU64,
    streams: AtomicU32,
}

/// A stream that a client has open, until it is dropped. As large as a pointer: a stream at rest keeps it.
#[derive(Debug)]
pub struct StreamSlot(Arc<Client>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    /// No client has asked for anything yet.
    #[must_use]
    pub fn new(limits: ClientLimits) -> Self {
        let known = Known { clients: HashMap::new(), sweep_at: SWEEP_MIN };
        Self { limits, epoch: Instant::now(), known: Mutex::new(known) }
    }

    /// One more request of `client`.
    ///
    /// # Errors
    /// [`TooMany::Requests`]: it must wait.
    pub fn admit(&self, client: &str) -> Result<(), TooMany> {
        let now = self.now();
        let share = self.share();
        let pay = |paid_until: u64| {
            let from = paid_until.max(now);
            (from - now <= self.ahead_max()).then_some(from + share)
        };
        let client = self.client(client, now);
        let paid = &client.paid_until;
        match paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay) {
            Ok(_) => Ok(()),
            Err(paid_until) => Err(self.too_many(paid_until, now)),
        }
    }

    /// Whether `client` could make one more request now; none is counted.
    ///
    /// # Errors
    /// [`TooMany::Requests`]: it must wait.
    pub fn check(&self, client: &str) -> Result<(), TooMany> {
        let now = self.now();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_until = known.clients.get(client).map(|client| &client.paid_until);
        let paid_until = paid_until.map_or(0, |paid_until| paid_until.load(Ordering::Relaxed));
        drop(known);
        if paid_until.saturating_sub(now) <= self.ahead_max() {
            Ok(())
        } else {
            Err(self.too_many(paid_until, now))
        }
    }

    /// What one request costs, in nanoseconds.
    fn share(&self) -> u64 {
        1_000_000_000 / u64::from(self.limits.requests_per_second.max(1))
    }

    /// How far a client may be ahead of the clock and still make a request: by all of a burst but this request.
    fn ahead_max(&self) -> u64 {
        let per_second = u64::from(self.limits.requests_per_second.max(1));
        self.share() * (per_second * u64::from(BURST_SECONDS) - 1)
    }

    fn too_many(&self, paid_until: u64, now: u64) -> TooMany {
        Limit::ClientRequests.met();
        TooMany::Requests {
            per_second: self.limits.requests_per_second.max(1),
            retry_after: Duration::from_nanos(paid_until - now - self.ahead_max()),
        }
    }

    /// One more stream of `client`, which counts until the slot is dropped.
    ///
    /// # Errors
    /// [`TooMany::Streams`]: it has all that it may have.
    pub fn open_stream(&self, client: &str) -> Result<StreamSlot, TooMany> {
        let max = self.limits.streams_max;
        let client = self.client(client, self.now());
        let one_more = |streams: u32| (streams < max).then_some(streams + 1);
        match client.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(StreamSlot(client)),
            Err(_) => {
                Limit::ClientStreams.met();
                Err(TooMany::Streams { max })
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn client(&self, id: &str, now: u64) -> Arc<Client> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.clients.get(id) {
            return Arc::clone(client);
        }
        if known.clients.len() >= known.sweep_at {
            // Nobody holds the others but this map, and a client that is not known has as much as one that rests.
            known.clients.retain(|_, client| {
                Arc::strong_count(client) > 1 || client.paid_until.load(Ordering::Relaxed) > now
            });
            known.sweep_at = (known.clients.len() * 2).max(SWEEP_MIN);
        }
        Arc::clone(known.clients.entry(id.into()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn clients(requests_per_second: u32, streams_max: u32) -> Clients {
        Clients::new(ClientLimits { requests_per_second, streams_max })
    }

    fn known(clients: &Clients) -> usize {
        clients.known.lock().unwrap().clients.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_burst_of_two_seconds_and_then_its_rate_and_others_do_not_notice() {
        let clients = clients(10, 1);
        for round in 0..3 {
            for request in 0..20 {
                assert!(clients.admit("a").is_ok(), "{round} {request}");
            }
            let too_many = clients.admit("a").unwrap_err();
            let retry_after = Duration::from_millis(100);
            assert_eq!(too_many, TooMany::Requests { per_second: 10, retry_after });
            assert_eq!(clients.check("a"), Err(too_many));
            assert!((0..30).all(|_| clients.check("b").is_ok()), "looking costs nothing");
            assert!(clients.admit("b").is_ok());
            advance(retry_after - Duration::from_millis(1)).await;
            assert!(clients.admit("a").is_err());
            advance(Duration::from_millis(1)).await;
            assert!(clients.admit("a").is_ok());
            assert!(clients.admit("a").is_err());
            advance(Duration::from_secs(2)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_as_many_streams_as_it_may_until_one_is_dropped() {
        let clients = clients(1, 2);
        let first = clients.open_stream("a").unwrap();
        let _second = clients.open_stream("a").unwrap();
        assert_eq!(clients.open_stream("a").unwrap_err(), TooMany::Streams { max: 2 });
        let _other = clients.open_stream("b").unwrap();
        drop(first);
        let _third = clients.open_stream("a").unwrap();
        assert!(clients.open_stream("a").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_rest_are_forgotten_and_those_with_a_stream_are_not() {
        let clients = clients(1000, 1);
        let _open = clients.open_stream("streams").unwrap();
        for number in 0..SWEEP_MIN * 10 {
            clients.admit(&number.to_string()).unwrap();
            advance(Duration::from_millis(1)).await;
        }
        assert!(known(&clients) <= SWEEP_MIN, "{}", known(&clients));
        assert!(clients.open_stream("streams").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_have_asked_just_now_are_not_forgotten() {
        let clients = clients(1, 1);
        let ids: Vec<_> = (0..SWEEP_MIN * 2).map(|number| number.to_string()).collect();
        for _ in 0..2 {
            ids.iter().for_each(|id| clients.admit(id).unwrap());
        }
        assert_eq!(known(&clients), ids.len());
        assert!(ids.iter().all(|id| clients.admit(id).is_err()));
    }

    #[test]
    fn a_slot_is_as_large_as_a_pointer() {
        assert_eq!(size_of::<Option<StreamSlot>>(), size_of::<usize>());
    }
}
