//! One life of the server as a container runtime would give it, without one: `unshare`, mounts and `chroot`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{made, read};
use crate::process::{command, output};

/// What a runtime sets up around the files of an image: devices, a volume, the files of names, and nothing else that can be
/// written to. The process keeps its id, so that it can be told to stop.
const SET_UP: &str = r#"
set -eu
root=$1 user=$2 trace=$3
shift 3
mount --bind "$root" "$root"
mkdir -p "$root/dev" "$root/etc/herald"
mount -t tmpfs -o mode=755 none "$root/dev"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,ro "$root/dev"
mount -t tmpfs -o "mode=700,uid=${user%:*},gid=${user#*:}" none "$root/var/lib/herald"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs strace -D -f -qq -o "$trace" chroot --userspec="$user" --groups= "$root" /herald "$@"
"#;
/// Where names are asked for; loopback, and nobody else's.
const DNS: &str = "127.99.0.1:53";
/// A name that only that server knows.
const NAME: &str = "herald-0.herald.example";
/// How long the server may take to get ready before something is wrong. It takes less than one; the machine may be busy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// When what an answer takes is too much.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const HEADERS: &str =
    "Host: herald\r\napi-version: 3\r\nnhn-source-system: deploy, v1\r\nConnection: close\r\n";
const DRAFT: &str = r#"{"notifications":[{"relatedMessageId":"0f84d750-8ce3-4471-a1ac-ab7a55e609c0","type":"NewMessage","notificationReceiverHerId":8139764}]}"#;

/// What is to be started.
pub(super) struct Container {
    pub(super) root: PathBuf,
    /// `uid:gid`.
    pub(super) user: String,
    pub(super) environment: BTreeMap<String, String>,
}

impl Container {
    /// Starts the server, uses it, and stops it as systemd or the kubelet would. Returns the trace of its system calls.
    pub(super) fn live(&self) -> anyhow::Result<String> {
        let etc = self.root.join("etc");
        // Like a ConfigMap, or /etc/herald: it must be one that the server can read. The environment wins over it.
        fs::create_dir_all(etc.join("herald"))?;
        fs::write(etc.join("herald/herald.toml"), read("deploy/systemd/herald.toml")?)?;
        let name_server = DNS.split(':').next().unwrap_or_default();
        fs::write(etc.join("resolv.conf"), format!("nameserver {name_server}\n"))?;
        let trace = made()?.join("trace.txt");
        fs::remove_file(&trace).ok();
        let mut server = Server::start(self, &trace)?;
        let used = server.ready().and_then(|()| self.is_used(&server));
        let stopped = server.stop();
        used?;
        stopped?;
        fs::read_to_string(trace).context("could not read the trace")
    }

    fn is_used(&self, server: &Server) -> anyhow::Result<()> {
        self.is_confined(server)?;
        for path in ["/health/live", "/health/ready", "/metrics"] {
            ask(server.ops, &format!("GET {path}"), "")?;
        }
        ask(server.api, "POST /notifications", DRAFT)?;
        let page = ask(server.api, "GET /notifications?HerIds=8139764&Offset=0", "")?;
        if !page.contains("0f84d750-8ce3-4471-a1ac-ab7a55e609c0") {
            bail!("what was appended is not in the page: {page}");
        }
        self.finds_names(server)
    }

    /// What the kernel says of the process.
    fn is_confined(&self, server: &Server) -> anyhow::Result<()> {
        let proc = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", server.child.id())).context("no process")
        };
        let status = proc("status")?;
        let (user, group) = self.user.split_once(':').context("a user and a group")?;
        for (label, id) in [("Uid", user), ("Gid", group)] {
            let four = format!("{label}:\t{id}\t{id}\t{id}\t{id}\n");
            if !status.contains(&four) {
                bail!("the server does not run as {}: {status}", self.user);
            }
        }
        for line in
            ["CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "NoNewPrivs:\t1\n"]
        {
            if !status.contains(line) {
                bail!("the server has rights that it should not have: {status}");
            }
        }
        let mounts = proc("mountinfo")?;
        let writable: Vec<&str> = mounts.lines().filter_map(writable_mount).collect();
        if writable != ["/var/lib/herald"] {
            bail!("the server can write below {}", writable.join(", "));
        }
        Ok(())
    }

    /// The C library's own lookup, which in a static binary has no shared files to ask with.
    fn finds_names(&self, server: &Server) -> anyhow::Result<()> {
        let socket = UdpSocket::bind(DNS).with_context(|| format!("could not listen on {DNS}"))?;
        thread::spawn(move || answer_names(&socket));
        let url = format!("http://{NAME}:{}", server.api.port());
        let mut poll = command("chroot");
        poll.arg(format!("--userspec={}", self.user)).args(["--groups="]).arg(&self.root);
        poll.args(["/herald", "poll", "--her-id", "8139764", "--offset", "0", "--url", &url]);
        let polled = output(&mut poll).context("a name was not found")?;
        if !polled.contains("0f84d750-8ce3-4471-a1ac-ab7a55e609c0") {
            bail!("`herald poll` by name did not find what was appended: {polled}");
        }
        Ok(())
    }
}

/// Where a line of `mountinfo` is mounted, if it can be written to and is no single device.
fn writable_mount(line: &str) -> Option<&str> {
    let mut fields = line.split(' ').skip(4);
    let (place, options) = (fields.next()?, fields.next()?);
    let is_writable = options.split(',').any(|option| option == "rw");
    (is_writable && !place.starts_with("/dev/")).then_some(place)
}

struct Server {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    api: SocketAddr,
    ops: SocketAddr,
    /// How long it may take to stop before whoever runs it kills it.
    stop_within: Duration,
}

impl Server {
    fn start(container: &Container, trace: &std::path::Path) -> anyhow::Result<Self> {
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut start = command("unshare");
        start.args(["--mount", "--propagation", "private", "sh", "-c", SET_UP, "sh"]);
        start.arg(&container.root).arg(&container.user).arg(trace).arg("serve");
        start.args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
        start.env_clear().envs(&container.environment);
        start.env("HERALD_CONFIG", "/etc/herald/herald.toml");
        let mut child = start.stderr(Stdio::piped()).spawn().context("could not start unshare")?;
        let log = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let stop_within = stop_within(&read("deploy/systemd/herald.service")?)?;
        Ok(Self { child, log, api: nowhere, ops: nowhere, stop_within })
    }

    /// Reads the log until the server is ready.
    fn ready(&mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        // A server that never gets ready would keep the reading for ever.
        let watch = Watch::new(READY_WITHIN, id);
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            if self.log.read_line(&mut line)? == 0 {
                bail!("the server ended before it was ready: {seen}");
            }
            let told: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = |name: &str| told[name].as_str().and_then(|text| text.parse().ok());
            match told["message"].as_str() {
                Some("listening") => {
                    self.api = address("api").context("no address of the API")?;
                    self.ops = address("ops").context("no address of the ops port")?;
                }
                Some("ready") => break,
                Some("setting") => {}
                _ => seen.push_str(&line),
            }
        }
        watch.done();
        Ok(())
    }

    /// SIGTERM, and SIGKILL when its time is over, as whoever runs it would.
    fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        output(command("kill").args(["-TERM", &id]))?;
        let watch = Watch::new(self.stop_within, id);
        let mut log = String::new();
        self.log.read_to_string(&mut log).context("could not read the log")?;
        let status = self.child.wait().context("could not wait for the server")?;
        watch.done();
        if !status.success() || !log.contains(r#""message":"stopped""#) {
            bail!(
                "the server did not stop by itself within {:?}: {status}: {log}",
                self.stop_within
            );
        }
        eprintln!("    appended, polled, found by name, and stopped at SIGTERM with code 0");
        Ok(())
    }
}

/// `TimeoutStopSec=25s`.
fn stop_within(unit: &str) -> anyhow::Result<Duration> {
    let line = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let seconds = line.and_then(|text| text.strip_suffix('s')?.parse().ok());
    Ok(Duration::from_secs(seconds.context("the unit has no TimeoutStopSec in seconds")?))
}

/// Kills a process unless it is told in time that all is well.
struct Watch {
    done: std::sync::mpsc::Sender<()>,
}

impl Watch {
    fn new(within: Duration, id: String) -> Self {
        let (done, is_done) = std::sync::mpsc::channel();
        thread::spawn(move || {
            if is_done.recv_timeout(within) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                command("kill").args(["-KILL", &id]).status().ok();
            }
        });
        Self { done }
    }

    fn done(self) {
        self.done.send(()).ok();
    }
}

/// One request; the answer's body, if its status is a good one.
fn ask(address: SocketAddr, what: &str, body: &str) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(address).with_context(|| format!("{what}: no answer"))?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    let length = body.len();
    let kind = "Content-Type: application/json";
    write!(socket, "{what} HTTP/1.1\r\n{HEADERS}{kind}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).with_context(|| format!("{what}: no whole answer"))?;
    if !answer.starts_with("HTTP/1.1 20") {
        bail!("{what}: {answer}");
    }
    Ok(answer)
}

/// Answers every question for an address of IPv4 with 127.0.0.1, and all others with nothing.
fn answer_names(socket: &UdpSocket) {
    let mut question = [0; 512];
    let began = Instant::now();
    socket.set_read_timeout(Some(ANSWER_WITHIN)).ok();
    while began.elapsed() < ANSWER_WITHIN {
        let Ok((len, from)) = socket.recv_from(&mut question) else { return };
        if let Some(answer) = answer_of(&question[..len]) {
            socket.send_to(&answer, from).ok();
        }
    }
}

/// RFC 1035, 4.1: a header of twelve bytes, then the question, then answers that point back to its name.
fn answer_of(question: &[u8]) -> Option<Vec<u8>> {
    let asked = question.get(12..)?;
    let name_end = asked.iter().position(|byte| *byte == 0)?;
    let asked = asked.get(..name_end + 5)?;
    let is_ipv4 = asked[name_end + 1..name_end + 3] == [0, 1];
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x85, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_ipv4 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mount_with_rw_is_writable_and_no_device() {
        let line =
            |place, options| format!("36 35 98:0 /mnt {place} {options} - tmpfs none rw,size=1");
        assert_eq!(
            writable_mount(&line("/var/lib/herald", "rw,relatime")),
            Some("/var/lib/herald")
        );
        assert_eq!(writable_mount(&line("/", "ro,relatime")), None);
        assert_eq!(writable_mount(&line("/dev/null", "rw")), None);
    }

    #[test]
    fn a_name_is_answered_with_loopback_and_only_as_ipv4() {
        let ask = |kind| {
            [&[7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0][..], &[kind, 0, 1]].concat()
        };
        assert!(answer_of(&ask(1)).unwrap().ends_with(&[0, 4, 127, 0, 0, 1]));
        assert!(answer_of(&ask(28)).unwrap().ends_with(&[28, 0, 1]));
        assert_eq!(answer_of(&ask(1)[..14]), None);
    }

    #[test]
    fn the_time_for_a_stop_is_the_units() {
        let unit = "Restart=no\nTimeoutStopSec=25s\n";
        assert_eq!(stop_within(unit).unwrap(), Duration::from_secs(25));
        assert!(stop_within("TimeoutStopSec=1min\n").is_err());
    }
}
