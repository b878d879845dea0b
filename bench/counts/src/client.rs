//! HTTP/1.1 over a blocking socket: a client that does nothing by itself, so that each step of it is one step of the
//! server.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

/// How long the server may be silent before the count fails; never waited for when all is well.
const PATIENCE: Duration = Duration::from_secs(60);
/// The headers of the page.
const HEADERS: &str = "host: counts\r\napi-version: 3\r\nnhn-source-system: counts/1\r\n";
const EVENT: &[u8] = b"event: notification\n";
const CONNECTED: &[u8] = b"event: connected\n";

/// A connection that is kept from one request to the next.
pub(crate) struct Connection {
    socket: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { socket: connect(address)?, answer: Vec::new() })
    }

    /// The port by which the server knows this connection.
    pub(crate) fn port(&self) -> anyhow::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Asks for `path`; gives the answer's body.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<&[u8]> {
        self.ask(&format!("GET {path} HTTP/1.1\r\n{HEADERS}\r\n"))
    }

    /// Appends `count` drafts for one receiver, and waits until they are durable.
    pub(crate) fn append(&mut self, count: usize, her_id: u32) -> anyhow::Result<()> {
        let drafts: Vec<String> = (0..count).map(|_| draft(her_id)).collect();
        self.append_all(&drafts)
    }

    /// Appends one draft for each of the receivers from 1 to `her_id_max`, in one request.
    pub(crate) fn append_for_each(&mut self, her_id_max: u32) -> anyhow::Result<()> {
        let drafts: Vec<String> = (1..=her_id_max).map(draft).collect();
        self.append_all(&drafts)
    }

    fn append_all(&mut self, drafts: &[String]) -> anyhow::Result<()> {
        let body = format!("{{\"notifications\":[{}]}}", drafts.join(","));
        self.ask(&format!(
            "POST /notifications HTTP/1.1\r\n{HEADERS}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        Ok(())
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<&[u8]> {
        self.socket.write_all(request.as_bytes()).context("could not send a request")?;
        self.answer.clear();
        let head_end = loop {
            if let Some(at) = find(&self.answer, b"\r\n\r\n") {
                break at + 4;
            }
            receive(&mut self.socket, &mut self.answer)?;
        };
        let length = checked_length(&self.answer[..head_end])?;
        while self.answer.len() < head_end + length {
            receive(&mut self.socket, &mut self.answer)?;
        }
        Ok(&self.answer[head_end..])
    }
}

/// An open event stream.
pub(crate) struct Stream {
    socket: TcpStream,
    /// What has come and was not asked for yet.
    received: Vec<u8>,
}

impl Stream {
    /// Opens a stream of what comes for one receiver after `after`, and waits until it says `connected`.
    pub(crate) fn open(address: SocketAddr, her_id: u32, after: u64) -> anyhow::Result<Self> {
        let mut socket = connect(address)?;
        let path = format!("/notifications/stream?HerIds={her_id}&Offset={after}");
        let request = format!("GET {path} HTTP/1.1\r\n{HEADERS}accept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).context("could not ask for a stream")?;
        let mut stream = Self { socket, received: Vec::new() };
        stream.wait_for(CONNECTED)?;
        Ok(stream)
    }

    /// The port by which the server knows this connection.
    pub(crate) fn port(&self) -> anyhow::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Reads the next `count` notifications.
    pub(crate) fn events(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.wait_for(EVENT)?;
        }
        Ok(())
    }

    /// Reads until `text` has come, wherever HTTP has cut it, and forgets what was before its end.
    fn wait_for(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let at = loop {
            if let Some(at) = find(&self.received, text) {
                break at;
            }
            receive(&mut self.socket, &mut self.received)?;
        };
        self.received.drain(..at + text.len());
        Ok(())
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).context("could not connect to the server")?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn receive(socket: &mut TcpStream, into: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut piece = [0; 64 * 1024];
    let count = socket.read(&mut piece).context("the server does not go on")?;
    ensure!(count > 0, "the server closed a connection: {}", String::from_utf8_lossy(into));
    into.extend_from_slice(&piece[..count]);
    Ok(())
}

/// The length of the body behind `head`, whose status must be a good one.
fn checked_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head).context("a head is text")?;
    if !head.starts_with("HTTP/1.1 20") {
        bail!("the server refused a request: {head}");
    }
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    Ok(lengths.next().context("an answer has no content-length")?.parse()?)
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// A draft as a producer sends it, with nothing but what is required.
fn draft(her_id: u32) -> String {
    format!(
        "{{\"relatedMessageId\":\"0f84d750-8ce3-4471-a1ac-ab7a55e609c0\",\"type\":\"NewMessage\",\
         \"notificationReceiverHerId\":{her_id}}}"
    )
}
