//! Which clients have a stream now, and for how long one had none.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// How many clients have a stream. Clones count together.
#[derive(Clone)]
pub(crate) struct Connected(Arc<watch::Sender<Counts>>);

#[derive(Default)]
struct Counts {
    now: usize,
    ever: usize,
}

impl Connected {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Waits until so many have one at the same time.
    pub(crate) async fn now(&self, count: usize) {
        let mut counts = self.0.subscribe();
        counts.wait_for(|counts| counts.now == count).await.expect("its sender is here");
    }

    /// Waits until so many have had one.
    pub(crate) async fn ever(&self, count: usize) {
        let mut counts = self.0.subscribe();
        counts.wait_for(|counts| counts.ever == count).await.expect("its sender is here");
    }
}

/// A time in which a client had no stream.
#[derive(Debug)]
pub(crate) struct Absence {
    /// How often it tried until it had one.
    pub(crate) tries: u32,
    /// What it had to wait between tries, by the server's wish and its own backoff.
    pub(crate) waits: Duration,
    pub(crate) lasted: Duration,
}

/// One client's view of its own stream.
pub(crate) struct Presence {
    connected: Connected,
    is_connected: bool,
    was_connected: bool,
    away: Option<(Instant, u32, Duration)>,
    pub(crate) absences: Vec<Absence>,
}

impl Presence {
    /// Of a client that has never had a stream.
    pub(crate) fn new(connected: Connected) -> Self {
        let absences = Vec::new();
        Self { connected, is_connected: false, was_connected: false, away: None, absences }
    }

    pub(crate) fn connected(&mut self) {
        self.is_connected = true;
        let is_first = !std::mem::replace(&mut self.was_connected, true);
        self.connected.0.send_modify(|counts| {
            counts.now += 1;
            counts.ever += usize::from(is_first);
        });
        if let Some((since, tries, waits)) = self.away.take() {
            self.absences.push(Absence { tries, waits, lasted: since.elapsed() });
        }
    }

    /// Its stream has ended, or could not be opened; it tries again after `wait`.
    pub(crate) fn waits(&mut self, wait: Duration) {
        if std::mem::take(&mut self.is_connected) {
            self.connected.0.send_modify(|counts| counts.now -= 1);
        }
        let (_, tries, waits) = self.away.get_or_insert((Instant::now(), 0, Duration::ZERO));
        *tries += 1;
        *waits += wait;
    }
}
