//! The client in a process of its own, so that its allocations are not the server's: one line on stdin is one step, one
//! line on stdout says that the step is done.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use crate::client::{Connection, Stream};

const DONE: &str = "done\n";

/// The process that asks; dropping it ends it.
pub(crate) struct Remote {
    child: Child,
    steps: ChildStdin,
    done: BufReader<ChildStdout>,
    // Kept, so that waiting for a step allocates nothing.
    line: String,
}

impl Remote {
    /// Starts this binary once more as a client of the server at `address`.
    pub(crate) fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("this program has no path")?;
        let mut child = Command::new(this)
            .args(["client", &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the client")?;
        let steps = child.stdin.take().expect("stdin is piped");
        let done = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Ok(Self { child, steps, done, line: String::with_capacity(DONE.len()) })
    }

    /// Asks `count` times for `path`, one after the other on the same connection.
    pub(crate) fn get(&mut self, count: usize, path: &str) -> anyhow::Result<()> {
        self.step(&format!("get {count} {path}\n"))
    }

    /// Appends `count` drafts for one receiver in one request.
    pub(crate) fn append(&mut self, count: usize, her_id: u32) -> anyhow::Result<()> {
        self.step(&format!("append {count} {her_id}\n"))
    }

    /// Appends one draft for one receiver, `count` times; each time waits for the event of each open stream of this one.
    pub(crate) fn append_one_by_one(&mut self, count: usize, her_id: u32) -> anyhow::Result<()> {
        self.step(&format!("one-by-one {count} {her_id}\n"))
    }

    /// Opens `count` streams, for one receiver each, the first for `her_id`; they stay open.
    pub(crate) fn open_streams(&mut self, count: u32, her_id: u32) -> anyhow::Result<()> {
        self.step(&format!("streams {count} {her_id}\n"))
    }

    fn step(&mut self, step: &str) -> anyhow::Result<()> {
        self.steps.write_all(step.as_bytes()).context("the client has ended")?;
        self.line.clear();
        self.done.read_line(&mut self.line)?;
        ensure!(self.line == DONE, "the client has failed, see above");
        Ok(())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The other side: makes the steps until stdin ends.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    let mut streams: Vec<(u32, Stream)> = Vec::new();
    for step in io::stdin().lock().lines() {
        let step = step?;
        let words: Vec<&str> = step.split(' ').collect();
        match words[..] {
            ["get", count, path] => {
                for _ in 0..count.parse()? {
                    connection.get(path)?;
                }
            }
            ["append", count, her_id] => connection.append(count.parse()?, her_id.parse()?)?,
            ["one-by-one", count, her_id] => {
                let her_id = her_id.parse()?;
                for _ in 0..count.parse()? {
                    connection.append(1, her_id)?;
                    for (_, stream) in streams.iter_mut().filter(|(of, _)| *of == her_id) {
                        stream.events(1)?;
                    }
                }
            }
            ["streams", count, her_id] => {
                let (count, first): (u32, u32) = (count.parse()?, her_id.parse()?);
                for her_id in first..first + count {
                    streams.push((her_id, Stream::open(address, her_id, 0)?));
                }
            }
            _ => bail!("there is no such step: {step}"),
        }
        io::stdout().write_all(DONE.as_bytes())?;
    }
    Ok(())
}
