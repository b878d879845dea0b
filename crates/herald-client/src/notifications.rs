//! Everything for a set of receivers, stored and live, for ever.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use futures_util::future::poll_fn;
use herald_types::{HerId, Offset};

use crate::{
    Client, Cursor, Error, LogPosition, Notification,
    cursor::Progress,
    run::{Output, Run, Server, Source},
};

/// What a client learns from [`Notifications::next`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A notification. Acknowledge it when it is handled.
    Notification(Notification),
    /// The cursor has moved without a notification: the server has looked further and found nothing.
    Moved,
    /// How the connection fares: for people.
    Status(Status),
}

/// How a connection fares.
#[derive(Debug)]
#[non_exhaustive]
pub enum Status {
    /// The stream delivers.
    Connected {
        /// What it was asked for: everything after this.
        after: Offset,
        /// What the server said about its log.
        position: LogPosition,
    },
    /// Something failed that may pass; the next try follows.
    Waiting {
        /// What failed.
        error: Error,
        /// How long until the next try.
        wait: Duration,
    },
    /// Streams do not deliver, so the client polls for the time being.
    Polling {
        /// What the stream failed with.
        error: Error,
        /// How long until a stream is tried again.
        stream_again: Duration,
    },
    /// The server has sent an offset that is not above the one before, against the page's rule. It was skipped: most likely it is
    /// a repeat, but one that came late is lost. Said once for each connection.
    NotAscending {
        /// The offset.
        offset: Offset,
        /// The newest one before it on this connection.
        after: Offset,
    },
    /// Retention has removed notifications that this client has not seen.
    Trimmed {
        /// Everything up to here has been handed out.
        after: Offset,
        /// The newest offset removed.
        trim: Offset,
    },
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { after, .. } => write!(f, "connected, after offset {after}"),
            Self::Waiting { error, wait } => {
                write!(f, "{}, trying again in {:.1} s", chain(error), wait.as_secs_f64())
            }
            Self::Polling { error, stream_again } => write!(
                f,
                "{}, polling instead, streaming is tried again in {:.0} s",
                chain(error),
                stream_again.as_secs_f64()
            ),
            Self::NotAscending { offset, after } => write!(
                f,
                "the server sent offset {offset} behind {after}, where offsets must rise: it was \
                 skipped, and is lost unless it is a repeat"
            ),
            Self::Trimmed { after, trim } => write!(
                f,
                "notifications after offset {after} up to {trim} may be missing: the server's \
                 retention has removed them"
            ),
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Notifications as they come; made by [`Client::notifications`].
///
/// Nothing happens unless [`Notifications::next`] is awaited: there is no task in the background, and no more than one
/// page or one piece of a stream in memory for each connection.
pub struct Notifications {
    cursor: Cursor,
    runs: Vec<Run<Box<dyn Source>>>,
    progress: Vec<Progress>,
    history: Arc<OnceLock<uuid::Uuid>>,
    /// Which run is asked first, so that a busy one does not starve the others.
    turn: usize,
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Notifications {
    pub(crate) fn new(client: &Client, cursor: Cursor) -> Self {
        Self::over(cursor, |receivers| {
            Box::new(Server { client: client.clone(), receivers: receivers.into() })
        })
    }

    /// The same with whatever stands for a server, one for the receivers of each run.
    pub(crate) fn over(
        cursor: Cursor,
        mut source: impl FnMut(&[HerId]) -> Box<dyn Source>,
    ) -> Self {
        let history = Arc::new(cursor.history().map_or_else(OnceLock::new, OnceLock::from));
        let runs = cursor.runs();
        let runs = runs
            .map(|(receivers, after)| Run::new(source(receivers), after, Arc::clone(&history)))
            .collect();
        let progress = cursor.offsets().iter().copied().map(Progress::new).collect();
        Self { cursor, runs, progress, history, turn: 0 }
    }

    /// The next notification, or what else there is to know. Waits for ever if nothing comes.
    ///
    /// May be dropped at any time and called again: nothing is lost or repeated by that.
    ///
    /// # Errors
    /// An [`Error`] that does not pass by itself. Everything else is tried again, for ever.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let (run, output) = self.output().await;
            if self.cursor.history().is_none()
                && let Some(history) = self.history.get()
            {
                self.cursor.set_history(*history);
            }
            match output? {
                Output::Notification(mut notification) => {
                    notification.run = run;
                    self.progress[run].hand_out(notification.offset());
                    return Ok(Event::Notification(notification));
                }
                Output::Looked(until) => {
                    let to = self.progress[run].look(until);
                    if self.advance(run, to) {
                        return Ok(Event::Moved);
                    }
                }
                Output::Status(status) => return Ok(Event::Status(status)),
            }
        }
    }

    /// Says that this notification, and every one before it on its connection, is handled.
    pub fn ack(&mut self, notification: &Notification) {
        let Some(progress) = self.progress.get_mut(notification.run) else { return };
        let to = progress.ack(notification.offset());
        self.advance(notification.run, to);
    }

    /// The cursor as [`ack`](Self::ack) of this notification would leave it.
    ///
    /// For a store that takes it in the same transaction as the work: commit both, then acknowledge. A transaction that fails
    /// leaves the cursor where it was.
    #[must_use]
    pub fn cursor_after(&self, notification: &Notification) -> Cursor {
        let mut cursor = self.cursor.clone();
        if let Some(mut progress) = self.progress.get(notification.run).copied() {
            cursor.advance(notification.run, progress.ack(notification.offset()));
        }
        cursor
    }

    /// Up to where everything is handled: what to keep, and to begin with the next time.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    fn advance(&mut self, run: usize, to: Offset) -> bool {
        let before = self.cursor.offsets()[run];
        self.cursor.advance(run, to);
        to > before
    }

    /// The first run that has something, and what.
    async fn output(&mut self) -> (usize, Result<Output, Error>) {
        if let [only] = self.runs.as_mut_slice() {
            return (0, only.next().await);
        }
        let count = self.runs.len();
        let first = self.turn;
        let mut nexts: Vec<_> = self.runs.iter_mut().map(|run| Box::pin(run.next())).collect();
        let output = pin!(poll_fn(|context| {
            for run in (first..count).chain(0..first) {
                if let Poll::Ready(output) = nexts[run].as_mut().poll(context) {
                    return Poll::Ready((run, output));
                }
            }
            Poll::Pending
        }));
        let (run, output) = output.await;
        self.turn = (run + 1) % count;
        (run, output)
    }
}
