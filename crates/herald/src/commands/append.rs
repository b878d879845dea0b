//! `herald append`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use herald_client::{Appended, Client, HelseId, drafts::Batch};
use herald_types::Draft;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::stop::{Stop, Stopped};
use crate::{
    cli::AppendArgs,
    output::{self, WrongUsage},
};

/// The longest line that is read, its end included; the server takes much shorter ones.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// How many lines may wait to be sent.
const LINES_WAITING_MAX: usize = 256;
/// A batch that has a line waits no longer for more, so that a slow producer's lines do not lie here.
const GATHER_TIME: Duration = Duration::from_millis(100);

/// Appends what the flags or the lines say.
pub(crate) async fn run(args: AppendArgs) -> anyhow::Result<()> {
    let client = args.server.client(HelseId::PUBLISH_SCOPE)?;
    let mut stop = Stop::certain(1)?;
    if let Some(draft) = draft(&args) {
        let Some(appended) = stop.finish(client.append([draft])).await else {
            bail!("stopped by a signal before there was an answer; it may be stored");
        };
        let lines = lines_of(&appended.context("not appended")?);
        let no_bar = ProgressBar::hidden();
        return match stop.finish(output::print_above(&no_bar, lines)).await {
            Some(printed) => printed,
            None => bail!("it is stored, but stopped by a signal before the answer was printed"),
        };
    }
    let (input, length) = open(args.file.as_deref())?;
    let lines = read_lines(input);
    Append {
        client,
        lines,
        progress: progress(length),
        appended: 0,
        number: 0,
        is_stuck: false,
        stop,
    }
    .run()
    .await
}

/// What the flags say; they come together or not at all.
fn draft(args: &AppendArgs) -> Option<Draft> {
    Some(Draft {
        notification_id: args.notification_id,
        triggered_by: args.triggered_by,
        description: args.description.clone(),
        ..Draft::new(args.kind?, args.message_id?, args.her_id?)
    })
}

/// The lines' source and its length in bytes, if it has one.
fn open(file: Option<&Path>) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        if io::stdin().is_terminal() {
            output::say("reading drafts from the terminal, one a line; Ctrl-D ends");
        }
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    };
    let wrong = |error: io::Error| WrongUsage(format!("--file {}: {error}", path.display()));
    let file = File::open(path).map_err(wrong)?;
    let metadata = file.metadata().map_err(wrong)?;
    if metadata.is_dir() {
        return Err(wrong(io::ErrorKind::IsADirectory.into()).into());
    }
    Ok((Box::new(BufReader::new(file)), metadata.is_file().then_some(metadata.len())))
}

type Line = anyhow::Result<Vec<u8>>;

/// Reads lines in a thread of their own: reading stdin cannot be given up. It ends with the input or with the receiver.
fn read_lines(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        loop {
            let line = match read_line(&mut input) {
                Ok(line) if line.is_empty() => return,
                line => line,
            };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    lines
}

/// The next line with its end, or nothing at the end of the input.
fn read_line(input: &mut impl BufRead) -> Line {
    let mut line = Vec::new();
    let mut input = input.take(LINE_BYTES_MAX + 1);
    input.read_until(b'\n', &mut line).context("could not read the drafts")?;
    if line.len() as u64 > LINE_BYTES_MAX {
        bail!("a line has more than {LINE_BYTES_MAX} bytes");
    }
    Ok(line)
}

struct Append {
    client: Client,
    lines: mpsc::Receiver<Line>,
    progress: ProgressBar,
    /// How many lines were answered for.
    appended: u64,
    /// How many lines were read.
    number: u64,
    /// Answers that nobody reads were given up on; the bar is still theirs.
    is_stuck: bool,
    stop: Stop,
}

impl Append {
    async fn run(mut self) -> anyhow::Result<()> {
        let outcome = self.until_the_end().await;
        if !self.is_stuck {
            self.progress.finish_and_clear();
        }
        let appended = self.appended;
        if outcome.is_ok() && appended == 0 {
            output::say("there was nothing to append");
        }
        outcome.with_context(|| format!("{appended} lines were answered for, then"))
    }

    async fn until_the_end(&mut self) -> anyhow::Result<()> {
        loop {
            let mut batch = Batch::new();
            let gathered = gather(&mut batch, &mut self.lines, &mut self.number, &self.progress);
            match self.stop.or(gathered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let first = batch.first().unwrap_or(self.number);
                    return Err(error.context(format!("nothing from line {first} on was sent")));
                }
                // Everything was sent and answered, and there is nothing more.
                Err(Stopped)
                    if batch.is_empty() && self.lines.is_closed() && self.lines.is_empty() =>
                {
                    return Ok(());
                }
                Err(Stopped) => bail!(
                    "stopped by a signal; nothing from line {} on was sent",
                    batch.first().unwrap_or(self.number + 1)
                ),
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.send(&batch).await?;
        }
    }

    async fn send(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let Some(outcome) = self.stop.finish(self.client.append_lines(batch.body())).await else {
            bail!(
                "stopped by a signal before line {} and those behind it were answered for",
                batch.first().unwrap_or_default()
            );
        };
        let appended = outcome.map_err(|error| batch.locate(error)).context("not appended")?;
        self.appended += batch.len() as u64;
        self.progress.set_message(format!("{} lines", self.appended));
        let printing = output::print_above(&self.progress, lines_of(&appended));
        match self.stop.finish(printing).await {
            Some(printed) => printed,
            None => {
                self.is_stuck = true;
                bail!("stopped by a signal before all answers were printed")
            }
        }
    }
}

/// The next lines, as many as are there; an empty batch at the end of the input.
async fn gather(
    batch: &mut Batch,
    lines: &mut mpsc::Receiver<Line>,
    number: &mut u64,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let mut deadline = None;
    while !batch.is_full() {
        let line = match deadline {
            None => lines.recv().await,
            Some(deadline) => match timeout_at(deadline, lines.recv()).await {
                Ok(line) => line,
                Err(_) => break,
            },
        };
        let Some(line) = line else { break };
        *number += 1;
        let line = line.with_context(|| format!("line {number}"))?;
        progress.inc(line.len() as u64);
        batch.push(*number, &line);
        if !batch.is_empty() {
            deadline.get_or_insert_with(|| Instant::now() + GATHER_TIME);
        }
    }
    Ok(())
}

fn lines_of(appended: &Appended) -> Vec<u8> {
    let mut lines = Vec::new();
    for answer in &appended.answers {
        lines.extend_from_slice(answer.raw().as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// How far it is, on stderr, where that is a terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    if !output::has_viewer() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(bytes) => {
            (ProgressBar::new(bytes), "{bar:30} {bytes}/{total_bytes}, {msg}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}"),
    };
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
