//! Other programs: shown as they are run, and an error when they fail.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, bail};

use crate::leaks;

/// Whether all that commands print is looked at for secrets: they then have no terminal.
static LOOKS: AtomicBool = AtomicBool::new(false);

/// From now on all that commands print is looked at for secrets, on its way to where it is printed.
pub(crate) fn look_at_output() {
    LOOKS.store(true, Ordering::Relaxed);
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where tools that the machine lacks are installed; ignored by git.
pub(crate) fn tools() -> PathBuf {
    root().join(".tools")
}

/// A command in the workspace's root that also finds the programs under `.tools/bin`.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools().join("bin")).chain(std::env::split_paths(&path));
    if let Ok(joined) = std::env::join_paths(paths) {
        command.env("PATH", joined);
    }
    command
}

/// `cargo` with these arguments, separated by spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split_whitespace());
    command
}

/// Shows the command, runs it, and fails if it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    eprintln!("$ {shown}");
    let looks = LOOKS.load(Ordering::Relaxed);
    let outcome = if looks { look_at(command) } else { Ok((command.status(), Vec::new())) };
    let (status, leaks) =
        outcome.with_context(|| format!("could not read what `{shown}` printed"))?;
    let status = status.with_context(|| format!("could not start `{shown}`"))?;
    leaks::refuse(&leaks).with_context(|| format!("`{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs the command and passes on what it prints; how it ended, and which secrets were in that.
fn look_at(command: &mut Command) -> anyhow::Result<(io::Result<ExitStatus>, Vec<leaks::Leak>)> {
    if io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Ok((Err(error), Vec::new())),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = (stdout.context("stdout is piped")?, stderr.context("stderr is piped")?);
    // Both at once, or the one that nobody reads would stop the command.
    let (on_stdout, on_stderr) = thread::scope(|scope| {
        let reading = scope.spawn(|| leaks::pass_on(stdout, io::stdout()));
        let on_stderr = leaks::pass_on(stderr, io::stderr());
        (reading.join().expect("reading does not panic"), on_stderr)
    });
    let mut leaks = on_stdout?;
    leaks.extend(on_stderr?);
    Ok((child.wait(), leaks))
}

/// Whether the command can be run and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// What the command printed on stdout.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let output = command.output().with_context(|| format!("could not start `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}: {stderr}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not print text"))
}

/// The command as one would type it; the values of the environment that it adds come first.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let settings = command.get_envs().filter_map(|(name, value)| {
        let shown = format!("{}={}", name.display(), value?.display());
        (name != "PATH").then_some(shown)
    });
    let arguments = command.get_args().map(|argument| argument.display().to_string());
    let program = std::iter::once(program.display().to_string());
    settings.chain(program).chain(arguments).collect::<Vec<_>>().join(" ")
}
