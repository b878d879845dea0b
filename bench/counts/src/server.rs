//! The real `herald serve`, alone or under strace.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{client::Connection, trace::Trace};

/// How long a start may take before the count fails; never waited for when all is well.
const START_WAIT: Duration = Duration::from_secs(60);
/// How much of what is written and read the trace shows: enough for the line of a mark, and to tell events from heartbeats.
const SHOWN_BYTES: &str = "256";

/// A running server; dropping it kills it.
pub(crate) struct Server {
    /// strace, or the server itself.
    child: Child,
    trace: Option<PathBuf>,
    address: SocketAddr,
}

impl Server {
    /// Starts the server on `data_dir` and waits until it answers.
    pub(crate) fn start(herald: &Path, data_dir: &Path) -> anyhow::Result<Self> {
        Self::run(Command::new(herald), None, data_dir)
    }

    /// The same with each system call written into the file `trace`.
    pub(crate) fn start_traced(
        herald: &Path,
        data_dir: &Path,
        trace: &Path,
    ) -> anyhow::Result<Self> {
        let mut strace = Command::new("strace");
        // -yy: which file or connection a call is about.
        strace.args(["-f", "-yy", "-qq", "--signal=none", "-s", SHOWN_BYTES, "-o"]);
        strace.arg(trace).arg(herald);
        Self::run(strace, Some(trace.to_owned()), data_dir)
    }

    fn run(mut command: Command, trace: Option<PathBuf>, dir: &Path) -> anyhow::Result<Self> {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HERALD_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            // Nothing happens by itself while something is counted, and a stop waits for nobody.
            .args(["--heartbeat", "1h", "--stream-max-age", "24h", "--retention", "forever"])
            .args(["--drain", "0s"])
            .args(["--log-format", "json", "--log-level", "info", "--data-dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {command:?}"))?;
        let log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (said, address) = mpsc::channel();
        thread::spawn(move || {
            // To its end: a server that cannot write its log would wait.
            for line in log.lines().map_while(Result::ok) {
                match api_address(&line) {
                    Some(address) => drop(said.send(address)),
                    None if !line.starts_with('{') => eprintln!("{line}"),
                    None => {}
                }
            }
        });
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, trace, address: unknown };
        let address = address.recv_timeout(START_WAIT);
        server.address = address.context("the server did not say where it listens")?;
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(refused) = Connection::open(self.address)?.get("/ping") {
            ensure!(began.elapsed() < START_WAIT, "the server does not get ready: {refused}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server in order; gives the trace of all that it did.
    pub(crate) fn stop(mut self) -> anyhow::Result<Trace> {
        self.signal("-TERM")?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended with {status}");
        }
        let trace = self.trace.as_ref().map(fs::read).transpose()?;
        Ok(Trace::new(&trace.unwrap_or_default()))
    }

    /// To the server and not to strace, which would leave it alone.
    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = match &self.trace {
            None => self.child.id().to_string(),
            Some(trace) => first_word(&fs::read_to_string(trace)?)?,
        };
        Command::new("kill").args([name, &id]).status().context("kill is not here")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("-KILL").ok();
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Every line of a trace begins with the id of its thread, the first one with that of the process.
fn first_word(trace: &str) -> anyhow::Result<String> {
    Ok(trace.split_whitespace().next().context("the trace is empty")?.to_owned())
}

fn api_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("\"api\":\"")?;
    rest.split('"').next()?.parse().ok()
}
