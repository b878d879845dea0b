//! `herald stream`.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use herald_client::{
    CheckpointError, CheckpointFile, Cursor, Error, Event, Notification, Notifications, Status,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use super::stop::Stop;
use crate::{
    cli::StreamArgs,
    output::{self, StdoutClosed, WrongUsage},
};

/// How often to look, while nothing comes, whether anybody still reads stdout.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Without a checkpoint after each line, so many lines that have come already are printed at once.
const PRINT_AT_ONCE_MAX: usize = 256;

/// Streams until told to stop.
pub(crate) async fn run(args: StreamArgs) -> anyhow::Result<()> {
    let stop = Stop::new()?;
    let client = args.server.client()?;
    let file = args.checkpoint.as_ref().map(CheckpointFile::open).transpose()?;
    let cursor = start(&args, file.as_ref())?;
    let now = Instant::now();
    let stream = Stream {
        notifications: client.notifications(cursor),
        checkpoint: file.map(|file| Checkpoint {
            file: Some(file),
            every: args.checkpoint_every,
            saved_at: now,
            moved: false,
        }),
        left: args.max.unwrap_or(u64::MAX),
        idle_exit: args.idle_exit,
        idle_since: now,
        stop,
    };
    stream.run().await
}

/// Where to begin: where the checkpoint is, else at `--offset`.
fn start(args: &StreamArgs, file: Option<&CheckpointFile>) -> anyhow::Result<Cursor> {
    if let Some(kept) = file.map(|file| file.cursor_of(&args.her_ids)).transpose()?.flatten() {
        return Ok(kept);
    }
    let Some(offset) = args.offset else {
        let what =
            "there is no checkpoint yet, so --offset must say where to begin (0 is the oldest)";
        return Err(WrongUsage(what.to_owned()).into());
    };
    Cursor::new(args.her_ids.iter().copied(), offset).context("no HER-id was given")
}

struct Stream {
    notifications: Notifications,
    checkpoint: Option<Checkpoint>,
    /// How many notifications may still be printed.
    left: u64,
    idle_exit: Option<Duration>,
    idle_since: Instant,
    stop: Stop,
}

struct Checkpoint {
    /// Away only while it is being saved.
    file: Option<CheckpointFile>,
    /// `None` is after each line.
    every: Option<Duration>,
    saved_at: Instant,
    moved: bool,
}

enum Next {
    Event(Result<Event, Error>),
    SaveDue,
    Idle,
    Stopped,
    Look,
}

impl Stream {
    async fn run(mut self) -> anyhow::Result<()> {
        let outcome = self.until_the_end().await;
        let saved = if self.moved() { self.save().await.map(drop) } else { Ok(()) };
        outcome.and(saved)
    }

    async fn until_the_end(&mut self) -> anyhow::Result<()> {
        while self.left > 0 {
            match self.next().await {
                Next::Event(event) => match event.map_err(|error| self.ended(error))? {
                    Event::Notification(first) => {
                        if self.print(first).await? {
                            break;
                        }
                        self.idle_since = Instant::now();
                    }
                    Event::Status(status) => {
                        output::say(&status);
                        if let Status::Connected { .. } = status {
                            // The history is known now, and a start without a line is a place to begin, too.
                            self.moved_now();
                        }
                    }
                    _ => self.moved_now(),
                },
                Next::Look if output::stdout_is_closed() => return Err(StdoutClosed.into()),
                Next::SaveDue | Next::Look => {}
                Next::Idle | Next::Stopped => break,
            }
            if self.save_due() && self.save().await? {
                break;
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Next {
        let save_at = match &self.checkpoint {
            Some(Checkpoint { every: Some(every), saved_at, moved: true, .. }) => {
                Some(*saved_at + *every)
            }
            _ => None,
        };
        let idle_at = self.idle_exit.map(|idle| self.idle_since + idle);
        tokio::select! {
            biased;
            () = self.stop.asked() => Next::Stopped,
            () = at(save_at) => Next::SaveDue,
            event = self.notifications.next() => Next::Event(event),
            () = at(idle_at) => Next::Idle,
            () = sleep(LOOK_EVERY) => Next::Look,
        }
    }

    /// Prints a notification, and others that have come already if no checkpoint has to follow each; then they are handled.
    ///
    /// Returns whether a signal came.
    async fn print(&mut self, first: Notification) -> anyhow::Result<bool> {
        let mut printed = vec![first];
        let mut after = None;
        let each = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.every.is_none());
        let limit = if each { 1 } else { PRINT_AT_ONCE_MAX as u64 }.min(self.left);
        while (printed.len() as u64) < limit && after.is_none() {
            match self.notifications.next().now_or_never() {
                Some(Ok(Event::Notification(notification))) => printed.push(notification),
                Some(other) => after = Some(other),
                None => break,
            }
        }
        let mut lines = Vec::new();
        for notification in &printed {
            lines.extend_from_slice(notification.raw().as_bytes());
            lines.push(b'\n');
        }
        let (outcome, stopped) =
            self.stop.finish(spawn_blocking(move || output::print(&lines))).await;
        // Not printed to its end: not handled.
        let Some(outcome) = outcome else { return Ok(true) };
        outcome?;
        for notification in &printed {
            self.notifications.ack(notification);
        }
        self.left -= printed.len() as u64;
        self.moved_now();
        match after {
            Some(Ok(Event::Status(status))) => output::say(status),
            Some(Err(error)) => return Err(self.ended(error)),
            Some(Ok(_)) | None => {}
        }
        Ok(stopped)
    }

    /// Why it ended for good, and which file is to blame if one is.
    fn ended(&self, error: Error) -> anyhow::Error {
        let file = self.checkpoint.as_ref().and_then(|checkpoint| checkpoint.file.as_ref());
        let what = match (&error, file) {
            (Error::OtherHistory { .. }, Some(file)) => {
                format!("the checkpoint {} is not of this server's log", file.path().display())
            }
            _ => "the stream has ended for good".to_owned(),
        };
        anyhow::Error::new(error).context(what)
    }

    fn moved(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.moved)
    }

    fn moved_now(&mut self) {
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.moved = true;
        }
    }

    fn save_due(&self) -> bool {
        let due = |checkpoint: &Checkpoint| {
            checkpoint.moved
                && checkpoint.every.is_none_or(|every| checkpoint.saved_at.elapsed() >= every)
        };
        self.checkpoint.as_ref().is_some_and(due)
    }

    /// Saves the cursor. Returns whether a signal came.
    async fn save(&mut self) -> anyhow::Result<bool> {
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(false) };
        let Some(mut file) = checkpoint.file.take() else { return Ok(true) };
        let cursor = self.notifications.cursor().clone();
        checkpoint.moved = false;
        let saving = spawn_blocking(move || {
            let outcome: Result<(), CheckpointError> = file.save(&cursor);
            (file, outcome)
        });
        let (outcome, stopped) = self.stop.finish(saving).await;
        let Some((file, outcome)) = outcome else { return Ok(true) };
        checkpoint.file = Some(file);
        outcome?;
        checkpoint.saved_at = Instant::now();
        Ok(stopped)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
