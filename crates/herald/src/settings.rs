//! The server's settings: flag > environment > file > default, each with where it came from.

mod kinds;
mod sources;

use std::{ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args as ClapArgs;
pub(crate) use sources::Source;
use sources::Sources;

use crate::logging::Format;

/// The flags of `herald serve`. What is left out comes from the environment, the file, or is the default.
///
/// They are texts here, so that a value is read in one place wherever it came from.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Args {
    /// The API's address and port; port 0 takes a free one [env: HERALD_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// The address and port of health and metrics [env: HERALD_OPS_LISTEN] [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS")]
    pub ops_listen: Option<String>,
    /// Everything that the server keeps [env: HERALD_DATA_DIR] [default: ./herald-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// How long a notification is kept, or `forever` [env: HERALD_RETENTION] [default: 30d]
    #[arg(long, value_name = "DURATION")]
    pub retention: Option<String>,
    /// How often a silent stream gets a comment line [env: HERALD_HEARTBEAT] [default: 15s]
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// A stream whose reader takes nothing for so long is cut off [env: HERALD_STALL_TIMEOUT] [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub stall_timeout: Option<String>,
    /// How old a stream may get; each ends between 0.8 and 1.0 of it [env: HERALD_STREAM_MAX_AGE] [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub stream_max_age: Option<String>,
    /// How long a stop may take [env: HERALD_DRAIN] [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub drain: Option<String>,
    /// Where the order of notifications is kept: `local` [env: HERALD_LOG] [default: local]
    #[arg(long, value_name = "LOG")]
    pub log: Option<String>,
    /// Who may read what: `none` lets everybody read everything [env: HERALD_AUTH] [default: none]
    #[arg(long, value_name = "AUTH")]
    pub auth: Option<String>,
    /// With `--auth none`: listen on more than loopback all the same [env: HERALD_INSECURE_NO_AUTH]
    #[arg(long)]
    pub insecure_no_auth: bool,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or `info,herald_http=debug`
    /// [env: HERALD_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// How it is logged: `text`, `json`, or `auto`: text on a terminal [env: HERALD_LOG_FORMAT] [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// A TOML file with any of these settings, named like the flags [env: HERALD_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Args {
    fn flag(&self, key: Key) -> Option<String> {
        match key {
            Key::Listen => self.listen.clone(),
            Key::OpsListen => self.ops_listen.clone(),
            Key::DataDir => self.data_dir.clone(),
            Key::Retention => self.retention.clone(),
            Key::Heartbeat => self.heartbeat.clone(),
            Key::StallTimeout => self.stall_timeout.clone(),
            Key::StreamMaxAge => self.stream_max_age.clone(),
            Key::Drain => self.drain.clone(),
            Key::Log => self.log.clone(),
            Key::Auth => self.auth.clone(),
            Key::InsecureNoAuth => self.insecure_no_auth.then(|| "true".to_owned()),
            Key::LogLevel => self.log_level.clone(),
            Key::LogFormat => self.log_format.clone(),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The API's address.
    Listen,
    /// The address of health and metrics.
    OpsListen,
    /// Everything that the server keeps.
    DataDir,
    /// How long a notification is kept.
    Retention,
    /// How often a silent stream gets a comment line.
    Heartbeat,
    /// When a reader that takes nothing is cut off.
    StallTimeout,
    /// How old a stream may get.
    StreamMaxAge,
    /// How long a stop may take.
    Drain,
    /// Where the order is kept.
    Log,
    /// Who may read what.
    Auth,
    /// Whether to listen on more than loopback without authentication.
    InsecureNoAuth,
    /// What is logged.
    LogLevel,
    /// How it is logged.
    LogFormat,
}

impl Key {
    /// Every setting, as printed at start.
    pub(crate) const ALL: [Self; 13] = [
        Self::Listen,
        Self::OpsListen,
        Self::DataDir,
        Self::Retention,
        Self::Heartbeat,
        Self::StallTimeout,
        Self::StreamMaxAge,
        Self::Drain,
        Self::Log,
        Self::Auth,
        Self::InsecureNoAuth,
        Self::LogLevel,
        Self::LogFormat,
    ];

    /// Its name as a flag, without the dashes, and in the file.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::OpsListen => "ops-listen",
            Self::DataDir => "data-dir",
            Self::Retention => "retention",
            Self::Heartbeat => "heartbeat",
            Self::StallTimeout => "stall-timeout",
            Self::StreamMaxAge => "stream-max-age",
            Self::Drain => "drain",
            Self::Log => "log",
            Self::Auth => "auth",
            Self::InsecureNoAuth => "insecure-no-auth",
            Self::LogLevel => "log-level",
            Self::LogFormat => "log-format",
        }
    }

    /// Its value when nobody says anything.
    #[must_use]
    pub(crate) const fn default_text(self) -> &'static str {
        match self {
            Self::Listen => "127.0.0.1:8080",
            Self::OpsListen => "127.0.0.1:9464",
            Self::DataDir => "./herald-data",
            Self::Retention => "30d",
            Self::Heartbeat => "15s",
            Self::StallTimeout => "60s",
            Self::StreamMaxAge => "1h",
            Self::Drain => "10s",
            Self::Log => "local",
            Self::Auth => "none",
            Self::InsecureNoAuth => "false",
            Self::LogLevel => "info",
            Self::LogFormat => "auto",
        }
    }

    /// Its name in the environment.
    #[must_use]
    pub(crate) fn environment_name(self) -> String {
        format!("HERALD_{}", self.name().to_ascii_uppercase().replace('-', "_"))
    }
}

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
    /// How often a silent stream gets a comment line.
    pub heartbeat: Duration,
    /// When a reader that takes nothing is cut off.
    pub stall_timeout: Duration,
    /// How old a stream may get.
    pub stream_max_age: Duration,
    /// How long a stop may take.
    pub drain: Duration,
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
        let mut sources = Sources::read(args, environment)?;
        let settings = (|| {
            let listen = sources.value(Key::Listen, kinds::address);
            let ops_listen = sources.value(Key::OpsListen, kinds::address);
            let data_dir = sources.value(Key::DataDir, kinds::path);
            let retention = sources.value(Key::Retention, kinds::retention);
            let heartbeat = sources.value(Key::Heartbeat, kinds::heartbeat);
            let stall_timeout = sources.value(Key::StallTimeout, kinds::stall_timeout);
            let stream_max_age = sources.value(Key::StreamMaxAge, kinds::stream_max_age);
            let drain = sources.value(Key::Drain, kinds::drain);
            let log = sources.value(Key::Log, kinds::log);
            let auth = sources.value(Key::Auth, kinds::auth);
            let insecure_no_auth = sources.value(Key::InsecureNoAuth, kinds::boolean);
            let log_level = sources.value(Key::LogLevel, kinds::log_level);
            let log_format = sources.value(Key::LogFormat, kinds::log_format);
            ((), ()) = (log?, auth?);
            let (listen, ops_listen) = (listen?, ops_listen?);
            sources.check_addresses(listen, ops_listen, insecure_no_auth?);
            Some(Self {
                listen,
                ops_listen,
                data_dir: data_dir?,
                retention: retention?,
                heartbeat: heartbeat?,
                stall_timeout: stall_timeout?,
                stream_max_age: stream_max_age?,
                drain: drain?,
                log_level: log_level?,
                log_format: log_format?,
                origins: Vec::new(),
            })
        })();
        let origins = sources.finish()?;
        let settings = settings.expect("a missing value is a violation");
        Ok(Self { origins, ..settings })
    }
}

#[cfg(test)]
mod tests;
