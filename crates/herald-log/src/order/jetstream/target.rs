//! What the URL of a JetStream log says: where, as whom, and in which stream.

use std::{fmt, path::PathBuf};

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

use super::super::place::{EngineSettings, EngineUrl};

/// The stream that is used if the URL names none.
const STREAM: &str = "HERALD";
/// A name becomes a part of subjects and, on the server, of paths.
const STREAM_NAME_MAX: usize = 64;

/// Where, as whom, and in which stream.
pub(super) struct Target {
    /// As URLs, without names and secrets.
    pub(super) servers: Vec<String>,
    pub(super) needs_tls: bool,
    pub(super) login: Login,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) stream: String,
    /// As people may see it.
    pub(super) shown: String,
}

/// Who asks. Has no `Debug`, because of its secrets.
pub(super) enum Login {
    Nobody,
    User {
        name: String,
        password: String,
    },
    Token(String),
    /// Read for each connection, so that new credentials come into force with the next one.
    File(PathBuf),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Target {
    /// Reads a URL; the error says what is wrong with it, and never repeats what may be a part of a secret.
    pub(super) fn new(url: &EngineUrl, settings: &EngineSettings) -> Result<Self, String> {
        let (scheme, rest) = url.secret().split_once("://").ok_or("it has no scheme")?;
        if !matches!(scheme, "nats" | "tls") {
            return Err("its scheme must be nats or tls".to_owned());
        }
        let (hosts, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let mut servers = Vec::new();
        let mut user = None;
        for (number, host) in hosts.split(',').enumerate() {
            let nth = format!("server number {} of it", number + 1);
            let (login, host) = host.rsplit_once('@').map_or((None, host), |(l, h)| (Some(l), h));
            match (login, user) {
                (Some(_), None) if number > 0 => {
                    return Err(format!("{nth} has a user, and those before it have none"));
                }
                (Some(login), Some(first)) if login != first => {
                    return Err(format!("{nth} has another user or secret than the first one"));
                }
                (Some(login), _) => user = Some(login),
                (None, _) => {}
            }
            servers.push(server(scheme, host).ok_or_else(|| format!("{nth} is not HOST:PORT"))?);
        }
        let login = match (user, &settings.credentials_file) {
            (Some(_), Some(_)) => {
                return Err("it has a user, and there is a credentials file as well".to_owned());
            }
            (Some(user), None) => login(user)?,
            (None, Some(file)) => Login::File(file.clone()),
            (None, None) => Login::Nobody,
        };
        Ok(Self {
            servers,
            needs_tls: scheme == "tls",
            login,
            ca_file: settings.ca_file.clone(),
            stream: stream(parameters)?,
            shown: url.to_string(),
        })
    }

    /// The subject of one log's batches. Its name is a part of it, so that a batch for one log can not get into another
    /// one that has taken its place.
    pub(super) fn subject(&self, log_id: uuid::Uuid) -> String {
        format!("{}.batches.{}", self.stream.to_ascii_lowercase(), log_id.simple())
    }
}

fn server(scheme: &str, host: &str) -> Option<String> {
    let plain =
        !host.is_empty() && !host.contains(['/', '#', '\\']) && !host.contains(char::is_whitespace);
    let url = format!("{scheme}://{host}");
    (plain && url.parse::<ServerAddr>().is_ok_and(|server| !server.host().is_empty()))
        .then_some(url)
}

fn login(user: &str) -> Result<Login, String> {
    let decoded = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .map(String::from)
            .map_err(|_| "its user or secret is not UTF-8".to_owned())
    };
    Ok(match user.split_once(':') {
        Some((name, password)) => {
            Login::User { name: decoded(name)?, password: decoded(password)? }
        }
        None => Login::Token(decoded(user)?),
    })
}

fn stream(parameters: &str) -> Result<String, String> {
    let mut found = None;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("stream", name)) if found.is_none() => found = Some(name),
            Some(("stream", _)) => return Err("it names two streams".to_owned()),
            _ => return Err("the only parameter it may have is stream=NAME".to_owned()),
        }
    }
    let name = found.unwrap_or(STREAM);
    let fits = (1..=STREAM_NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !fits {
        return Err(format!(
            "a stream's name has 1 to {STREAM_NAME_MAX} letters, digits, hyphens and underscores"
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::place::OrderPlace;

    fn target(text: &str, credentials_file: Option<&str>) -> Result<Target, String> {
        let OrderPlace::Jetstream(url) = text.parse().unwrap() else { panic!("{text}") };
        let settings = EngineSettings {
            ca_file: None,
            credentials_file: credentials_file.map(PathBuf::from),
            retention: None,
        };
        Target::new(&url, &settings)
    }

    #[test]
    fn a_url_says_where_as_whom_and_in_which_stream() {
        let plain = target("nats://a:1,b,[::1]:2", None).unwrap();
        assert_eq!(plain.servers, ["nats://a:1", "nats://b", "nats://[::1]:2"]);
        assert!(matches!(plain.login, Login::Nobody) && !plain.needs_tls);
        assert_eq!(plain.stream, "HERALD");
        let log = uuid::Uuid::from_u128(0xAB);
        assert_eq!(plain.subject(log), format!("herald.batches.{:032x}", 0xAB));

        let full =
            target("tls://me:s%40cr%2Ct@a:1,me:s%40cr%2Ct@b:2?stream=Other-1", None).unwrap();
        assert_eq!(full.servers, ["tls://a:1", "tls://b:2"]);
        assert!(full.needs_tls && full.subject(log).starts_with("other-1.batches.0"));
        let Login::User { name, password } = &full.login else { panic!("no user") };
        assert_eq!((name.as_str(), password.as_str()), ("me", "s@cr,t"));
        assert!(!format!("{full:?}").contains("cr"), "{full:?}");

        let token = target("nats://t0k3n@a,b", None).unwrap();
        assert!(matches!(&token.login, Login::Token(token) if token == "t0k3n"));
        let file = target("nats://a", Some("/x.creds")).unwrap();
        assert!(matches!(file.login, Login::File(_)));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_secrets() {
        for (text, credentials_file, complaint) in [
            ("nats://a,,b", None, "server number 2 of it is not HOST:PORT"),
            ("nats://a:port", None, "server number 1 of it is not HOST:PORT"),
            ("nats://a/b", None, "server number 1 of it is not HOST:PORT"),
            ("nats://me:s3cret,x@a", None, "server number 1 of it is not HOST:PORT"),
            (
                "nats://a,me:s3cret@b",
                None,
                "server number 2 of it has a user, and those before it have none",
            ),
            ("nats://me:s3cret@a,me:other@b", None, "server number 2 of it has another user"),
            ("nats://me:s3cret@a", Some("/x"), "a credentials file as well"),
            ("nats://me:%ff@a", None, "not UTF-8"),
            ("nats://a?stream=", None, "a stream's name has 1 to 64"),
            ("nats://a?stream=a.b", None, "a stream's name has 1 to 64"),
            ("nats://a?stream=a&stream=b", None, "two streams"),
            ("nats://a?password=s3cret", None, "the only parameter"),
        ] {
            let error = target(text, credentials_file).expect_err(text);
            assert!(error.contains(complaint), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let longest = "n".repeat(STREAM_NAME_MAX);
        assert!(target(&format!("nats://a?stream={longest}"), None).is_ok());
        assert!(target(&format!("nats://a?stream={longest}n"), None).is_err());
    }
}
