//! `herald stream`.

mod view;

use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use herald_client::{
    CheckpointError, CheckpointFile, Client, Consumer, ConsumerError, Error, Event, HelseId,
    Notification, Start,
};
use tokio::time::{Instant, sleep, sleep_until};

use self::view::View;
use super::stop::Stop;
use crate::{
    cli::StreamArgs,
    output::{self, StdoutClosed, WrongUsage},
    readable,
};

/// How often to look, while nothing comes, whether anybody still reads stdout.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Without a checkpoint after each line, so many lines that have come already are printed at once.
const PRINT_AT_ONCE_MAX: usize = 256;
/// How long to wait when the server cannot say yet where now is.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A consumer without a checkpoint begins where it is told, each time.
type Checkpoint = Option<CheckpointFile>;
type Failure = ConsumerError<CheckpointError>;

/// Streams until told to stop.
pub(crate) async fn run(args: StreamArgs) -> anyhow::Result<()> {
    let mut stop = Stop::certain(0)?;
    let client = args.server.client(HelseId::READ_SCOPE)?;
    let Ok(consumer) = stop.or(begin(&client, &args)).await else { return Ok(()) };
    let stream = Stream {
        consumer: consumer?.save_every(args.checkpoint_every.unwrap_or_default()),
        print_at_once: if args.checkpoint.is_some() && args.checkpoint_every.is_none() {
            1
        } else {
            PRINT_AT_ONCE_MAX
        },
        is_readable: output::has_reader() && !args.ndjson,
        view: View::new(),
        left: args.max.unwrap_or(u64::MAX),
        idle_since: Instant::now(),
        is_stuck: false,
        stop,
        args,
    };
    stream.run().await
}

/// Where the checkpoint is, else where the flags say.
async fn begin(client: &Client, args: &StreamArgs) -> anyhow::Result<Consumer<Checkpoint>> {
    let start = if args.from_now { Some(Start::Now) } else { args.offset.map(Start::After) };
    loop {
        let checkpoint = args.checkpoint.as_ref().map(CheckpointFile::new);
        let her_ids = args.her_ids.iter().copied();
        match client.consumer(her_ids, checkpoint, start).await {
            Ok(consumer) => return Ok(consumer),
            Err(ConsumerError::Client(error)) if error.is_retryable() => {
                let error = anyhow::Error::new(error);
                let wait = ASK_AGAIN.as_secs();
                output::say(format!("{error:#}, asking again where now is in {wait} s"));
                if output::stdout_is_closed() {
                    return Err(StdoutClosed.into());
                }
                sleep(ASK_AGAIN).await;
            }
            Err(error) => return Err(explain(error, args)),
        }
    }
}

/// Why it cannot go on, and which file is to blame if one is.
fn explain(error: Failure, args: &StreamArgs) -> anyhow::Error {
    let file = args.checkpoint.as_ref().map(|file| file.display());
    match (&error, file) {
        (ConsumerError::NoCheckpoint, _) => WrongUsage(
            "there is no checkpoint yet, so --offset (0 is the oldest) or --from-now must say where to begin"
                .to_owned(),
        )
        .into(),
        (ConsumerError::Checkpoint(_), _) => error.into(),
        (ConsumerError::OtherReceivers { .. }, Some(file)) => {
            let what = format!("the checkpoint {file} cannot be used");
            anyhow::Error::new(error).context(what)
        }
        (ConsumerError::Client(Error::OtherHistory { .. }), Some(file)) => {
            let what = format!("the checkpoint {file} is not of this server's log");
            anyhow::Error::new(error).context(what)
        }
        _ => anyhow::Error::new(error).context("the stream has ended for good"),
    }
}

struct Stream {
    args: StreamArgs,
    consumer: Consumer<Checkpoint>,
    /// How many lines may be printed before they are acknowledged.
    print_at_once: usize,
    /// Lines for people instead of the server's objects.
    is_readable: bool,
    view: View,
    /// How many notifications may still be printed.
    left: u64,
    idle_since: Instant,
    /// Lines that nobody reads were given up on; the bar is still theirs.
    is_stuck: bool,
    stop: Stop,
}

enum Next {
    Event(Result<Event, Failure>),
    Idle,
    Stopped,
    Look,
}

impl Stream {
    async fn run(mut self) -> anyhow::Result<()> {
        let outcome = self.until_the_end().await;
        let saved = self.stop.finish(self.consumer.save()).await;
        if !self.is_stuck {
            self.view.end();
        }
        outcome?;
        match saved {
            Some(saved) => saved.context("the last lines may come again"),
            None => {
                output::say(
                    "the checkpoint could not be saved in time, the last lines may come again",
                );
                Ok(())
            }
        }
    }

    async fn until_the_end(&mut self) -> anyhow::Result<()> {
        while self.left > 0 {
            match self.next().await {
                Next::Event(Ok(Event::Notification(first))) => {
                    self.print(first).await?;
                    self.idle_since = Instant::now();
                }
                Next::Event(event) => {
                    self.note(event)?;
                    // What is no notification may come so fast that nothing else is looked at.
                    if self.args.idle_exit.is_some_and(|idle| self.idle_since.elapsed() >= idle) {
                        break;
                    }
                }
                Next::Look if output::stdout_is_closed() => return Err(StdoutClosed.into()),
                Next::Look => self.view.look(),
                Next::Idle | Next::Stopped => break,
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Next {
        let idle_at = self.args.idle_exit.map(|idle| self.idle_since + idle);
        tokio::select! {
            biased;
            () = self.stop.asked() => Next::Stopped,
            event = self.consumer.next() => Next::Event(event),
            () = at(idle_at) => Next::Idle,
            () = sleep(LOOK_EVERY) => Next::Look,
        }
    }

    /// What is no notification.
    fn note(&mut self, event: Result<Event, Failure>) -> anyhow::Result<()> {
        match event.map_err(|error| explain(error, &self.args))? {
            Event::Status(status) => self.view.note(&status, self.consumer.cursor()),
            _ => self.view.moved(self.consumer.cursor()),
        }
        Ok(())
    }

    /// Prints a notification, and others that have come already if no checkpoint has to follow each; then they are handled.
    async fn print(&mut self, first: Notification) -> anyhow::Result<()> {
        let mut printed = vec![first];
        let mut after = None;
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.print_at_once);
        while printed.len() < limit && after.is_none() {
            match self.consumer.next().now_or_never() {
                Some(Ok(Event::Notification(notification))) => printed.push(notification),
                Some(other) => after = Some(other),
                None => break,
            }
        }
        let printing = output::print_above(self.view.bar(), self.lines(&printed)?);
        let Some(outcome) = self.stop.finish(printing).await else {
            // A signal came, and nobody reads: not printed to its end is not handled.
            self.is_stuck = true;
            return Ok(());
        };
        outcome?;
        for notification in &printed {
            // Given up for a signal, it is not saved, and said so at the end.
            let saved = self.stop.finish(self.consumer.ack(notification)).await;
            saved.unwrap_or(Ok(())).map_err(|error| explain(error, &self.args))?;
        }
        self.left -= printed.len() as u64;
        self.view.printed(&printed, self.consumer.cursor());
        after.map_or(Ok(()), |event| self.note(event))
    }

    fn lines(&self, notifications: &[Notification]) -> anyhow::Result<Vec<u8>> {
        if self.is_readable {
            return output::styled(&notifications.iter().map(readable::line).collect::<String>());
        }
        let mut lines = Vec::new();
        for notification in notifications {
            lines.extend_from_slice(notification.raw().as_bytes());
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
