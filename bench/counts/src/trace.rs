//! What strace wrote: which calls the server made between two marks.
//!
//! A call's line begins before the call does anything, so whoever has seen its effect (an event that arrived, an append
//! that was answered) finds it above a mark that was set later. A call that another thread's interrupts has two lines,
//! `write(… <unfinished ...>` and `<... write resumed> …`; only the first is counted.

use std::collections::BTreeMap;

use anyhow::Context as _;

use crate::client::Connection;

const WRITES: [&str; 5] = ["write", "writev", "sendto", "sendmsg", "sendmmsg"];
const FILE_WRITES: [&str; 5] = ["write", "writev", "pwrite64", "pwritev", "pwritev2"];
const FILE_READS: [&str; 5] = ["read", "readv", "pread64", "preadv", "preadv2"];
const SYNCS: [&str; 5] = ["fsync", "fdatasync", "sync_file_range", "syncfs", "msync"];

/// Makes a line in the trace that can be found again.
pub(crate) fn mark(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    connection.get(&format!("/ping?mark={name}.")).map(drop)
}

/// A whole run of the server.
pub(crate) struct Trace {
    text: String,
}

impl Trace {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self { text: String::from_utf8_lossy(bytes).into_owned() }
    }

    /// The calls between two marks.
    pub(crate) fn between(&self, begin: &str, end: &str) -> anyhow::Result<Calls<'_>> {
        let from = self.position(begin)?;
        let to = self.position(end)?;
        let lines = self.text.get(from..to).context("the marks are in the wrong order")?;
        Ok(Calls { calls: lines.lines().filter_map(Call::parse).collect() })
    }

    fn position(&self, mark: &str) -> anyhow::Result<usize> {
        let found = self.text.find(&format!("/ping?mark={mark}."));
        found.with_context(|| format!("the trace has no mark '{mark}'"))
    }
}

/// The calls of one part of the run.
pub(crate) struct Calls<'a> {
    calls: Vec<Call<'a>>,
}

impl Calls<'_> {
    /// Writes to the clients' connections with these ports. A heartbeat has a time of its own, which may be now, so a write
    /// of nothing else is none of them.
    pub(crate) fn writes_to(&self, ports: &[u16]) -> u64 {
        let peers: Vec<String> = ports.iter().map(|port| format!("->127.0.0.1:{port}]")).collect();
        self.count(&WRITES, |call| {
            let is_meant = peers.iter().any(|peer| call.about().contains(peer.as_str()));
            is_meant && !call.is_heartbeat()
        })
    }

    /// Writes to the files below `dir`.
    pub(crate) fn file_writes(&self, dir: &str) -> u64 {
        self.count(&FILE_WRITES, |call| call.about().contains(dir))
    }

    /// Reads of the files below `dir`.
    pub(crate) fn file_reads(&self, dir: &str) -> u64 {
        self.count(&FILE_READS, |call| call.about().contains(dir))
    }

    /// Syncs, whatever of.
    pub(crate) fn syncs(&self) -> u64 {
        self.count(&SYNCS, |_| true)
    }

    fn count(&self, names: &[&str], is_meant: impl Fn(&Call<'_>) -> bool) -> u64 {
        let named = self.calls.iter().filter(|call| names.contains(&call.name));
        named.filter(|call| is_meant(call)).count() as u64
    }

    /// All of them by name, the most frequent first.
    pub(crate) fn summary(&self) -> String {
        let mut counts = BTreeMap::new();
        for call in &self.calls {
            *counts.entry(call.name).or_insert(0) += 1;
        }
        let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let counts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        format!("{} system calls: {}", self.calls.len(), counts.join(", "))
    }
}

/// One system call.
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    name: &'a str,
    /// What is behind the parenthesis.
    arguments: &'a str,
}

impl<'a> Call<'a> {
    /// `None` for a line that begins no call.
    fn parse(line: &'a str) -> Option<Self> {
        let (_thread, rest) = line.split_once(' ')?;
        let (name, arguments) = rest.trim_start().split_once('(')?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            return None;
        }
        Some(Self { name, arguments })
    }

    fn is_heartbeat(&self) -> bool {
        self.arguments.contains(": until ") && !self.arguments.contains("event: ")
    }

    /// Its first argument, with the file or connection that the number stands for.
    fn about(&self) -> &'a str {
        self.arguments.split([',', ')']).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"7  recvfrom(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "GET /ping?mark=begin. HTTP/1.1\r\n", 8192, 0) = 60
7  write(4</tmp/data/log.1>, "x", 1) = 1
8  pwrite64(4</tmp/data/log.1>, "x", 1, 0 <unfinished ...>
7  sendto(9<TCP:[127.0.0.1:1->127.0.0.1:20]>, "x", 1, 0, NULL, 0) = 1
8  <... pwrite64 resumed>) = 1
8  fdatasync(4</tmp/data/log.1>) = 0
7  writev(10<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base="x", iov_len=1}], 1) = 1
7  writev(10<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base=": until 7\n\n", iov_len=11}], 1) = 11
7  epoll_wait(3<anon_inode:[eventpoll]> <unfinished ...>
8  +++ exited with 0 +++
7  <... recvfrom resumed>"GET /ping?mark=end. HTTP/1.1\r\n", 8192, 0) = 60
7  fdatasync(4</tmp/data/log.1>) = 0
"#;

    #[test]
    fn calls_are_counted_once_between_the_marks() {
        let trace = Trace::new(TRACE.as_bytes());
        let calls = trace.between("begin", "end").unwrap();
        assert_eq!(calls.writes_to(&[2]), 1);
        assert_eq!(calls.writes_to(&[2, 20]), 2);
        assert_eq!(calls.file_writes("/tmp/data"), 2);
        assert_eq!(calls.file_reads("/tmp/data"), 0);
        assert_eq!(calls.syncs(), 1);
        assert!(calls.summary().starts_with("7 system calls: "), "{}", calls.summary());
    }

    #[test]
    fn a_mark_that_is_not_there_is_an_error() {
        assert!(Trace::new(TRACE.as_bytes()).between("begin", "beg").is_err());
        assert!(Trace::new(TRACE.as_bytes()).between("end", "begin").is_err());
    }
}
