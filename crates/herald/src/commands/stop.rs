//! SIGINT and SIGTERM.

use std::{pin::pin, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

/// How long a line that is being printed, or a checkpoint that is being saved, may still take.
const FINISH_WITHIN: Duration = Duration::from_millis(1500);

/// Hears the signals that end a command.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

/// A command that was asked to stop.
pub(crate) struct Stopped;

impl Stop {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let hear = |kind| signal(kind).context("could not listen for signals");
        let interrupt = hear(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: hear(SignalKind::terminate())? })
    }

    /// Waits for a signal. May be dropped and called again.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for `work`, or for a signal.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            () = self.asked() => Err(Stopped),
            outcome = work => Ok(outcome),
        }
    }

    /// Waits for work that is finished even when a signal comes, unless that takes too long.
    ///
    /// Returns what came of it, and whether a signal came.
    pub(crate) async fn finish<T>(&mut self, work: impl Future<Output = T>) -> (Option<T>, bool) {
        let mut work = pin!(work);
        match self.or(&mut work).await {
            Ok(outcome) => (Some(outcome), false),
            Err(Stopped) => (timeout(FINISH_WITHIN, work).await.ok(), true),
        }
    }
}
