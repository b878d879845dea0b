//! The binary as a command: what it printed, and how it ended.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdout, Stdio},
};

use super::server::{assert_no_secret, herald};

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; -1 if a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it printed for programs.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// The last thing that it said to people.
    pub(crate) fn last_word(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

/// Runs a command to its end, with nothing on stdin.
pub(crate) fn run(args: &[&str]) -> Ended {
    run_with_input(args, "")
}

/// Runs a command to its end, with these variables in its environment.
pub(crate) fn run_with_variables(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut running = Running::start_with(args, variables);
    running.stdin("");
    running.wait()
}

/// Runs a command to its end.
pub(crate) fn run_with_input(args: &[&str], input: &str) -> Ended {
    let mut running = Running::start(args);
    // A command that reads no stdin may have ended already.
    running.stdin(input);
    running.wait()
}

/// A command that goes on; dropping it kills it.
pub(crate) struct Running {
    child: Child,
    /// `None` once nobody reads it any more.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = herald()
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        Self { child, stdout: Some(BufReader::new(stdout)) }
    }

    /// Writes to its stdin and closes that.
    pub(crate) fn stdin(&mut self, input: &str) {
        let mut stdin = self.child.stdin.take().expect("stdin is piped");
        stdin.write_all(input.as_bytes()).ok();
    }

    /// The next line that it prints, or `None` when it has closed stdout.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stdout.as_mut()?.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    /// Waits until it writes no more to stdout, which nobody reads: the pipe is full but for what its pages leave over.
    pub(crate) fn is_stuck(&self) {
        let stdout = self.stdout.as_ref().expect("stdout is still there").get_ref();
        let half = rustix::pipe::fcntl_getpipe_size(stdout).expect("a pipe") as u64 / 2;
        let mut before = 0;
        loop {
            let waiting = rustix::io::ioctl_fionread(stdout).expect("a pipe");
            if waiting > half && waiting == before {
                return;
            }
            before = waiting;
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill is a program").success(), "it was still there");
    }

    /// Waits until it has said something to people.
    pub(crate) fn heard_on_stderr(&mut self) {
        let pipe = self.child.stderr.as_mut().expect("stderr is piped");
        pipe.read_exact(&mut [0]).expect("it says something");
    }

    /// Reads what is left and waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut stdout = String::new();
        while let Some(line) = self.line() {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let (code, stderr) = self.end();
        for line in stdout.lines().chain(stderr.lines()) {
            assert_no_secret("the command", line);
        }
        Ended { code, stdout, stderr }
    }

    /// Nobody reads its stdout any more.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Waits for its end without reading anything; its exit code.
    pub(crate) fn wait_unread(&mut self) -> Option<i32> {
        self.child.wait().expect("a child").code()
    }

    /// Waits for its end without reading its stdout.
    pub(crate) fn end(&mut self) -> (i32, String) {
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().expect("stderr is piped");
        pipe.read_to_string(&mut stderr).expect("stderr is text");
        let status = self.child.wait().expect("a child");
        (status.code().unwrap_or(-1), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
