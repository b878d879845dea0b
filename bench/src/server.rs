//! Starts servers, and reads what the system says of them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{load::ask_once, requests};

const START_MAX: Duration = Duration::from_secs(120);
/// In which the system counts CPU time.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where programs and data are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `herald` binary.
    pub herald: PathBuf,
    /// The directory of the limits' binaries.
    pub limits: PathBuf,
    /// A directory for data, emptied at will.
    pub data: PathBuf,
}

/// A running server; killed when it is dropped.
pub struct Server {
    child: Child,
    /// Where it answers.
    pub address: SocketAddr,
    ops: Option<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time that the programs have used which this process has started and waited for, in seconds.
///
/// # Errors
/// When the system does not say.
pub fn children_cpu_seconds() -> anyhow::Result<f64> {
    seconds_in(&fs::read_to_string("/proc/self/stat")?, 13)
}

/// The CPU time that this process has used, in seconds.
///
/// # Errors
/// When the system does not say.
pub fn own_cpu_seconds() -> anyhow::Result<f64> {
    seconds_in(&fs::read_to_string("/proc/self/stat")?, 11)
}

/// Two fields of `/proc/…/stat` that follow each other: time in user and in kernel mode.
pub(crate) fn seconds_in(stat: &str, field: usize) -> anyhow::Result<f64> {
    let fields = stat.rsplit_once(") ").context("no fields")?.1;
    let ticks = fields.split_whitespace().skip(field).take(2);
    Ok(ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

/// The number behind a name in a file of `/proc`.
fn number_in(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name}"))
}

/// The proportional set size of a process, in bytes.
pub(crate) fn pss_bytes_of(id: u32) -> anyhow::Result<u64> {
    Ok(number_in(&fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?, "Pss")? * 1024)
}

/// Two ports that nobody has at this moment.
fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    // Both are held until both are known, or they might be the same.
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (listen()?, listen()?);
    Ok([first.local_addr()?, second.local_addr()?])
}

impl Places {
    /// Starts Herald on `dir` and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn herald(&self, dir: &Path, flags: &[&str]) -> anyhow::Result<Server> {
        let [address, ops] = free_addresses()?;
        fs::create_dir_all(&self.data)?;
        let log = fs::File::create(self.data.join("herald.log"))?;
        let child = Command::new(&self.herald)
            .args(["serve", "--log-level", "warn", "--data-dir"])
            .arg(dir)
            .args(["--listen", &address.to_string(), "--ops-listen", &ops.to_string()])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {}", self.herald.display()))?;
        let mut server = Server { child, address, ops: Some(ops) };
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts Herald on a new, empty directory.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn fresh_herald(&self, flags: &[&str]) -> anyhow::Result<Server> {
        let dir = self.data.join("fresh");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        self.herald(&dir, flags)
    }

    /// Starts one of the limits and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn limit(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Server> {
        let [address, _] = free_addresses()?;
        let program = self.limits.join(name);
        let child = Command::new(&program)
            .args(["--listen", &address.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let mut server = Server { child, address, ops: None };
        server.wait_until(|server| TcpStream::connect(server.address).is_ok())?;
        Ok(server)
    }

    /// A limit that gives `herald`'s answers to these requests.
    ///
    /// # Errors
    /// When it cannot be started, or Herald refuses a request.
    pub fn bare_answers(
        &self,
        herald: &Server,
        requests: &[Vec<u8>],
        parse_query: bool,
    ) -> anyhow::Result<Server> {
        let mut answers = Vec::new();
        for request in requests {
            let answer = herald.sample(request)?;
            answers.extend_from_slice(&(answer.len() as u64).to_le_bytes());
            answers.extend_from_slice(&answer);
        }
        let file = self.file("answers", &answers)?;
        let mut arguments = vec!["--answers", &file];
        arguments.extend(parse_query.then_some("--parse-query"));
        self.limit("bare-answers", &arguments)
    }

    /// A copy of a data directory, with the times of its files.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn copy(&self, from: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let to = self.data.join(name);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        let mut copy = Command::new("cp");
        let status = copy.args(["-a", "--reflink=auto"]).arg(from).arg(&to).status()?;
        ensure!(status.success(), "could not copy {}", from.display());
        // What is measured next must not wait for the copy on its way to the disk.
        Command::new("sync").status()?;
        Ok(to)
    }

    /// Writes bytes to a file that a limit is told of.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn file(&self, name: &str, bytes: &[u8]) -> anyhow::Result<String> {
        fs::create_dir_all(&self.data)?;
        let path = self.data.join(name);
        fs::write(&path, bytes)?;
        Ok(path.to_str().context("a path that is text")?.to_owned())
    }
}

impl Server {
    fn wait_until(&mut self, is_there: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_there(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}");
            }
            ensure!(began.elapsed() < START_MAX, "the server did not start");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        self.wait_until(|server| {
            let request =
                b"GET /health/ready HTTP/1.1\r\nhost: herald\r\nconnection: close\r\n\r\n";
            let answer = server.ops.and_then(|ops| ask_once(ops, request).ok());
            answer.is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
        })
    }

    /// Kills it without warning, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it as an operator does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))
            .with_context(|| format!("could not read {file} of a server"))
    }

    fn proc_number(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        number_in(&self.proc(file)?, name)
    }

    /// Its proportional set size, in bytes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn pss_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.proc_number("smaps_rollup", "Pss")? * 1024)
    }

    /// What it has in memory that is its own, in bytes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn rss_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.proc_number("status", "VmRSS")? * 1024)
    }

    /// What it has sent to the disk, in bytes.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn written_bytes(&self) -> anyhow::Result<u64> {
        self.proc_number("io", "write_bytes")
    }

    /// The CPU time that it has used, in seconds.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        seconds_in(&self.proc("stat")?, 11)
    }

    /// Does something, and says how much CPU time the server used meanwhile, in seconds.
    ///
    /// # Errors
    /// What went wrong.
    pub fn costing<T>(&self, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
        let before = self.cpu_seconds()?;
        let done = act()?;
        Ok((done, self.cpu_seconds()? - before))
    }

    /// The whole answer to one poll, head and body, as a connection that goes on gets it.
    ///
    /// # Errors
    /// When it is not 200.
    pub fn sample(&self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let answer = ask_once(self.address, &requests::closing(request))?;
        let text = || String::from_utf8_lossy(&answer[..answer.len().min(1000)]).into_owned();
        ensure!(answer.starts_with(b"HTTP/1.1 20"), "refused: {}", text());
        Ok(answer)
    }

    /// The body of the answer to one request.
    ///
    /// # Errors
    /// When it is not a success.
    pub fn sample_body(&self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let answer = self.sample(request)?;
        Ok(parse_head(&answer).context("no head")?.1.to_vec())
    }

    /// The newest offset.
    ///
    /// # Errors
    /// When the server does not say.
    pub fn tail(&self) -> anyhow::Result<u64> {
        self.header_number("herald-tail")
    }

    /// What a header of a poll's answer says.
    ///
    /// # Errors
    /// When it says no number.
    pub fn header_number(&self, name: &str) -> anyhow::Result<u64> {
        let answer = self.sample(&requests::poll("HerIds=1&Offset=0"))?;
        let (head, _) = parse_head(&answer).context("no head")?;
        let header = head.headers.iter().find(|(other, _)| other == name);
        header.and_then(|(_, value)| value.parse().ok()).with_context(|| format!("no {name}"))
    }
}

/// What stands before a body.
pub struct Head {
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
}

/// The head of a whole answer, and its body.
#[must_use]
pub fn parse_head(answer: &[u8]) -> Option<(Head, &[u8])> {
    let at = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..at]).ok()?;
    let headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some((Head { headers: headers.collect() }, &answer[at + 4..]))
}
