//! Where to listen, and how patient to be with a peer.

use std::{net::SocketAddr, time::Duration};

/// How many bytes a request's head may have usually, request line included: 1500 HER-ids are 27 kB of it.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a request's head may take: a phone behind a bad network sends one in seconds.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may be without a request before it is closed: longer than balancers keep an idle connection
/// (60 s), so that they close it and not we, under their next request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How many connections there may be at once, where nobody says what the system has room for.
pub const CONNECTIONS_MAX: usize = 50_000;
/// How many connections the ops port has, whatever the API's has.
pub const OPS_CONNECTIONS_MAX: usize = 128;
/// How many requests may run at once on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 200;
/// How many requests of one HTTP/2 connection may have been taken back by their peer before the server has looked at them.
pub const HTTP2_RESETS_MAX: usize = 20;

/// Where to listen, and how patient to be with a peer.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// The API's address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address of health and metrics.
    pub ops_listen: SocketAddr,
    /// A connection whose peer takes nothing of what is written for so long is cut.
    pub stall_timeout: Duration,
    /// How many bytes a request's head may have, request line included; [`HEAD_BYTES_MAX`].
    pub head_bytes_max: usize,
    /// A connection without a request for so long is closed; [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// What a peer may have of the server.
    pub limits: ServerLimits,
}

/// What a peer may have of the server, so that there is enough for the others.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// How long a request's head may take from its first byte, and the first one from when the connection was made;
    /// [`HEAD_TIMEOUT`].
    pub head_timeout: Duration,
    /// How many connections the API may have at once; [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// How many of them one address may have; of IPv6, one network of 64 bits. Nobody counts behind a balancer.
    pub connections_per_address_max: Option<usize>,
    /// How many requests may run at once on one HTTP/2 connection; [`HTTP2_STREAMS_MAX`].
    pub http2_streams_max: u32,
    /// How many requests of one HTTP/2 connection may wait to be looked at although their peer has taken them back;
    /// [`HTTP2_RESETS_MAX`].
    pub http2_resets_max: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            head_timeout: HEAD_TIMEOUT,
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: None,
            http2_streams_max: HTTP2_STREAMS_MAX,
            http2_resets_max: HTTP2_RESETS_MAX,
        }
    }
}
