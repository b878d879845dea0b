//! What a replica does now and then for its copy and for the engine, beside everything else.

use std::{sync::Arc, time::Duration};

use herald_types::with_causes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use uuid::Uuid;

use crate::{
    Clock,
    order::{
        condition::{ConditionMeters, Shared},
        engine::{Engine, Forgettable, kept_for},
    },
    sequencer::Handle,
    surroundings,
    view::View,
};

/// How often the gauges are set.
const ROUND: Duration = Duration::from_millis(500);
/// What was added to the view is synced so often; what a power cut takes away is followed again.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// How often the engine is told what it may forget.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps view, engine and gauges in order.
pub(crate) struct Upkeep<E> {
    pub(crate) engine: Arc<E>,
    pub(crate) view: Arc<View>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sequencer: Handle,
    /// What ages are counted by, where something may go because of its age.
    pub(crate) ages: Clock,
    /// And the engine's clock, which it removes what is old by.
    pub(crate) stamps: Clock,
    pub(crate) retention: Option<Duration>,
    pub(crate) log_id: Uuid,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl<E: Engine> Upkeep<E> {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) {
        let meters = ConditionMeters::new();
        let mut stopping = self.stopping.clone();
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut synced, mut forgot) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                _ = rounds.tick() => {}
            }
            meters.set(&self.shared);
            if synced.elapsed() >= SYNC_INTERVAL {
                self.sync().await;
                synced = Instant::now();
            }
            if forgot.elapsed() >= FORGET_INTERVAL {
                self.forget().await;
                forgot = Instant::now();
            }
        }
    }

    async fn sync(&self) {
        let view = Arc::clone(&self.view);
        if let Ok(Err(error)) = surroundings::spawn_blocking(move || view.sync()).await
            && !self.view.is_poisoned()
        {
            tracing::error!(error = with_causes(&error), "could not sync the view");
        }
    }

    /// The engine forgets what no view shows; and it always holds a batch that carries the next offset, so that a log
    /// whose records have all aged out does not begin at 1 again.
    async fn forget(&mut self) {
        let Some(retention) = self.retention else { return };
        if self.shared.refused().is_some() || self.shared.is_suspicious() {
            return;
        }
        let marks = self.view.marks();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kept = kept_for(retention);
        // A copy that has just begun does not know the time of the batch before it.
        if marks.next_offset > 1
            && marks.time_ms > 0
            && (self.stamps)().saturating_sub(marks.time_ms) > ms(kept / 2)
        {
            self.sequencer.carry().await;
        }
        let before_ms = (self.ages)().saturating_sub(ms(kept));
        let log_id = self.log_id;
        let forgettable = Forgettable { log_id, trim_point: marks.trim_point, before_ms };
        if let Err(error) = self.engine.forget(forgettable).await {
            tracing::debug!(
                error = with_causes(&error),
                "the engine could not be told what to forget"
            );
        }
    }
}
