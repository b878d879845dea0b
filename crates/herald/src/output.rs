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

/// Writes text for people to stdout, in colour only on a terminal.
pub(crate) fn print_styled(text: &str) -> anyhow::Result<()> {
    let choice = anstream::AutoStream::choice(&io::stdout());
    let mut plain = anstream::AutoStream::new(Vec::new(), choice);
    plain.write_all(text.as_bytes())?;
    print(&plain.into_inner())
}

/// Says something to people. That nobody can hear it is no reason to stop.
pub(crate) fn say(text: impl Display) {
    let dim = Style::new().dimmed();
    let _ = writeln!(anstream::stderr(), "{dim}{text}{dim:#}");
}

/// Whether somebody looks at stderr, where a progress bar goes.
pub(crate) fn has_viewer() -> bool {
    io::stderr().is_terminal()
}

/// Says what went wrong and returns the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<StdoutClosed>() {
        return ExitCode::SUCCESS;
    }
    if let Some(WrongUsage(what)) = error.downcast_ref() {
        let _ = crate::cli::Cli::command().error(ErrorKind::ValueValidation, what).print();
        return 2.into();
    }
    let red = AnsiColor::Red.on_default().bold();
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {error:#}");
    ExitCode::FAILURE
}
