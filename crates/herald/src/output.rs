//! Stdout for programs, stderr for people, and what becomes the exit code.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{
    CommandFactory as _,
    builder::styling::{AnsiColor, Style},
    error::ErrorKind,
};
use indicatif::ProgressBar;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::spawn_blocking;

/// Nobody reads stdout any more: a quiet end, not an error.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(crate) struct StdoutClosed;

/// The command line asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(pub(crate) String);

/// Writes whole lines to stdout and flushes them.
pub(crate) fn print(lines: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(lines).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("could not write to stdout")),
        Ok(()) => Ok(()),
    }
}

/// Writes whole lines to stdout above a bar, on a thread for blocking work: nobody may be reading.
///
/// While a terminal takes nothing, the bar is locked: who gives up waiting for this must not touch it any more.
pub(crate) async fn print_above(bar: &ProgressBar, lines: Vec<u8>) -> anyhow::Result<()> {
    let bar = bar.clone();
    let printing = spawn_blocking(move || match bar.is_hidden() {
        true => print(&lines),
        false => bar.suspend(|| print(&lines)),
    });
    printing.await.expect("printing does not panic")
}

/// Whether the reading end of stdout is gone: something that has nothing to print would not notice otherwise.
pub(crate) fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec::default();
    let closed = PollFlags::ERR | PollFlags::HUP;
    poll(&mut asked, Some(&at_once)).is_ok() && asked[0].revents().intersects(closed)
}

/// Text for people as stdout should have it: in colour only on a terminal.
pub(crate) fn styled(text: &str) -> anyhow::Result<Vec<u8>> {
    let choice = anstream::AutoStream::choice(&io::stdout());
    let mut plain = anstream::AutoStream::new(Vec::new(), choice);
    plain.write_all(text.as_bytes())?;
    Ok(plain.into_inner())
}

/// Whether somebody looks at stdout, and no program reads it.
pub(crate) fn has_reader() -> bool {
    io::stdout().is_terminal()
}

/// Says something to people. That nobody can hear it is no reason to stop.
pub(crate) fn say(text: impl Display) {
    let (dim, text) = (Style::new().dimmed(), tame(&text.to_string()));
    let _ = writeln!(anstream::stderr(), "{dim}{text}{dim:#}");
}

/// Text for a terminal, on one line, without what would move the cursor, change colours or turn the direction of writing:
/// anybody may have written it.
pub(crate) fn tame(text: &str) -> String {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') || turns(c), " ")
}

/// Whether somebody looks at stderr, where a progress bar goes.
pub(crate) fn has_viewer() -> bool {
    io::stderr().is_terminal()
}

/// The command that was given, whose usage is told.
fn command() -> clap::Command {
    let mut command = crate::cli::Cli::command();
    command.build();
    for name in std::env::args_os().skip(1) {
        let Some(given) = command.find_subcommand(&name) else { break };
        command = given.clone();
    }
    command
}

/// Says what went wrong and returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<StdoutClosed>() {
        return ExitCode::SUCCESS;
    }
    if let Some(WrongUsage(what)) = error.downcast_ref() {
        let _ = command().error(ErrorKind::ValueValidation, what).print();
        return 2.into();
    }
    let red = AnsiColor::Red.on_default().bold();
    let what = tame(&format!("{error:#}"));
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {what}");
    ExitCode::FAILURE
}
