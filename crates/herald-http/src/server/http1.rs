//! A connection of HTTP/1.1: hyper's, until a request asks for a stream.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};
use tracing::debug;

use super::{
    Peer, Routes,
    connection::{OpenConnection, Port},
    events::EventWriter,
    requests::{Activity, HandedOver, Wait, answer},
    socket::Socket,
};
use crate::limited::Limit;

/// Why hyper's part of a connection is over.
enum End {
    Closed(hyper::Result<()>),
    /// The server stops.
    Cut,
    /// Its peer took too long.
    GivenUp(Limit),
    /// It becomes a stream.
    Stream(HandedOver),
}

pub(super) async fn serve_http1<R: Routes>(
    port: &Arc<Port<R>>,
    io: Socket,
    peer: Peer,
    activity: Arc<Activity>,
    open: OpenConnection<R>,
) {
    // Borrowed: a reference counted for each request is one that all cores fight for.
    let service = service_fn(|request| {
        let (port, activity) = (&**port, &activity);
        async move { Ok::<_, Infallible>(answer(port, activity, request, peer).await) }
    });
    let io = Watched { io, took_all: true, activity: Arc::clone(&activity) };
    let mut connection = port.http1.serve_connection(TokioIo::new(io), service);
    let mut closing = pin!(port.closing.listen());
    let mut cut = pin!(port.cut.listen());
    let mut timer = pin!(sleep(port.patience.soonest()));
    let mut is_closing = false;
    let end = poll_fn(|cx| {
        if cut.as_mut().poll_given(&port.cut, cx) {
            return Poll::Ready(End::Cut);
        }
        if !is_closing && closing.as_mut().poll_given(&port.closing, cx) {
            is_closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(End::Closed(result));
        }
        if let Some(handed_over) = activity.take_over() {
            return Poll::Ready(End::Stream(handed_over));
        }
        // One timer for the whole connection, which is looked after only when it fires.
        while timer.as_mut().poll(cx).is_ready() {
            match activity.wait(port.patience) {
                Wait::Over(limit) => return Poll::Ready(End::GivenUp(limit)),
                Wait::Until(until) => timer.as_mut().reset(until),
            }
        }
        Poll::Pending
    })
    .await;
    // Kept, it would keep itself: it counts as a request of this connection.
    let left = activity.take_over();
    debug_assert!(
        left.is_none(),
        "hyper does not end a connection whose request is still answered"
    );
    match end {
        End::Closed(Ok(())) | End::Cut => {}
        End::Closed(Err(error)) => {
            if error.is_parse_too_large() {
                Limit::HeadBytes.met();
            }
            debug!(%error, "connection ended");
        }
        End::GivenUp(limit) => {
            limit.met();
            debug!(?limit, "connection closed");
            let mut io = connection.into_parts().io.into_inner().io;
            io.say_end().await;
        }
        End::Stream(HandedOver { answer, running }) => {
            // What the peer has sent behind its request is not read: the stream ends the connection.
            let io = connection.into_parts().io.into_inner().io;
            if let Some(writer) = EventWriter::new(io, answer, running, open) {
                port.seats.becomes_stream(writer.seat());
                // A task of its own: this one is as large as hyper's part of the connection.
                port.connections.spawn(writer);
            }
        }
    }
}

/// A socket that tells when something has come, and whether it has taken all of what was written last.
struct Watched {
    io: Socket,
    took_all: bool,
    activity: Arc<Activity>,
}

impl Watched {
    fn noted(&mut self, len: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.took_all = matches!(&written, Poll::Ready(Ok(written)) if *written == len);
        self.note();
        written
    }

    fn note(&self) {
        let is_flushed = self.took_all && !self.io.has_unsent();
        self.activity.set_flushed(is_flushed, !self.io.is_stalled());
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.noted(bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.noted(slices.iter().map(|slice| slice.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.note();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
