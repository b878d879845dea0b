//! A keep-alive connection with one request under way at most.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;
use mio::{Interest, Registry, Token, net::TcpStream};

use super::Work;

/// The body of a poll that finds nothing.
pub const EMPTY_PAGE: &[u8] = b"{\"notifications\":[]}";

/// A whole answer.
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
}

pub(super) struct Lane {
    stream: TcpStream,
    request: Vec<u8>,
    written: usize,
    received: Vec<u8>,
    // The whole length of the answer, once its head is there, and where its body begins.
    expected: Option<(usize, usize, u16)>,
    asked: Option<Instant>,
}

impl Lane {
    pub(super) fn connect(
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect(address).context("could not connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            request: Vec::new(),
            written: 0,
            received: Vec::new(),
            expected: None,
            asked: None,
        })
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.asked.is_none()
    }

    /// Sends the lane's next request if it has one.
    pub(super) fn ask(
        &mut self,
        work: &mut dyn Work,
        number: usize,
        due: Instant,
    ) -> anyhow::Result<bool> {
        self.request.clear();
        if !work.request(number, &mut self.request) {
            return Ok(false);
        }
        self.written = 0;
        self.asked = Some(due);
        self.write()?;
        Ok(true)
    }

    pub(super) fn write(&mut self) -> anyhow::Result<()> {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("could not send a request"),
            }
        }
        Ok(())
    }

    /// Reads what is there; when the answer is complete, judges it and says when its request was due.
    pub(super) fn read(
        &mut self,
        work: &mut dyn Work,
        number: usize,
        buffer: &mut [u8],
    ) -> anyhow::Result<Option<Instant>> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("could not read an answer"),
            };
            let Some(asked) = self.asked else { bail!("an answer that nobody asked for") };
            // Nearly always the answer comes whole, and needs no copy.
            let whole = if self.received.is_empty() {
                &buffer[..read]
            } else {
                self.received.extend_from_slice(&buffer[..read]);
                &self.received[..]
            };
            if self.expected.is_none() {
                self.expected = length(whole)?;
            }
            let Some((all, body_at, status)) =
                self.expected.filter(|(all, ..)| whole.len() >= *all)
            else {
                if self.received.is_empty() {
                    self.received.extend_from_slice(&buffer[..read]);
                }
                if read < buffer.len() {
                    return Ok(None);
                }
                continue;
            };
            ensure!(whole.len() == all, "bytes behind an answer");
            work.answered(number, &Answer { status, body: &whole[body_at..] }, Instant::now())?;
            self.received.clear();
            self.expected = None;
            self.asked = None;
            return Ok(Some(asked));
        }
    }
}

/// The length of the answer, where its body begins, and its status, once the head is complete.
fn length(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize, u16)>> {
    let Some(head_end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (head, body_at) = (&bytes[..head_end], head_end + 4);
    let status = head.get(9..12).and_then(|text| std::str::from_utf8(text).ok());
    let status: u16 = status.and_then(|text| text.parse().ok()).context("no status")?;
    const NAME: &[u8] = b"content-length: ";
    let Some(at) = memmem::find(head, NAME) else { bail!("an answer without a length") };
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let body = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
    Ok(Some((body_at + body, body_at, status)))
}
