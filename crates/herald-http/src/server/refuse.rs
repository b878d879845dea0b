//! A connection for which there is no place.

use std::mem::MaybeUninit;

use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::debug;

use crate::limited::Limit;

/// What it is answered; a balancer asks another server then. Whoever speaks HTTP/2 sees a connection that closes.
const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// How much of the request is taken off the socket: closing it with bytes unread would take the answer back.
const REQUEST_BYTES: usize = 16 * 1024;

/// Answers without waiting for anything, as well as that goes: who turns away must not be kept busy by it. Whoever speaks
/// TLS sees a connection that closes: a handshake would cost what there is too little of.
pub(super) fn refuse(stream: &TcpStream, limit: Limit, is_tls: bool) {
    limit.met();
    if is_tls {
        return debug!(?limit, "connection turned away");
    }
    let socket = SockRef::from(stream);
    let mut dropped = [MaybeUninit::uninit(); REQUEST_BYTES];
    // Neither need work.
    let read = socket.recv(&mut dropped);
    let sent = socket.send(ANSWER);
    debug!(?limit, ?read, ?sent, "connection turned away");
}
