//! Where the order of notifications is kept: what `--log` says.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// Where the order is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderPlace {
    /// In the data directory, by this process alone.
    Local,
    /// In a stream of NATS JetStream.
    Jetstream(EngineUrl),
    /// In a table of PostgreSQL.
    Postgres(EngineUrl),
}

/// The URL of an engine. It may have a password, which [`fmt::Display`] and [`fmt::Debug`] leave out.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineUrl(String);

impl EngineUrl {
    /// All of it, with its secrets.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

/// How an engine is reached, and how long it must keep what it is given.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Certificates that are trusted for its TLS, PEM; the system's where there is none.
    pub ca_file: Option<PathBuf>,
    /// A file of NATS credentials (`.creds`).
    pub credentials_file: Option<PathBuf>,
    /// How long notifications are kept: the engine keeps a margin more; `None` is for ever.
    pub retention: Option<Duration>,
}

/// What is wrong with the value of `--log`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be local, nats://HOST:PORT,… (or tls://), or postgres://USER@HOST:PORT,…/DATABASE")]
pub struct BadOrderPlace;

impl FromStr for OrderPlace {
    type Err = BadOrderPlace;

    fn from_str(text: &str) -> Result<Self, BadOrderPlace> {
        let url = || EngineUrl(text.to_owned());
        match text.split_once("://") {
            None if text == "local" => Ok(Self::Local),
            Some(("nats" | "tls", rest)) if !rest.is_empty() => Ok(Self::Jetstream(url())),
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
                Ok(Self::Postgres(url()))
            }
            _ => Err(BadOrderPlace),
        }
    }
}

impl fmt::Display for OrderPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Jetstream(url) | Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands before an `@` may be a name and a password, or a token, and may have any of the other marks in it.
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        write!(f, "{scheme}://")?;
        let hosts = match rest.rsplit_once('@') {
            Some((users, hosts)) => {
                f.write_str(if users.is_empty() { "" } else { "…@" })?;
                hosts
            }
            None => rest,
        };
        // Parameters may hold a password, too.
        match hosts.split_once('?') {
            Some((hosts, parameters)) if parameters.contains("pass") => write!(f, "{hosts}?…"),
            _ => f.write_str(hosts),
        }
    }
}

impl fmt::Debug for EngineUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_shown_without_its_secrets() {
        for (text, shown) in [
            ("local", Some("local")),
            ("nats://a:1,b:2", Some("nats://a:1,b:2")),
            ("nats://me:secret@a:1,me:secret@b:2", Some("nats://…@b:2")),
            ("nats://me:pa?s3cret@h", Some("nats://…@h")),
            ("nats://me:s3,cret@h", Some("nats://…@h")),
            ("postgres://me:pa?s3cret@h/db", Some("postgres://…@h/db")),
            ("postgres://me:s3,cret@h/db", Some("postgres://…@h/db")),
            ("tls://token@a:1", Some("tls://…@a:1")),
            ("postgres://me:s@a:1,b:2/db?x=1", Some("postgres://…@a:1,b:2/db?x=1")),
            ("postgres://a/db?password=secret", Some("postgres://a/db?…")),
            ("nats://", None),
            ("Local", None),
            ("redis://a", None),
        ] {
            let place = text.parse::<OrderPlace>();
            assert_eq!(place.ok().map(|place| place.to_string()).as_deref(), shown, "{text}");
        }
    }
}
