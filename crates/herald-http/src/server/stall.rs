//! Cuts an HTTP/2 stream whose reader takes nothing while others on its connection go on.
//!
//! The socket's guard does not see such a reader: the connection is alive, only this stream's window is shut. hyper asks a
//! body for the next piece only when the last one has found room, so a piece that was handed over long ago, with nothing
//! asked for since, is a reader that takes nothing. hyper runs each HTTP/2 request in a task of its own; the executor puts
//! the guard around that task, and dropping the task resets the stream.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::Executor;
use metrics::counter;
use pin_project_lite::pin_project;
use tokio::{
    task_local,
    time::{Instant, Sleep, sleep_until},
};
use tracing::debug;

use crate::metrics::HTTP_STALLED;

task_local! {
    static HANDED: Handed;
}

/// When the piece was handed over that has not found room yet. Clones are the same stream's.
#[derive(Clone, Debug, Default)]
pub(super) struct Handed(Arc<Mutex<Option<Instant>>>);

impl Handed {
    /// That of the HTTP/2 request whose task this is; over HTTP/1.1 there is none.
    pub(super) fn of_this_task() -> Option<Self> {
        HANDED.try_with(Self::clone).ok()
    }

    pub(super) fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns the tasks of HTTP/2 requests, each with its guard.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuardedExecutor {
    pub(super) stall_timeout: Duration,
}

impl<F> Executor<F> for GuardedExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let handed = Handed::default();
        let guarded = Guarded {
            task,
            handed: handed.clone(),
            stall_timeout: self.stall_timeout,
            timer: None,
        };
        tokio::spawn(HANDED.scope(handed, guarded));
    }
}

pin_project! {
    struct Guarded<F> {
        #[pin]
        task: F,
        handed: Handed,
        stall_timeout: Duration,
        // Boxed and made only while a piece waits for room.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(handed_at) = this.handed.get() else {
            *this.timer = None;
            return Poll::Pending;
        };
        let deadline = handed_at + *this.stall_timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        counter!(HTTP_STALLED, "what" => "stream").increment(1);
        debug!("reader takes nothing, resetting the stream");
        Poll::Ready(())
    }
}
