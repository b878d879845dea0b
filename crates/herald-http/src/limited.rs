//! The bounds that keep one peer from taking the server away from the others, and how often each was met.

use metrics::counter;

use crate::metrics::LIMITED;

/// A bound that a peer may meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// All connections of a port are busy: a new one was turned away.
    Connections,
    /// An idle connection was closed to make room for a new one.
    ConnectionsIdle,
    /// One address has too many connections.
    ConnectionsPerAddress,
    /// A request's head is too large.
    HeadBytes,
    /// A request's head took too long.
    HeadTime,
    /// A connection had no request for too long.
    Idle,
    /// A request's body took too long, or paused for too long.
    UploadTime,
    /// The bodies of all requests have no room for this one.
    Uploads,
    /// A client makes too many requests.
    ClientRequests,
    /// A client has too many streams open.
    ClientStreams,
    /// An HTTP/2 connection asked for more than is reasonable, most often resets.
    Http2,
}

impl Limit {
    pub(crate) const ALL: [Self; 11] = [
        Self::Connections,
        Self::ConnectionsIdle,
        Self::ConnectionsPerAddress,
        Self::HeadBytes,
        Self::HeadTime,
        Self::Idle,
        Self::UploadTime,
        Self::Uploads,
        Self::ClientRequests,
        Self::ClientStreams,
        Self::Http2,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsIdle => "connections-idle",
            Self::ConnectionsPerAddress => "connections-per-address",
            Self::HeadBytes => "head-bytes",
            Self::HeadTime => "head-time",
            Self::Idle => "idle",
            Self::UploadTime => "upload-time",
            Self::Uploads => "uploads",
            Self::ClientRequests => "client-requests",
            Self::ClientStreams => "client-streams",
            Self::Http2 => "http2",
        }
    }

    /// A peer has met it.
    pub(crate) fn met(self) {
        self.met_by(1);
    }

    /// So many have met it; 0 makes it known before anything has happened.
    pub(crate) fn met_by(self, count: u64) {
        counter!(LIMITED, "limit" => self.label()).increment(count);
    }
}
