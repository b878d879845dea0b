//! The real `herald serve` as a process of its own.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::secrets::found_in;

/// How long a start may take before the test fails; never waited for when all is well.
const START_WAIT: Duration = Duration::from_secs(60);
/// How many of its newest log lines a server shows when its test fails.
const LOG_LINES_SHOWN: usize = 12;

/// How long its metrics may take that are looked at last.
const METRICS_WAIT: Duration = Duration::from_secs(10);

/// A running server; dropping it kills it, and looks whether it has told a secret.
pub(crate) struct Server {
    child: Child,
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    /// Where health and metrics are.
    pub(crate) ops: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    following: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on `data_dir` with free ports and waits until it is ready.
    pub(crate) async fn start(data_dir: &Path, flags: &[&str]) -> Self {
        let mut server = Self::launch(data_dir, flags).listening();
        server.ready().await;
        server
    }

    /// Starts a server with more in its environment and waits until it is ready.
    pub(crate) async fn start_in(
        environment: &[(&str, OsString)],
        data_dir: &Path,
        flags: &[&str],
    ) -> Self {
        let mut server = Self::launch_in(environment, data_dir, flags).listening();
        server.ready().await;
        server
    }

    /// Starts a server and waits for nothing.
    pub(crate) fn launch(data_dir: &Path, flags: &[&str]) -> Launched {
        Self::launch_in(&[], data_dir, flags)
    }

    fn launch_in(environment: &[(&str, OsString)], data_dir: &Path, flags: &[&str]) -> Launched {
        // All that Herald has to say, so that there is something to look at.
        let level: &[_] =
            if flags.contains(&"--log-level") { &[] } else { &["--log-level", "trace"] };
        let mut child = herald()
            .envs(environment.iter().cloned())
            .args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(data_dir)
            .args(flags)
            .args(level)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::default();
        let (addresses, received) = mpsc::channel();
        let stderr = child.stderr.take().expect("stderr is piped");
        let following = std::thread::spawn({
            let log = Arc::clone(&log);
            move || follow(stderr, &log, &addresses)
        });
        Launched { child, log, following, addresses: received }
    }

    async fn ready(&mut self) {
        let client = super::http::client();
        let url = format!("http://{}/health/ready", self.ops);
        let began = Instant::now();
        loop {
            if client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            assert!(began.elapsed() < START_WAIT, "the server does not become ready");
            assert!(self.child.try_wait().expect("a child").is_none(), "the server ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The base of the API's URLs.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// SIGKILL: what is not on the disk is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("a child");
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.terminate()
    }

    /// SIGTERM, and how it ended; for a server that has a place to be replaced in.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.child.wait().expect("a child")
    }

    /// Sends a signal, such as `-TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        Command::new("kill").args([name, &id]).status().expect("kill is a program");
    }

    /// Waits until it has ended by itself; how it ended, and its log.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("a child");
        if let Some(following) = self.following.take() {
            following.join().expect("following the log does not panic");
        }
        (status, self.log.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let metrics = if std::thread::panicking() { None } else { self.metrics() };
        self.child.kill().ok();
        self.child.wait().ok();
        // What it has written is there to its last line when its end is read.
        if let Some(following) = self.following.take() {
            following.join().ok();
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if std::thread::panicking() {
            for line in &log[log.len().saturating_sub(LOG_LINES_SHOWN)..] {
                eprintln!("server: {line}");
            }
            return;
        }
        for line in
            log.iter().map(String::as_str).chain(metrics.iter().flat_map(|text| text.lines()))
        {
            assert_no_secret("the server", line);
        }
    }
}

impl Server {
    /// Its metrics, if it is still there to tell them. Without a runtime: a test's is not there any more when this is asked.
    fn metrics(&mut self) -> Option<String> {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return None;
        }
        let mut socket = TcpStream::connect_timeout(&self.ops, METRICS_WAIT).ok()?;
        socket.set_read_timeout(Some(METRICS_WAIT)).ok()?;
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

/// That no token, proof or key stands in a line that `who` has written; the failure does not repeat it.
#[track_caller]
pub(crate) fn assert_no_secret(who: &str, line: &str) {
    if let Some(kind) = found_in(line) {
        panic!("{who} has written {kind} in a line of {} characters", line.len());
    }
}

/// A server that may not listen yet.
pub(crate) struct Launched {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    following: JoinHandle<()>,
    addresses: mpsc::Receiver<(SocketAddr, SocketAddr)>,
}

impl Launched {
    /// Waits until both ports are bound.
    pub(crate) fn listening(self) -> Server {
        let Self { mut child, log, following, addresses } = self;
        let Ok((api, ops)) = addresses.recv_timeout(START_WAIT) else {
            child.kill().ok();
            child.wait().ok();
            panic!("the server did not say where it listens: {:#?}", log.lock());
        };
        Server { child, api, ops, log, following: Some(following) }
    }

    /// SIGKILL, wherever its start is.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("a child");
    }
}

/// The binary under test.
pub(crate) fn herald() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERALD_") {
            command.env_remove(name);
        }
    }
    command
}

/// Keeps the log lines and tells the addresses when they are known.
fn follow(
    stderr: ChildStderr,
    log: &Mutex<Vec<String>>,
    addresses: &mpsc::Sender<(SocketAddr, SocketAddr)>,
) {
    let (mut api, mut ops) = (None, None);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        api = api.or_else(|| address_behind(&line, "\"api\":\""));
        ops = ops.or_else(|| address_behind(&line, "\"ops\":\""));
        if let (Some(api), Some(ops)) = (api, ops) {
            // The receiver is gone once it has an answer.
            addresses.send((api, ops)).ok();
        }
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

fn address_behind(line: &str, name: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(name)?;
    rest.split('"').next()?.parse().ok()
}
