//! Who is connected, at which offset, how far behind; and what tells all of them to end.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use atomic_waker::AtomicWaker;
use herald_types::Offset;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::Instant;

/// How many source systems are counted by name; streams of further ones are counted together.
pub const SOURCE_SYSTEMS_MAX: usize = 256;
/// The name under which streams are counted when [`SOURCE_SYSTEMS_MAX`] names are taken.
pub const SOURCE_SYSTEM_OTHER: &str = "(other)";

/// The open streams of this server. Clones are the same registry.
#[derive(Clone, Debug)]
pub struct OpenStreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // What all times of the registry are measured from, so that one fits into an atomic.
    epoch: Instant,
    // A plain mutex: held for a lookup, or for one pass at a stop or a scrape; never across a wait.
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    next_number: u64,
    streams: HashMap<u64, Arc<Entry>>,
    by_source_system: HashMap<Arc<str>, usize>,
    drain: Option<Range<Instant>>,
}

/// Handles made once: making one costs a lookup.
#[derive(Debug)]
pub(crate) struct Metrics {
    open: Gauge,
    pub(crate) events: Counter,
    pub(crate) heartbeats: Counter,
    pub(crate) wakeups: Counter,
}

/// What the registry and one stream share.
struct Entry {
    ends_at_ms: AtomicU64,
    until: AtomicU64,
    // Whether the reader has taken all there is for it; otherwise it is behind the tail.
    at_rest: AtomicBool,
    taken_at_ms: AtomicU64,
    ending: AtomicWaker,
    permit: Option<Permit>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry")
    }
}

/// Says whether a stream may still go on. It is kept as long as the stream is open, and asked when it opens, before each
/// page that it hands out, and whenever permissions may have changed: it should be cheap while they have not.
pub type Permit = Box<dyn Fn() -> bool + Send + Sync>;

/// How far readers are behind the tail, in offsets, and for how long one has taken nothing of what waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLag {
    /// The largest distance of a stream from the tail.
    pub offsets_max: u64,
    /// The longest time for which a reader has taken nothing although something waits.
    pub stalled_max: Duration,
}

impl Default for OpenStreams {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenStreams {
    /// None yet. Install the metrics recorder first: the handles are made here.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            epoch: Instant::now(),
            state: Mutex::default(),
            metrics: Metrics {
                open: gauge!("herald_open_streams"),
                events: counter!("herald_events_sent_total"),
                heartbeats: counter!("herald_heartbeats_sent_total"),
                wakeups: counter!("herald_stream_wakeups_total"),
            },
        }))
    }

    /// How many streams are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.state().streams.len()
    }

    /// How many streams each source system has open, at most [`SOURCE_SYSTEMS_MAX`] names and
    /// [`SOURCE_SYSTEM_OTHER`], by name.
    #[must_use]
    pub fn by_source_system(&self) -> Vec<(Arc<str>, usize)> {
        let mut counts: Vec<_> = self
            .0
            .state()
            .by_source_system
            .iter()
            .map(|(name, &count)| (Arc::clone(name), count))
            .collect();
        counts.sort_unstable();
        counts
    }

    /// How far the slowest reader is behind `tail`. A stream at rest is behind nothing.
    #[must_use]
    pub fn lag(&self, tail: Offset) -> StreamLag {
        let now_ms = self.0.millis(Instant::now());
        let mut lag = StreamLag::default();
        for entry in self.0.state().streams.values() {
            if !entry.at_rest.load(Ordering::Relaxed) {
                let behind = tail.get().saturating_sub(entry.until.load(Ordering::Relaxed));
                let stalled_ms = now_ms.saturating_sub(entry.taken_at_ms.load(Ordering::Relaxed));
                lag.offsets_max = lag.offsets_max.max(behind);
                lag.stalled_max = lag.stalled_max.max(Duration::from_millis(stalled_ms));
            }
        }
        lag
    }

    /// Moves the end of every stream to a moment of `window`, spread evenly; one that would end sooner still does.
    ///
    /// A stream that is opened from now on ends within the window too. Only the first call counts.
    pub fn drain(&self, window: Range<Instant>) {
        let mut state = self.0.state();
        if state.drain.is_some() {
            return;
        }
        let streams: Vec<Arc<Entry>> = state.streams.values().cloned().collect();
        state.drain = Some(window.clone());
        drop(state);
        let step = (window.end - window.start)
            .checked_div(u32::try_from(streams.len()).unwrap_or(u32::MAX))
            .unwrap_or_default();
        for (number, entry) in (0_u32..).zip(&streams) {
            // Each in its own slice of the window, anywhere in it: evenly, but not in step with anything.
            let end = window.start + step * number + step.mul_f64(rand::random_range(0.0..1.0));
            entry.ends_at_ms.fetch_min(self.0.millis(end), Ordering::Relaxed);
            entry.ending.wake();
        }
    }

    /// Ends every stream at once whose permit does not hold any more; how many that are.
    pub fn recheck(&self) -> usize {
        let streams: Vec<Arc<Entry>> = self.0.state().streams.values().cloned().collect();
        let now_ms = self.0.millis(Instant::now());
        let lost = streams.iter().filter(|entry| !entry.is_permitted());
        lost.inspect(|entry| {
            entry.ends_at_ms.fetch_min(now_ms, Ordering::Relaxed);
            entry.ending.wake();
        })
        .count()
    }

    pub(crate) fn open(
        &self,
        source_system: &str,
        after: Offset,
        ends_at: Instant,
        permit: Option<Permit>,
    ) -> OpenStream {
        let mut state = self.0.state();
        let ends_at = match &state.drain {
            Some(window) => {
                let end = (window.end - window.start).mul_f64(rand::random_range(0.0..1.0));
                ends_at.min(window.start + end)
            }
            None => ends_at,
        };
        let entry = Arc::new(Entry {
            ends_at_ms: AtomicU64::new(self.0.millis(ends_at)),
            until: AtomicU64::new(after.get()),
            at_rest: AtomicBool::new(false),
            taken_at_ms: AtomicU64::new(self.0.millis(Instant::now())),
            ending: AtomicWaker::new(),
            permit,
        });
        let number = state.next_number;
        state.next_number += 1;
        state.streams.insert(number, Arc::clone(&entry));
        let source_system = state.count_source_system(source_system);
        drop(state);
        // Only now: a change before it is found here, one behind it by `recheck`.
        if !entry.is_permitted() {
            entry.ends_at_ms.store(0, Ordering::Relaxed);
        }
        self.0.metrics.open.increment(1.0);
        OpenStream { registry: self.clone(), entry, number, source_system }
    }
}

impl Entry {
    fn is_permitted(&self) -> bool {
        self.permit.as_ref().is_none_or(|permit| permit())
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

impl State {
    /// The shared name under which a stream of `source_system` is counted.
    fn count_source_system(&mut self, source_system: &str) -> Arc<str> {
        let is_known = self.by_source_system.contains_key(source_system);
        let name = if is_known || self.by_source_system.len() < SOURCE_SYSTEMS_MAX {
            source_system
        } else {
            SOURCE_SYSTEM_OTHER
        };
        let name = match self.by_source_system.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(name),
        };
        *self.by_source_system.entry(Arc::clone(&name)).or_default() += 1;
        name
    }

    fn close(&mut self, number: u64, source_system: &Arc<str>) {
        self.streams.remove(&number);
        if let Some(count) = self.by_source_system.get_mut(source_system) {
            *count -= 1;
            if *count == 0 {
                self.by_source_system.remove(source_system);
            }
        }
    }
}

/// One stream's place in the registry, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    registry: OpenStreams,
    entry: Arc<Entry>,
    number: u64,
    source_system: Arc<str>,
}

impl OpenStream {
    pub(crate) fn ends_at(&self) -> Instant {
        let ends_at_ms = self.entry.ends_at_ms.load(Ordering::Relaxed);
        self.registry.0.epoch + Duration::from_millis(ends_at_ms)
    }

    pub(crate) fn is_permitted(&self) -> bool {
        self.entry.is_permitted()
    }

    /// Wakes `waker` when the end has moved.
    pub(crate) fn register(&self, waker: &Waker) {
        self.entry.ending.register(waker);
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.registry.0.metrics
    }

    /// The reader asks for more: it has taken all that was handed out.
    pub(crate) fn asked(&self, now: Instant) {
        self.entry.taken_at_ms.store(self.registry.0.millis(now), Ordering::Relaxed);
    }

    /// Something has been handed out; everything up to `until` with it.
    pub(crate) fn handed_out(&self, until: Offset) {
        self.entry.until.store(until.get(), Ordering::Relaxed);
        self.entry.at_rest.store(false, Ordering::Relaxed);
    }

    /// The reader has taken all there is, up to `until`.
    pub(crate) fn rests(&self, until: Offset) {
        self.entry.until.store(until.get(), Ordering::Relaxed);
        self.entry.at_rest.store(true, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.registry.0.state().close(self.number, &self.source_system);
        self.registry.0.metrics.open.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn offset(number: u64) -> Offset {
        Offset::new(number).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_spreads_the_ends_evenly_over_its_window() {
        let streams = OpenStreams::new();
        let now = Instant::now();
        let open: Vec<_> =
            (0..100).map(|_| streams.open("a", Offset::ZERO, now + HOUR, None)).collect();
        let soon = streams.open("a", Offset::ZERO, now + Duration::from_secs(1), None);
        let window = now + Duration::from_secs(10)..now + Duration::from_secs(20);
        streams.drain(window.clone());
        streams.drain(now + HOUR..now + HOUR);
        let late = streams.open("a", Offset::ZERO, now + HOUR, None);
        assert!((window.start..=window.end).contains(&late.ends_at()));
        assert_eq!(soon.ends_at(), now + Duration::from_secs(1));
        let mut tenths = [0; 10];
        for stream in &open {
            assert!((window.start..=window.end).contains(&stream.ends_at()));
            let second = (stream.ends_at() - window.start).as_secs().min(9);
            tenths[usize::try_from(second).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (8..=12).contains(count)), "{tenths:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn source_systems_are_counted_by_name_up_to_a_bound() {
        let streams = OpenStreams::new();
        let ends_at = Instant::now() + HOUR;
        let open: Vec<_> = (0..SOURCE_SYSTEMS_MAX + 2)
            .map(|number| streams.open(&number.to_string(), Offset::ZERO, ends_at, None))
            .collect();
        let again = streams.open("0", Offset::ZERO, ends_at, None);
        let counts = streams.by_source_system();
        assert_eq!(counts.len(), SOURCE_SYSTEMS_MAX + 1);
        assert_eq!(counts[0], (Arc::from(SOURCE_SYSTEM_OTHER), 2));
        assert_eq!(counts[1], (Arc::from("0"), 2));
        drop((open, again));
        assert_eq!((streams.count(), streams.by_source_system().len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_stream_that_has_not_taken_all_is_behind() {
        let streams = OpenStreams::new();
        let open = streams.open("a", offset(3), Instant::now() + HOUR, None);
        open.rests(offset(5));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(streams.lag(offset(9)), StreamLag::default());
        open.asked(Instant::now());
        open.handed_out(offset(6));
        tokio::time::advance(Duration::from_secs(2)).await;
        let behind = StreamLag { offsets_max: 3, stalled_max: Duration::from_secs(2) };
        assert_eq!(streams.lag(offset(9)), behind);
    }
}
