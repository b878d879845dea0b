//! When the trim point moves, and the work that waits for no one: sealing full segments, removing trimmed ones.

use std::{io, sync::Arc, time::Duration};

use herald_types::with_causes;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    Clock,
    meters::{HeldMeters, size},
    sequencer::Handle,
    surroundings,
    view::View,
};

/// The longest time between two looks; a notification is hidden within 10 s of its time.
const ROUND_MAX: Duration = Duration::from_secs(5);
/// The shortest.
const ROUND_MIN: Duration = Duration::from_millis(100);
/// A segment is rolled when it is older than this part of the retention, so that its disk space comes back in time.
const SEGMENTS_PER_RETENTION: u32 = 10;

/// Keeps the view in order behind the sequencer's back.
pub(crate) struct Keeper {
    pub(crate) view: Arc<View>,
    pub(crate) sequencer: Handle,
    pub(crate) clock: Clock,
    pub(crate) retention: Option<Duration>,
    /// Once it is true, or nobody is left to say so, the keeper ends; long work between two of its pieces.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Keeper {
    /// Runs until it is told to stop; then nothing of it works on the disk any more.
    ///
    /// Trimming and tidying go on beside each other: sealing many segments takes longer than a notification may still
    /// be shown.
    pub(crate) async fn run(self) {
        tokio::join!(self.retain_rounds(), self.tidy_rounds());
    }

    async fn retain_rounds(&self) {
        let Some(retention) = self.retention else { return };
        let mut rounds = Rounds::new(self);
        while rounds.next().await {
            self.retain(retention).await;
        }
    }

    async fn tidy_rounds(&self) {
        let meters = HeldMeters::new();
        let mut rounds = Rounds::new(self);
        while rounds.next().await {
            let (view, stopping) = (Arc::clone(&self.view), self.stopping.clone());
            let tidied = surroundings::spawn_blocking(move || {
                tidy(&view, || !*stopping.borrow()).map(|()| view.held())
            });
            match tidied.await {
                Ok(Ok(held)) => {
                    meters.bytes.set(size(usize::try_from(held.bytes).unwrap_or(usize::MAX)));
                    meters.segments.set(size(held.segments));
                    meters.receivers.set(size(held.receivers));
                }
                Ok(Err(error)) => {
                    let error = with_causes(&error);
                    tracing::warn!(error, "could not seal or remove segments, will try again");
                }
                Err(panic) => {
                    tracing::error!(error = with_causes(&panic), "sealing failed");
                }
            }
        }
    }

    async fn retain(&self, retention: Duration) {
        let now_ms = (self.clock)();
        let age_ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let trim_before_ms = now_ms.saturating_sub(age_ms(retention));
        let roll_before_ms = now_ms.saturating_sub(age_ms(retention / SEGMENTS_PER_RETENTION));
        let view = Arc::clone(&self.view);
        let looked = surroundings::spawn_blocking(move || {
            // A directory in doubt is said by health and by every append.
            let _ = view.roll_if_older(roll_before_ms);
            view.offset_at(trim_before_ms)
        });
        match looked.await {
            Ok(Ok(Some(offset))) => self.sequencer.trim(offset).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::error!(error = with_causes(&error), "could not find what to trim");
            }
            Err(panic) => {
                tracing::error!(error = with_causes(&panic), "looking for what to trim failed");
            }
        }
    }
}

/// When it is time to look again.
struct Rounds {
    rounds: Interval,
    stopping: watch::Receiver<bool>,
}

impl Rounds {
    fn new(keeper: &Keeper) -> Self {
        let round = keeper.retention.map_or(ROUND_MAX, |retention| {
            (retention / SEGMENTS_PER_RETENTION).clamp(ROUND_MIN, ROUND_MAX)
        });
        let mut rounds = interval(round);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { rounds, stopping: keeper.stopping.clone() }
    }

    /// Waits for the next round; `false` when there is none.
    async fn next(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => false,
            _ = self.rounds.tick() => true,
        }
    }
}

fn tidy(view: &View, go_on: impl Fn() -> bool) -> io::Result<()> {
    view.remove_trimmed()?;
    view.seal(go_on)
}
