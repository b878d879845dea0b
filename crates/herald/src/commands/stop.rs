//! SIGINT and SIGTERM.

use std::{pin::pin, thread, time::Duration};

use anyhow::Context as _;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

/// How long what is under way when a signal comes may still take, all of it together.
const FINISH_WITHIN: Duration = Duration::from_millis(1500);
/// When a command that has not ended by then is ended: something that cannot be given up, like a write to a terminal that takes
/// nothing, keeps its only thread.
const END_AFTER: Duration = Duration::from_millis(1900);

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

    /// As [`Stop::new`], and if the command has not ended [`END_AFTER`] the first signal, it is ended with this exit code.
    pub(crate) fn certain(code: i32) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("could not listen for signals")?;
        let mut heard = {
            let _guard = runtime.enter();
            Self::new()?
        };
        thread::spawn(move || {
            runtime.block_on(async {
                heard.signal().await;
                sleep(END_AFTER).await;
            });
            std::process::exit(code);
        });
        Self::new()
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
