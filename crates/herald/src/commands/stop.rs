//! SIGINT and SIGTERM.

use std::{pin::pin, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout_at},
};

/// How long what is under way when a signal comes may still take, all of it together.
const FINISH_WITHIN: Duration = Duration::from_millis(1500);

/// Hears the signals that end a command.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// A signal has come, and this is when everything must be done.
    deadline: Option<Instant>,
}

/// A command that was asked to stop.
pub(crate) struct Stopped;

impl Stop {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let hear = |kind| signal(kind).context("could not listen for signals");
        let interrupt = hear(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: hear(SignalKind::terminate())?, deadline: None })
    }

    /// Waits for the next signal. May be dropped and called again.
    pub(crate) async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for the first signal; at once if it has come. May be dropped and called again.
    pub(crate) async fn asked(&mut self) {
        if self.deadline.is_none() {
            self.signal().await;
            self.deadline = Some(Instant::now() + FINISH_WITHIN);
        }
    }

    /// Whether a signal has come.
    pub(crate) fn was_asked(&self) -> bool {
        self.deadline.is_some()
    }

    /// Waits for `work`, or for a signal.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            biased;
            () = self.asked() => Err(Stopped),
            outcome = work => Ok(outcome),
        }
    }

    /// Waits for work that is finished even when a signal comes or has come; `None` if it takes too long then.
    pub(crate) async fn finish<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        match self.or(&mut work).await {
            Ok(outcome) => Some(outcome),
            Err(Stopped) => timeout_at(self.deadline?, work).await.ok(),
        }
    }
}
