//! The reader of one stream: checks that events ascend, and counts them.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use memchr::memchr;
use mio::{Interest, Registry, Token, net::TcpStream};

use super::Work;

/// How much a slow reader takes at a time: 2 kB, some 20 kB a second.
const SLOW_BYTES: usize = 2048;
/// How much the system may keep for a slow reader, so that slowness reaches the server.
const SLOW_RECEIVE_BUFFER: usize = 16 * 1024;
const OPEN_WAIT: Duration = Duration::from_secs(10);

/// Whether a server numbers its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Each `id` must be greater than the one before.
    Ascend,
    /// A limit sends the same event again and again: it is only counted.
    Repeat,
}

/// How a reader takes what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Quick,
    /// A little at a time.
    Slow,
}

pub(super) struct Reader {
    stream: TcpStream,
    ids: Ids,
    pace: Pace,
    // The beginning of a line whose end has not come.
    partial: Vec<u8>,
    last: u64,
    events: u64,
}

impl Reader {
    pub(super) fn open(
        address: SocketAddr,
        request: &[u8],
        registry: &Registry,
        token: Token,
        ids: Ids,
        pace: Pace,
    ) -> anyhow::Result<Self> {
        let mut stream = connect(address, pace)?;
        stream.set_read_timeout(Some(OPEN_WAIT))?;
        stream.write_all(request)?;
        let (mut start, mut buffer) = (Vec::new(), [0; 1024]);
        let connected = loop {
            let read = stream.read(&mut buffer).context("a stream did not begin")?;
            ensure!(read > 0, "a stream ended before it began");
            start.extend_from_slice(&buffer[..read]);
            let at = memchr::memmem::find(&start, b"data:");
            if let Some(end) = at.filter(|at| start[*at..].contains(&b'\n')) {
                break end + "data:".len();
            }
        };
        if !start.starts_with(b"HTTP/1.1 200") {
            bail!("a stream was refused: {}", String::from_utf8_lossy(&start));
        }
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE)?;
        let partial = start.split_off(connected);
        Ok(Self { stream, ids, pace, partial, last: 0, events: 0 })
    }

    /// Reads all that is there, unless it is slow; gives the number of events in it.
    pub(super) fn read(
        &mut self,
        work: &mut dyn Work,
        number: usize,
        buffer: &mut [u8],
    ) -> anyhow::Result<u64> {
        if self.pace == Pace::Slow { Ok(0) } else { self.read_now(work, number, buffer) }
    }

    /// Reads a little if it is slow.
    pub(super) fn read_slowly(
        &mut self,
        work: &mut dyn Work,
        number: usize,
        buffer: &mut [u8],
    ) -> anyhow::Result<()> {
        if self.pace == Pace::Slow {
            self.read_piece(work, number, &mut buffer[..SLOW_BYTES])?;
        }
        Ok(())
    }

    pub(super) fn read_now(
        &mut self,
        work: &mut dyn Work,
        number: usize,
        buffer: &mut [u8],
    ) -> anyhow::Result<u64> {
        let before = self.events;
        // A short read has emptied the socket: what comes later is another edge.
        while self.read_piece(work, number, buffer)? == buffer.len() {}
        Ok(self.events - before)
    }

    fn read_piece(
        &mut self,
        work: &mut dyn Work,
        number: usize,
        buffer: &mut [u8],
    ) -> anyhow::Result<usize> {
        let read = match self.stream.read(buffer) {
            Ok(0) => bail!("the server ended stream {number}"),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error).context("could not read a stream"),
        };
        let mut rest = &buffer[..read];
        if !self.partial.is_empty() {
            let Some(end) = memchr(b'\n', rest) else {
                self.partial.extend_from_slice(rest);
                return Ok(read);
            };
            self.partial.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.partial);
            self.line(&line, work, number)?;
            self.partial = line;
            self.partial.clear();
        }
        while let Some(end) = memchr(b'\n', rest) {
            self.line(&rest[..end], work, number)?;
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        Ok(read)
    }

    /// One line, of which pieces of events and of chunks are the same to it: pieces end between events.
    fn line(&mut self, line: &[u8], work: &mut dyn Work, number: usize) -> anyhow::Result<()> {
        if let Some(id) = line.strip_prefix(b"id: ") {
            let id = id.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
            if self.ids == Ids::Ascend {
                ensure!(id > self.last, "event {id} behind {} on stream {number}", self.last);
            }
            self.last = id;
        } else if let Some(data) = line.strip_prefix(b"data: ") {
            self.events += 1;
            work.arrived(number, data, Instant::now())?;
        }
        Ok(())
    }
}

fn connect(address: SocketAddr, pace: Pace) -> anyhow::Result<std::net::TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    if pace == Pace::Slow {
        socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER)?;
    }
    socket.connect(&address.into()).context("could not connect")?;
    Ok(socket.into())
}
