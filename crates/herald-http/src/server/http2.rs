//! A connection of HTTP/2, which is hyper's to its end.

use std::{
    convert::Infallible,
    error::Error as StdError,
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
    time::{Instant, sleep},
};
use tracing::debug;

use super::{
    Peer, Routes,
    connection::{OpenConnection, Port},
    requests::{Activity, Wait, answer},
    socket::Socket,
};
use crate::limited::Limit;

/// The preface, and the head of the frame of settings behind it (RFC 9113, section 3.4).
const GREETING_BYTES: usize = 24 + 9;

pub(super) async fn serve_http2<R: Routes>(
    port: &Arc<Port<R>>,
    io: Socket,
    peer: Peer,
    activity: Arc<Activity>,
    // Kept to the connection's end.
    _open: OpenConnection<R>,
) {
    let service = service_fn(|request| {
        let (port, activity) = (Arc::clone(port), Arc::clone(&activity));
        async move { Ok::<_, Infallible>(answer(&port, &activity, request, peer).await) }
    });
    let io = Greeted { io, activity: Arc::clone(&activity), awaited: GREETING_BYTES };
    let mut connection = pin!(port.http2.serve_connection(TokioIo::new(io), service));
    let mut closing = pin!(port.closing.listen());
    let mut cut = pin!(port.cut.listen());
    let mut timer = pin!(sleep(port.patience.soonest()));
    let mut is_closing = false;
    let mut closes_by = None;
    poll_fn(|cx| {
        if cut.as_mut().poll_given(&port.cut, cx) {
            return Poll::Ready(());
        }
        if !is_closing && closing.as_mut().poll_given(&port.closing, cx) {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
        }
        while timer.as_mut().poll(cx).is_ready() {
            match (activity.wait(port.patience), closes_by) {
                (Wait::Until(until), _) => timer.as_mut().reset(until),
                // Half a greeting; or it was asked to close, and its peer does not answer.
                (Wait::Over(limit @ Limit::HeadTime), _) => {
                    limit.met();
                    return Poll::Ready(());
                }
                (Wait::Over(_), Some(by)) if by <= Instant::now() => return Poll::Ready(()),
                (Wait::Over(_), Some(by)) => timer.as_mut().reset(by),
                (Wait::Over(limit), None) => {
                    limit.met();
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    let by = Instant::now() + port.patience.head;
                    closes_by = Some(by);
                    timer.as_mut().reset(by);
                }
            }
        }
        connection.as_mut().poll(cx).map(|result| {
            if let Err(error) = result {
                if is_too_much(&error) {
                    Limit::Http2.met();
                }
                debug!(%error, "connection ended");
            }
        })
    })
    .await;
}

/// Whether h2 ended the connection because its peer asked for more than is reasonable: resets of requests that were not
/// even looked at, frames of headers without end, tiny frames of data.
fn is_too_much(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let Some(error) = source else { return false };
    error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
}

/// A socket that tells when its peer has begun to speak HTTP/2.
struct Greeted {
    io: Socket,
    activity: Arc<Activity>,
    awaited: usize,
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.awaited > 0 {
            self.awaited = self.awaited.saturating_sub(buf.filled().len() - before);
            if self.awaited == 0 {
                self.activity.greeted();
            }
        }
        read
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
