//! Child processes that end with this one, however it ends.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

/// How often the end of a child is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a tool, such as `initdb`, may take.
const TOOL_WAIT: Duration = Duration::from_secs(120);
/// How many of its newest lines a process shows when its test fails.
const LINES_SHOWN: usize = 8;

/// A command that gets `death` when this process ends; as `user`, if one is named.
///
/// Where there is no `setpriv`, a child can outlive a parent that is killed.
pub(crate) fn command(program: &Path, death: &str, user: Option<&str>) -> Command {
    let has_setpriv =
        Path::new("/usr/bin/setpriv").is_file() || Path::new("/bin/setpriv").is_file();
    let mut command = if has_setpriv || user.is_some() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", death]);
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.arg("--").arg(program);
        command
    } else {
        Command::new(program)
    };
    command.stdin(Stdio::null());
    command
}

/// A child; dropping it kills it and all that it has started.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; all that it writes goes to the end of `log`.
    pub(crate) fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("could not open {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = spawn(command).with_context(|| format!("could not start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to it alone; nothing when it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            send(self.id(), signal);
        }
    }

    /// SIGKILL to it and all that it has started.
    pub(crate) fn kill(&mut self) {
        if self.is_running() {
            // Stopped first, so that it starts nothing while it is looked at.
            send(self.id(), Signal::STOP);
            for pid in descendants(self.id()) {
                send(pid, Signal::KILL);
            }
            send(self.id(), Signal::KILL);
        }
        self.child.wait().ok();
    }

    /// SIGSTOP to it and all that it has started.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::STOP);
        self.signal_descendants(Signal::STOP);
    }

    /// SIGCONT to them.
    pub(crate) fn go_on(&mut self) {
        self.signal_descendants(Signal::CONT);
        self.signal(Signal::CONT);
    }

    fn signal_descendants(&mut self, signal: Signal) {
        if self.is_running() {
            descendants(self.id()).into_iter().for_each(|pid| send(pid, signal));
        }
    }

    /// Sends a signal and waits for the end; what takes longer than `wait` is killed, and an error.
    pub(crate) async fn end(
        &mut self,
        signal: Signal,
        wait: Duration,
    ) -> anyhow::Result<ExitStatus> {
        self.signal(signal);
        let status = self.ended(wait).await;
        if status.is_err() {
            self.kill();
        }
        status
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self, wait: Duration) -> anyhow::Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > wait {
                bail!("{} has not ended within {wait:?}", self.name);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Those that it has started and that call themselves so now.
    pub(crate) fn children_called(&self, title: &str) -> Vec<Pid> {
        let mut children = descendants(self.id());
        children.retain(|child| {
            let line = fs::read(format!("/proc/{}/cmdline", child.as_raw_nonzero()));
            let line = line.unwrap_or_default();
            String::from_utf8_lossy(&line).trim_end_matches('\0') == title
        });
        children
    }

    /// Its id, as `kill` wants it.
    pub(crate) fn number(&self) -> u32 {
        self.child.id()
    }

    /// The newest lines that it has written.
    pub(crate) fn newest_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let newest = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        newest.iter().map(|line| format!("\n    {}: {line}", self.name)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.newest_lines().trim_start_matches('\n'));
        }
    }
}

/// Runs a tool to its end; what it printed.
pub(crate) async fn run(command: Command) -> anyhow::Result<String> {
    run_within(command, TOOL_WAIT).await
}

/// Runs a tool that must have ended within `wait`; what it printed.
pub(crate) async fn run_within(command: Command, wait: Duration) -> anyhow::Result<String> {
    let shown = shown(&command);
    let mut command = tokio::process::Command::from(command);
    let output = timeout(wait, command.kill_on_drop(true).output()).await;
    let output = output.with_context(|| format!("`{shown}` has not ended within {wait:?}"))?;
    let output = output.with_context(|| format!("could not start `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// One thread starts all children and never ends: the system kills them when the thread that started them ends, and a test's
/// or a runtime's may do so at any time.
static STARTS: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::channel::<Order>();
    thread::spawn(move || {
        for (mut command, answer) in orders {
            answer.send(command.spawn()).ok();
        }
    });
    sender
});

fn spawn(command: Command) -> anyhow::Result<Child> {
    let (sender, answer) = mpsc::channel();
    STARTS.send((command, sender)).context("nobody starts processes any more")?;
    Ok(answer.recv().context("nobody starts processes any more")??)
}

fn send(pid: Pid, signal: Signal) {
    // It may have ended by itself a moment ago.
    kill_process(pid, signal).ok();
}

/// All that a process has started, and what those have; PostgreSQL gives each of its own a process group, so that a group
/// does not hold them together.
fn descendants(root: Pid) -> Vec<Pid> {
    let all = parents();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Every process and its parent.
fn parents() -> Vec<(Pid, Pid)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| parent(entry.file_name().to_str()?)).collect()
}

fn parent(pid: &str) -> Option<(Pid, Pid)> {
    let id = Pid::from_raw(pid.parse().ok()?)?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have anything in it: state, parent.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    Some((id, Pid::from_raw(parent)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &Path) -> Process {
        let mut command = command(Path::new("/bin/sh"), "KILL", None);
        command.args(["-c", "sleep 600 & wait"]);
        Process::spawn("sleeper", command, log).unwrap()
    }

    async fn has_child(process: &Process) -> Pid {
        loop {
            if let Some(child) = descendants(process.id()).first() {
                return *child;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn state(pid: Pid) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Some(stat.rsplit_once(')')?.1.split_whitespace().next()?.to_owned())
    }

    async fn comes_to(pid: Pid, states: &[Option<&str>]) {
        while !states.contains(&state(pid).as_deref()) {
            sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn what_a_child_has_started_is_stopped_goes_on_and_is_killed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = sleeper(&dir.path().join("log"));
        let grandchild = has_child(&process).await;
        process.stop();
        comes_to(grandchild, &[Some("T")]).await;
        process.go_on();
        comes_to(grandchild, &[Some("S")]).await;
        process.stop();
        drop(process);
        comes_to(grandchild, &[None, Some("Z"), Some("X")]).await;
    }

    #[tokio::test]
    async fn a_child_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut process = thread::spawn(move || sleeper(&log)).join().unwrap();
        has_child(&process).await;
        assert!(process.is_running());
    }

    #[tokio::test]
    async fn a_tool_that_fails_says_how() {
        let mut command = command(Path::new("/bin/sh"), "KILL", None);
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = run(command).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3: because"), "{error}");
    }
}
