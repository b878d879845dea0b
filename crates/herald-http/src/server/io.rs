//! A socket with the options that find a peer gone silent, and a guard that cuts one that takes nothing.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use metrics::counter;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tracing::debug;

use crate::metrics::HTTP_STALLED;

/// After how long without a byte the system asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How often it asks again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How many bytes may wait unsent in the system for one peer: a slow reader costs this much, not megabytes.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A socket whose peer must take what is written within the stall time-out.
#[derive(Debug)]
pub(super) struct Guarded<T = TcpStream> {
    stream: T,
    stall_timeout: Duration,
    // Boxed and made only while a write waits, so that a connection at rest does not pay for it.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    /// Sets the socket's options.
    ///
    /// # Errors
    /// What the system says when the connection is gone already.
    pub(super) fn new(stream: TcpStream, stall_timeout: Duration) -> io::Result<Self> {
        // Events are small and must not wait for each other.
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        {
            // A peer that acknowledges nothing, or keeps its window shut, for so long is gone: this finds it even when
            // all that was written fits into the system's buffers.
            socket.set_tcp_user_timeout(Some(stall_timeout))?;
            socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
        }
        Ok(Self::around(stream, stall_timeout))
    }
}

impl<T> Guarded<T> {
    /// Leaves the stream as it is.
    pub(super) const fn around(stream: T, stall_timeout: Duration) -> Self {
        Self { stream, stall_timeout, stalled: None }
    }

    /// Whether the last write is still waiting.
    pub(super) const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }
}

impl<T: Unpin> Guarded<T> {
    fn guard<N>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<N>>,
    ) -> Poll<io::Result<N>> {
        if let Poll::Ready(result) = write(Pin::new(&mut self.stream), cx) {
            self.stalled = None;
            return Poll::Ready(result);
        }
        let stall_timeout = self.stall_timeout;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_timeout)));
        ready!(timer.as_mut().poll(cx));
        counter!(HTTP_STALLED, "what" => "connection").increment(1);
        debug!("peer takes nothing, cutting the connection");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "peer takes nothing")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.guard(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.guard(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, advance},
    };

    use super::*;

    const STALL: Duration = Duration::from_secs(60);
    const ROOM: usize = 64;

    fn guarded() -> (Guarded<DuplexStream>, DuplexStream) {
        let (stream, peer) = duplex(ROOM);
        (Guarded::around(stream, STALL), peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_after_the_stall_timeout() {
        let (mut guarded, _peer) = guarded();
        let began = Instant::now();
        let error = guarded.write_all(&[0; ROOM + 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_little_in_time_is_not_cut() {
        let (mut guarded, mut peer) = guarded();
        let writing = tokio::spawn(async move {
            guarded.write_all(&[0; ROOM + 10]).await.map(|()| guarded.stalled.is_none())
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
            advance(STALL - Duration::from_millis(1)).await;
            peer.read_u8().await.unwrap();
        }
        assert!(writing.await.unwrap().unwrap());
    }
}
