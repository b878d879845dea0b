//! A bound port, and accepting from it whatever happens.

use std::{io, net::SocketAddr, time::Duration};

use metrics::counter;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};
use tracing::warn;

use crate::metrics::HTTP_ACCEPT_ERRORS;

/// How many connections may wait to be accepted: the reconnects of a restart arrive at once.
const BACKLOG: u32 = 4096;

/// How long to wait when the system has no file descriptor or memory for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

#[derive(Debug)]
pub(super) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    pub(super) fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart must not wait for the old process's connections to leave TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().map_err(|source| BindError { address, source })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands each connection to `serve`, with the address it is from, for ever.
    pub(super) async fn accept_all(&self, serve: impl Fn(TcpStream, SocketAddr)) {
        let mut paused = false;
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    paused = false;
                    serve(stream, from);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    counter!(HTTP_ACCEPT_ERRORS).increment(1);
                    // Once for each spell: under a shortage every try fails.
                    if !paused {
                        warn!(address = %self.address, %error, "cannot accept, trying again");
                    }
                    paused = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether the error is about the connection that was to be accepted, so that the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
