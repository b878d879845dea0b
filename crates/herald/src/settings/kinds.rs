//! How each kind of value is read, and its bounds.

use std::{
    fmt::Display, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration,
};

use herald_auth::{Address, Algorithm};
use herald_log::{BadOrderPlace, OrderPlace};

use super::access::Document;
use crate::{
    duration,
    logging::{self, Format},
    size,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A hundred years: longer is `forever`.
const RETENTION: RangeInclusive<Duration> = SECOND..=DAY.saturating_mul(36_500);
/// Below, heartbeats are most of the traffic; above, a gone client is not noticed.
pub(super) const HEARTBEAT: RangeInclusive<Duration> = MILLISECOND.saturating_mul(10)..=HOUR;
/// Below, a reader that is only slow is cut.
pub(super) const STALL_TIMEOUT: RangeInclusive<Duration> = MILLISECOND.saturating_mul(100)..=HOUR;
/// A stream that never ends never moves to another replica.
pub(super) const STREAM_MAX_AGE: RangeInclusive<Duration> = SECOND..=DAY.saturating_mul(7);
/// Below, 1500 HER-ids and the other fields have no room; above, so many bytes may wait for each connection.
pub(super) const HEAD_BYTES_MAX: RangeInclusive<usize> = 32 << 10..=1 << 20;
/// Below, a client that thinks between two requests has to connect again; above, a gone one keeps its place.
pub(super) const IDLE_TIMEOUT: RangeInclusive<Duration> = SECOND..=HOUR;
/// Below, a client behind a bad network cannot ask; above, a peer that says nothing keeps its place.
pub(super) const HEAD_TIMEOUT: RangeInclusive<Duration> = SECOND..=SECOND.saturating_mul(600);
/// Below, there is no room for one client and its balancer's checks; above is more than one process can have.
pub(super) const CONNECTIONS_MAX: RangeInclusive<usize> = 16..=1_000_000;
/// As many as there may be at all.
pub(super) const CONNECTIONS_PER_ADDRESS_MAX: RangeInclusive<usize> = 1..=1_000_000;
/// Each costs a task, and what its reader has not taken yet.
pub(super) const HTTP2_STREAMS_MAX: RangeInclusive<u32> = 1..=1000;
/// Each costs a request that nobody waits for.
pub(super) const HTTP2_RESETS_MAX: RangeInclusive<usize> = 1..=1000;
/// Below, a slow network ends an upload; above, one that means no good keeps its memory.
pub(super) const UPLOAD_TIMEOUT: RangeInclusive<Duration> = SECOND..=HOUR;
/// Below, two of the largest bodies have no room; above is more than most machines have.
pub(super) const UPLOADS_BYTES_MAX: RangeInclusive<usize> = 32 << 20..=64 << 30;
/// A client must be able to ask at all; above, nobody is held back.
pub(super) const CLIENT_REQUESTS_MAX: RangeInclusive<u32> = 1..=1_000_000;
/// Likewise.
pub(super) const CLIENT_STREAMS_MAX: RangeInclusive<u32> = 1..=1_000_000;
/// 0 cuts everything at once.
pub(super) const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=HOUR;

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        "must be an address and a port such as 127.0.0.1:8080, [::1]:8080 or localhost:8080".into()
    })
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must name a directory".into()) } else { Ok(text.into()) }
}

pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must name a file".into()) } else { Ok(text.into()) }
}

/// A duration within `bounds`.
pub(super) fn duration(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = duration::parse(text).map_err(|error| error.to_string())?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        let (min, max) = (duration::show(*bounds.start()), duration::show(*bounds.end()));
        Err(format!("must be from {min} to {max}"))
    }
}

/// A whole number within `bounds`.
pub(super) fn count<T: Copy + Display + FromStr + PartialOrd>(
    bounds: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        // Not what else the language takes for a number, a sign before it.
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let value = digits.and_then(|digits| digits.parse().ok());
        let (min, max) = (bounds.start(), bounds.end());
        value
            .filter(|value| bounds.contains(value))
            .ok_or_else(|| format!("must be a whole number from {min} to {max}"))
    }
}

/// A number of bytes within `bounds`.
pub(super) fn bytes(bounds: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        let value = size::parse(text).map_err(|error| error.to_string())?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        let (min, max) = (size::show(*bounds.start()), size::show(*bounds.end()));
        Err(format!("must be from {min} to {max}"))
    }
}

/// What `read` reads, or `word` for nothing of the kind: `forever`, or `none` for a setting that need not be set.
pub(super) fn or<T>(
    word: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| {
        if text == word {
            return Ok(None);
        }
        read(text).map(Some).map_err(|error| format!("{error}, or {word}"))
    }
}

/// How long notifications are kept; `None` is for ever.
pub(crate) fn retention(text: &str) -> Result<Option<Duration>, String> {
    or("forever", duration(RETENTION))(text)
}

pub(super) fn log(text: &str) -> Result<OrderPlace, String> {
    text.parse().map_err(|error: BadOrderPlace| error.to_string())
}

/// Whether tokens are looked at.
pub(super) fn auth(text: &str) -> Result<bool, String> {
    match text {
        "none" => Ok(false),
        "helseid" => Ok(true),
        _ => Err("must be none or helseid".into()),
    }
}

/// A word that may stand in quotes in a header.
pub(super) fn word(text: &str) -> Result<String, String> {
    let is_fine = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !text.is_empty() && text.bytes().all(is_fine) {
        Ok(text.into())
    } else {
        Err("must be visible ASCII without spaces, quotes and backslashes".into())
    }
}

/// An address that clients use.
pub(super) fn public_url(text: &str) -> Result<Address, String> {
    Address::parse(text).ok_or_else(|| {
        "must be a URL such as https://notifications.example.no, without query and fragment".into()
    })
}

/// An address that is asked over a line that nobody else writes to.
pub(super) fn trusted_url(text: &str) -> Result<String, String> {
    herald_auth::check_url(text).map(|()| text.into()).map_err(|error| error.to_string())
}

/// A file, or an address that is asked for the same.
pub(super) fn document(text: &str) -> Result<Document, String> {
    match text {
        "" => Err("must name a file or a URL".into()),
        _ if text.contains("://") => trusted_url(text).map(Document::Url),
        _ => Ok(Document::File(text.into())),
    }
}

/// Algorithms with a comma between each.
pub(super) fn algorithms(text: &str) -> Result<Vec<Algorithm>, String> {
    let algorithms: Result<Vec<Algorithm>, _> =
        text.split(',').map(|name| name.trim().parse()).collect();
    algorithms.map_err(|_| {
        format!(
            "must be some of {}, with a comma between each",
            Algorithm::ALL.map(Algorithm::name).join(",")
        )
    })
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    logging::filter(text).map(|_| text.to_owned()).map_err(|_| {
        "must be error, warn, info, debug, trace, or a filter such as info,herald_http=debug".into()
    })
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "auto" => Ok(Format::Auto),
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("must be auto, text or json".into()),
    }
}
