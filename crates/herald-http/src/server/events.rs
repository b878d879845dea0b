//! The writer of a stream of HTTP/1.1: what hyper would write, without what hyper keeps.
//!
//! A stream is a connection's last answer, and all that it needs is a socket, a buffer while there is something to
//! write, and the framing of chunks (RFC 9112, section 7.1). hyper would keep its buffers of some 10 kB for hours, and
//! pass each event through its queues. docs/decisions/0009 has the figures.

use std::{
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::SystemTime,
};

use herald_types::wire::Events;
use http::{
    HeaderMap, Response,
    header::{DATE, TRANSFER_ENCODING},
};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::{connection::OpenConnection, requests::Running, signal::Listener, socket::Socket};
use crate::body::{Body, ClientStream, stream_broke};

/// Room for a chunk's length in hexadecimal digits and the end of its line.
const CHUNK_HEAD_BYTES: usize = 10;
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// How many pieces one stream may write before others get their turn.
const PIECES_PER_TURN: usize = 8;
/// How much of what a peer sends is looked at, and dropped, at once: all that matters is whether it is still there.
const DROPPED_BYTES: usize = 512;

pin_project! {
    /// Writes one stream to its end.
    pub(super) struct EventWriter<R> {
        io: Socket,
        stream: Box<ClientStream>,
        // What is being written; nothing is kept while there is nothing to write.
        out: Vec<u8>,
        written: usize,
        is_ended: bool,
        #[pin]
        cut: Listener,
        running: Running,
        open: OpenConnection<R>,
    }
}

impl<R> EventWriter<R> {
    /// The writer of `answer`, or `None` if that is no stream.
    pub(super) fn new(
        io: Socket,
        mut answer: Response<Body>,
        running: Running,
        open: OpenConnection<R>,
    ) -> Option<Self> {
        let stream = answer.body_mut().take_stream()?;
        let out = head(answer.headers());
        let cut = open.port().cut.listen();
        Some(Self { io, stream, out, written: 0, is_ended: false, cut, running, open })
    }

    /// Its connection's place among those of its port.
    pub(super) const fn seat(&self) -> u64 {
        self.open.seat()
    }
}

/// The head of a successful answer of chunks.
fn head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let mut add = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    };
    for (name, value) in headers {
        add(name.as_str().as_bytes(), value.as_bytes());
    }
    add(TRANSFER_ENCODING.as_str().as_bytes(), b"chunked");
    add(DATE.as_str().as_bytes(), httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    head.extend_from_slice(b"\r\n");
    head
}

impl<R> Future for EventWriter<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.cut.as_mut().poll_given(&this.open.port().cut, cx) {
            return Poll::Ready(());
        }
        for _ in 0..PIECES_PER_TURN {
            while *this.written < this.out.len() {
                let left = &this.out[*this.written..];
                match ready!(Pin::new(&mut *this.io).poll_write(cx, left)) {
                    Ok(0) => return Poll::Ready(()),
                    Ok(written) => *this.written += written,
                    Err(error) => {
                        debug!(%error, "stream's connection ended");
                        return Poll::Ready(());
                    }
                }
            }
            if let Err(error) = ready!(Pin::new(&mut *this.io).poll_flush(cx)) {
                debug!(%error, "stream's connection ended");
                return Poll::Ready(());
            }
            if *this.is_ended {
                // A peer that does not hear the end has heard the last chunk.
                return Pin::new(&mut *this.io).poll_shutdown(cx).map(drop);
            }
            this.out.clear();
            this.out.resize(CHUNK_HEAD_BYTES, 0);
            let mut events = Events(std::mem::take(this.out));
            let polled = this.stream.stream.poll_events(cx, &mut events);
            *this.out = events.0;
            match polled {
                Poll::Ready(Ok(true)) => *this.written = frame(this.out),
                Poll::Ready(Ok(false)) => {
                    this.out.clear();
                    this.out.extend_from_slice(LAST_CHUNK);
                    *this.written = 0;
                    *this.is_ended = true;
                }
                Poll::Ready(Err(error)) => {
                    // Cut, without the last chunk: the reader sees that this was no proper end.
                    stream_broke(&error);
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    *this.out = Vec::new();
                    *this.written = 0;
                    return poll_gone(this.io, cx);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Makes a chunk of what stands behind the room for its length; returns where it begins.
fn frame(out: &mut Vec<u8>) -> usize {
    let len = out.len() - CHUNK_HEAD_BYTES;
    out.extend_from_slice(CHUNK_END);
    let mut head = [0; CHUNK_HEAD_BYTES];
    let mut rest = &mut head[..];
    write!(rest, "{len:x}\r\n").expect("a page's length has few digits");
    let head_len = CHUNK_HEAD_BYTES - rest.len();
    let start = CHUNK_HEAD_BYTES - head_len;
    out[start..CHUNK_HEAD_BYTES].copy_from_slice(&head[..head_len]);
    start
}

/// Ready when the peer has closed or reset the connection.
fn poll_gone(io: &mut Socket, cx: &mut Context<'_>) -> Poll<()> {
    let mut dropped = [0; DROPPED_BYTES];
    loop {
        let mut buffer = ReadBuf::new(&mut dropped);
        match ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => {}
            Ok(()) | Err(_) => return Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_its_length_its_bytes_and_two_line_ends() {
        for len in [1, 15, 16, 255, 256, 65_536, 900_000] {
            let mut out = vec![0; CHUNK_HEAD_BYTES];
            out.resize(CHUNK_HEAD_BYTES + len, b'x');
            let start = frame(&mut out);
            let expected = format!("{len:x}\r\n{}\r\n", "x".repeat(len));
            assert_eq!(out[start..], *expected.as_bytes());
        }
    }
}
