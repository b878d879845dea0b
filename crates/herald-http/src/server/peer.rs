//! What is known of a connection, for whoever answers its requests.

use std::net::{IpAddr, SocketAddr};

/// The facts of a request's connection. Small and copied, so that a request costs no allocation for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Whom the connection is from: the client, or the last proxy on its way. An IPv4 address is one also on a socket of IPv6.
    pub address: IpAddr,
    /// Whether it is over TLS, and so whether its URLs begin with `https://`.
    pub is_tls: bool,
    /// Whether its client has shown a certificate, which was verified.
    pub has_client_certificate: bool,
}

impl Peer {
    /// That of a connection without TLS.
    #[must_use]
    pub const fn plain(address: SocketAddr) -> Self {
        let address = address.ip().to_canonical();
        Self { address, is_tls: false, has_client_certificate: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_one_on_a_socket_of_ipv6_too() {
        for (socket, address) in [
            ("[::ffff:192.0.2.7]:80", "192.0.2.7"),
            ("192.0.2.7:80", "192.0.2.7"),
            ("[2001:db8::1]:80", "2001:db8::1"),
        ] {
            let peer = Peer::plain(socket.parse().unwrap());
            assert_eq!(peer.address, address.parse::<IpAddr>().unwrap());
        }
    }
}
