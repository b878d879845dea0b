//! What a connection is read from and written to: a socket, or TLS over one.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::io::Guarded;

/// The guard is the socket's and not around TLS, which takes bytes long before its socket does.
///
/// Invariant: whoever writes flushes until that is done, so that what TLS has taken is always on its way and the guard sees a
/// peer that takes none of it.
#[derive(Debug)]
pub(super) enum Socket<T = TcpStream> {
    Plain(Guarded<T>),
    /// In a box: a connection without TLS does not pay for the kilobyte of its state.
    Tls(Box<TlsStream<Guarded<T>>>),
}

impl<T> Socket<T> {
    /// Whether bytes that were taken have not reached the socket yet.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.get_ref().1.wants_write(),
        }
    }

    /// Whether the socket took nothing when it was last written to.
    pub(super) fn is_stalled(&self) -> bool {
        match self {
            Self::Plain(guarded) => guarded.is_stalled(),
            Self::Tls(tls) => tls.get_ref().0.is_stalled(),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket<T> {
    /// Tells a peer of TLS that this is the end and nothing was cut off, if the socket takes it at once.
    pub(super) async fn say_end(&mut self) {
        if let Self::Tls(tls) = self {
            // Whoever does not hear it sees the connection close all the same.
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut *tls).poll_shutdown(cx))).await;
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain) => Pin::new(plain).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, ServerName},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::{Instant, advance},
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;

    const STALL: Duration = Duration::from_secs(60);
    /// What the socket takes; TLS takes more than that.
    const ROOM: usize = 4096;
    const WRITTEN: usize = 3 * ROOM;

    type Peer = client::TlsStream<DuplexStream>;

    async fn connected() -> (Socket<DuplexStream>, Peer) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (stream, peer) = duplex(ROOM);
        let name = ServerName::try_from("localhost").unwrap();
        let (tls, peer) = tokio::join!(
            TlsAcceptor::from(Arc::new(server)).accept(Guarded::around(stream, STALL)),
            TlsConnector::from(Arc::new(client)).connect(name, peer),
        );
        (Socket::Tls(Box::new(tls.unwrap())), peer.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_tls_has_taken_and_its_socket_not_counts_as_stalled() {
        let (mut socket, _peer) = connected().await;
        assert!(!socket.has_unsent());
        let began = Instant::now();
        // All of it is taken at once.
        socket.write_all(&[0; WRITTEN]).await.unwrap();
        assert!(socket.has_unsent());
        let error = socket.flush().await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, STALL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_of_tls_that_takes_a_little_in_time_is_not_cut() {
        let (mut socket, peer) = connected().await;
        let writing = tokio::spawn(async move {
            socket.write_all(&[0; WRITTEN]).await.unwrap();
            socket.flush().await.map(|()| socket.has_unsent())
        });
        let mut peer = peer.into_inner().0;
        for _ in 0..10 {
            tokio::task::yield_now().await;
            advance(STALL - Duration::from_millis(1)).await;
            peer.read_exact(&mut [0; ROOM / 4]).await.unwrap();
        }
        assert!(!writing.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn an_end_that_is_said_is_heard() {
        let (mut socket, mut peer) = connected().await;
        socket.say_end().await;
        drop(socket);
        assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0);
        // And one that is not, is not taken for it.
        let (socket, mut peer) = connected().await;
        drop(socket);
        let error = peer.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
