//! The server's settings: flag > environment > file > default, each with where it came from.
//!
//! A new one is a row in `table.rs`, a field here, and a line in [`Settings::read`] with a reader of `kinds.rs`.

mod access;
mod args;
mod kinds;
mod sources;
mod table;
mod tls;

use std::{ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub(crate) use access::{Auth, Document, HelseIdSettings};
pub(crate) use args::Args;
use herald_http::server::TlsSettings;
use herald_log::OrderPlace;
pub(crate) use kinds::retention;
pub(crate) use sources::Source;
use sources::Sources;
pub(crate) use table::Key;

use crate::logging::Format;

/// The settings, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The API's address.
    pub listen: SocketAddr,
    /// The address of health and metrics.
    pub ops_listen: SocketAddr,
    /// Everything that the server keeps.
    pub data_dir: PathBuf,
    /// How long a notification is kept; `None` keeps all.
    pub retention: Option<Duration>,
    /// Where the order of notifications is kept.
    pub log: OrderPlace,
    /// How the engine of a cluster's log is reached.
    pub log_credentials: Option<PathBuf>,
    /// Whose certificates it may show.
    pub log_ca: Option<PathBuf>,
    /// How often a silent stream gets a comment line.
    pub heartbeat: Duration,
    /// When a reader that takes nothing is cut off.
    pub stall_timeout: Duration,
    /// How old a stream may get.
    pub stream_max_age: Duration,
    /// How many bytes a request's head may have.
    pub head_bytes_max: usize,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// When a connection without a request is closed.
    pub idle_timeout: Duration,
    /// How many connections the API may have; `None` goes by what the system has room for.
    pub connections_max: Option<usize>,
    /// How many of them one address may have.
    pub connections_per_address_max: Option<usize>,
    /// How many requests may run at once on one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// How many requests an HTTP/2 peer may take back before they are looked at.
    pub http2_resets_max: usize,
    /// How long a request's body is waited for in all.
    pub upload_timeout: Duration,
    /// How much memory the bodies of all requests may have together.
    pub uploads_bytes_max: usize,
    /// How many requests a second one client may make.
    pub client_requests_max: u32,
    /// How many streams one client may have open.
    pub client_streams_max: u32,
    /// How long a stop may take.
    pub drain: Duration,
    /// Who may read what.
    pub auth: Auth,
    /// Whether to listen on more than loopback without authentication.
    pub insecure_no_auth: bool,
    /// What the API is served over, if it is TLS.
    pub tls: Option<TlsSettings>,
    /// What is logged, a filter that [`crate::logging::filter`] reads.
    pub log_level: String,
    /// How it is logged.
    pub log_format: Format,
    /// Each setting's text, and where it came from.
    pub origins: Vec<(Key, String, Source)>,
}

/// Settings that cannot be used; every violation, one a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidSettings(Vec<String>);

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for InvalidSettings {}

impl Settings {
    /// Reads the settings; `environment` is asked for each variable.
    ///
    /// # Errors
    /// [`InvalidSettings`] with everything that is wrong.
    pub(crate) fn read(
        args: &Args,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, InvalidSettings> {
        let mut sources = Sources::read(args, environment);
        let settings = Self {
            listen: sources.value(Key::Listen, kinds::address),
            ops_listen: sources.value(Key::OpsListen, kinds::address),
            data_dir: sources.value(Key::DataDir, kinds::path),
            retention: sources.value(Key::Retention, kinds::retention),
            log: sources.value(Key::Log, kinds::log),
            log_credentials: sources.value(Key::LogCredentials, kinds::or("none", kinds::file)),
            log_ca: sources.value(Key::LogCa, kinds::or("none", kinds::file)),
            heartbeat: sources.value(Key::Heartbeat, kinds::duration(kinds::HEARTBEAT)),
            stall_timeout: sources.value(Key::StallTimeout, kinds::duration(kinds::STALL_TIMEOUT)),
            stream_max_age: sources
                .value(Key::StreamMaxAge, kinds::duration(kinds::STREAM_MAX_AGE)),
            head_bytes_max: sources.value(Key::HeadBytesMax, kinds::bytes(kinds::HEAD_BYTES_MAX)),
            head_timeout: sources.value(Key::HeadTimeout, kinds::duration(kinds::HEAD_TIMEOUT)),
            idle_timeout: sources.value(Key::IdleTimeout, kinds::duration(kinds::IDLE_TIMEOUT)),
            connections_max: sources.value(
                Key::ConnectionsMax,
                kinds::or("auto", kinds::count(kinds::CONNECTIONS_MAX)),
            ),
            connections_per_address_max: sources.value(
                Key::ConnectionsPerAddressMax,
                kinds::or("none", kinds::count(kinds::CONNECTIONS_PER_ADDRESS_MAX)),
            ),
            http2_streams_max: sources
                .value(Key::Http2StreamsMax, kinds::count(kinds::HTTP2_STREAMS_MAX)),
            http2_resets_max: sources
                .value(Key::Http2ResetsMax, kinds::count(kinds::HTTP2_RESETS_MAX)),
            upload_timeout: sources
                .value(Key::UploadTimeout, kinds::duration(kinds::UPLOAD_TIMEOUT)),
            uploads_bytes_max: sources
                .value(Key::UploadsBytesMax, kinds::bytes(kinds::UPLOADS_BYTES_MAX)),
            client_requests_max: sources
                .value(Key::ClientRequestsMax, kinds::count(kinds::CLIENT_REQUESTS_MAX)),
            client_streams_max: sources
                .value(Key::ClientStreamsMax, kinds::count(kinds::CLIENT_STREAMS_MAX)),
            drain: sources.value(Key::Drain, kinds::duration(kinds::DRAIN)),
            auth: Auth::read(&mut sources),
            insecure_no_auth: sources.value(Key::InsecureNoAuth, kinds::boolean),
            tls: tls::read(&mut sources),
            log_level: sources.value(Key::LogLevel, kinds::log_level),
            log_format: sources.value(Key::LogFormat, kinds::log_format),
            origins: Vec::new(),
        };
        settings.check_together(&mut sources);
        Ok(Self { origins: sources.finish()?, ..settings })
    }

    /// What no setting says alone.
    fn check_together(&self, sources: &mut Sources) {
        let Self { listen: api, ops_listen: ops, .. } = self;
        sources.check(&[Key::Listen, Key::OpsListen], api != ops || api.port() == 0, || {
            format!("ops-listen {ops}: must not be the address of the API")
        });
        let is_guarded = api.ip().is_loopback() || self.insecure_no_auth || self.auth != Auth::None;
        sources.check(&[Key::Listen, Key::Auth, Key::InsecureNoAuth], is_guarded, || {
            format!(
                "listen {api}: with --auth none everybody who can connect reads and writes everything, so only \
                 loopback is listened on; --auth helseid looks at tokens, --insecure-no-auth allows it all the same"
            )
        });
    }
}

#[cfg(test)]
mod tests;
