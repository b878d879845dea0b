//! Where the servers are and how they are spoken to: libpq's URL, read the way libpq reads it.

use std::{path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use super::{
    super::place::{EngineSettings, EngineUrl},
    tls::{self, Tls, Trust},
};

/// For one TCP connection. Everything that is waited for has a time-out of its own; this one is only so that no half-open
/// socket is kept.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// A peer that does not acknowledge bytes for so long is gone, whoever notices first.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

const APPLICATION_NAME: &str = "herald";

/// The URL's parameters that go to the library as they are.
const PASSED_ON: [&str; 9] = [
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "options",
    "application_name",
    "channel_binding",
];
/// Those that are read here, because the library knows less of them than libpq does.
const READ_HERE: [&str; 4] = ["sslmode", "sslrootcert", "target_session_attrs", "passfile"];

/// The servers, each with a configuration of its own, and how TLS with them goes.
pub(super) struct Servers {
    pub(super) each: Vec<Config>,
    pub(super) tls: Tls,
}

/// A variable of the environment, where there is one.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads all of it. What is wrong is said without repeating any of the text: a password that was not percent-encoded
/// may be found anywhere in it.
pub(super) fn servers(
    url: &EngineUrl,
    settings: &EngineSettings,
    environment: Environment<'_>,
) -> Result<Servers, String> {
    let (rest, query) = url.secret().split_once('?').unwrap_or((url.secret(), ""));
    let mut here = ReadHere::default();
    let mut passed_on = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("a parameter of the URL has no value")?;
        if PASSED_ON.contains(&key) {
            passed_on.push(pair);
        } else {
            here.read(key, value)?;
        }
    }
    let all: Config = format!("{rest}?{}", passed_on.join("&")).parse().map_err(|_| {
        "the URL is not postgres://USER@HOST:PORT,…/DATABASE (in names and passwords, @ : / ? and % \
         are written as %40 %3A %2F %3F and %25)"
    })?;
    if all.get_hosts().is_empty() && all.get_hostaddrs().is_empty() {
        return Err("the URL names no host".to_owned());
    }
    let (mode, trust) = here.trust(settings)?;
    let each = split(&all)?
        .into_iter()
        .map(|mut config| {
            config.ssl_mode(mode);
            if all.get_password().is_none()
                && let Some(password) = here.password(&config, environment)?
            {
                config.password(password);
            }
            Ok(config)
        })
        .collect::<Result<_, String>>()?;
    Ok(Servers { each, tls: tls::connector(&trust)? })
}

#[derive(Default)]
struct ReadHere {
    ssl_mode: Option<String>,
    root_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
}

impl ReadHere {
    fn read(&mut self, key: &str, value: &str) -> Result<(), String> {
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| "a parameter of the URL is not UTF-8")?
            .into_owned();
        match key {
            "sslmode" => self.ssl_mode = Some(value),
            "sslrootcert" => self.root_file = Some(PathBuf::from(value)),
            "passfile" => self.password_file = Some(PathBuf::from(value)),
            // Which is what is always looked for.
            "target_session_attrs" if matches!(&*value, "read-write" | "primary") => {}
            "target_session_attrs" => {
                return Err("target_session_attrs must be read-write: Herald writes".to_owned());
            }
            _ => {
                let known = [&PASSED_ON[..], &READ_HERE].concat().join(", ");
                return Err(format!("the URL has a parameter that is not one of {known}"));
            }
        }
        Ok(())
    }

    /// libpq's meaning of `sslmode`, with two differences: where a file of certificates is given and no mode, everything
    /// is verified; and without a file it is the system's certificates that are trusted.
    fn trust(&self, settings: &EngineSettings) -> Result<(SslMode, Trust), String> {
        let file = self.root_file.clone().or_else(|| settings.ca_file.clone());
        let mode = match (self.ssl_mode.as_deref(), &file) {
            (Some(mode), _) => mode,
            (None, Some(_)) => "verify-full",
            (None, None) => "prefer",
        };
        Ok(match mode {
            "disable" => (SslMode::Disable, Trust::Anyone),
            "prefer" => (SslMode::Prefer, Trust::Anyone),
            "require" if file.is_none() => (SslMode::Require, Trust::Anyone),
            "require" | "verify-ca" => (SslMode::Require, Trust::Signed(file)),
            "verify-full" => (SslMode::Require, Trust::Named(file)),
            _ => {
                return Err(
                    "sslmode must be disable, prefer, require, verify-ca or verify-full".to_owned()
                );
            }
        })
    }

    fn password(
        &self,
        config: &Config,
        environment: Environment<'_>,
    ) -> Result<Option<String>, String> {
        if let Some(password) = environment("PGPASSWORD") {
            return Ok(Some(password));
        }
        let file = self.password_file.clone().or_else(|| Some(environment("PGPASSFILE")?.into()));
        let Some(file) = file else { return Ok(None) };
        let text = std::fs::read_to_string(&file).map_err(|error| {
            format!("could not read the password file {}: {error}", file.display())
        })?;
        Ok(text.lines().find_map(|line| password_of(line, config)))
    }
}

/// The password of a line `host:port:database:user:password`, if the line is about this server. `*` is any; a backslash
/// takes a `:` or another backslash as it is.
fn password_of(line: &str, config: &Config) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let is_last = fields.len() == 5;
        let field = fields.last_mut()?;
        match character {
            '\\' => field.extend(characters.next()),
            // The password has all that is left.
            ':' if !is_last => fields.push(String::new()),
            other => field.push(other),
        }
    }
    let [host, port, database, user, password] = fields.try_into().ok()?;
    let host_here = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(_)) => "localhost".to_owned(),
        None => config.get_hostaddrs().first()?.to_string(),
    };
    let port_here = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user_here = config.get_user().unwrap_or_default();
    let database_here = config.get_dbname().unwrap_or(user_here);
    let is_match = |field: &str, here: &str| field == "*" || field == here;
    (is_match(&host, &host_here)
        && is_match(&port, &port_here)
        && is_match(&database, database_here)
        && is_match(&user, user_here))
    .then_some(password)
}

/// A configuration for each server: who is the primary is found out by asking all of them.
fn split(all: &Config) -> Result<Vec<Config>, String> {
    let (hosts, addresses, ports) = (all.get_hosts(), all.get_hostaddrs(), all.get_ports());
    let count = hosts.len().max(addresses.len());
    if !(hosts.is_empty() || addresses.is_empty() || hosts.len() == addresses.len()) {
        return Err("the URL has not as many host as hostaddr".to_owned());
    }
    if ports.len() > 1 && ports.len() != count {
        return Err("the URL has not as many ports as hosts".to_owned());
    }
    Ok((0..count)
        .map(|number| {
            let mut one = Config::new();
            match hosts.get(number) {
                Some(Host::Tcp(host)) => {
                    one.host(host);
                }
                Some(Host::Unix(path)) => {
                    one.host_path(path);
                }
                None => {}
            }
            if let Some(address) = addresses.get(number) {
                one.hostaddr(*address);
            }
            one.port(ports.get(number).or(ports.first()).copied().unwrap_or(5432));
            if let Some(user) = all.get_user() {
                one.user(user);
            }
            if let Some(password) = all.get_password() {
                one.password(password);
            }
            if let Some(database) = all.get_dbname() {
                one.dbname(database);
            }
            if let Some(options) = all.get_options() {
                one.options(options);
            }
            one.application_name(all.get_application_name().unwrap_or(APPLICATION_NAME))
                .channel_binding(all.get_channel_binding())
                .connect_timeout(CONNECT_WAIT)
                .tcp_user_timeout(UNACKNOWLEDGED_MAX)
                .keepalives_idle(KEEPALIVE_IDLE)
                .keepalives_interval(KEEPALIVE_INTERVAL);
            one
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str, environment: Environment<'_>) -> Result<Vec<Config>, String> {
        let crate::OrderPlace::Postgres(url) = url.parse().unwrap() else { panic!("{url}") };
        let settings = EngineSettings { ca_file: None, credentials_file: None, retention: None };
        servers(&url, &settings, environment).map(|servers| servers.each)
    }

    fn no_environment(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn each_server_of_a_url_has_what_all_have() {
        let url = "postgres://me:p%40ss@a:1,b,[::1]:3/log?target_session_attrs=read-write\
                   &sslmode=disable&options=-c%20work_mem%3D1MB";
        let each = read(url, &no_environment).unwrap();
        let hosts: Vec<_> = each.iter().map(|one| (one.get_hosts(), one.get_ports())).collect();
        let host = |name: &str| [Host::Tcp(name.to_owned())];
        assert_eq!(
            hosts,
            [(&host("a")[..], &[1][..]), (&host("b")[..], &[5432]), (&host("::1")[..], &[3])]
        );
        for one in each {
            assert_eq!(one.get_user(), Some("me"));
            assert_eq!(one.get_password(), Some(&b"p@ss"[..]));
            assert_eq!(one.get_dbname(), Some("log"));
            assert_eq!(one.get_options(), Some("-c work_mem=1MB"));
            assert_eq!(one.get_application_name(), Some("herald"));
            assert_eq!(one.get_ssl_mode(), SslMode::Disable);
        }
        let url = "postgresql://me@a,b:2/log?hostaddr=10.0.0.1,10.0.0.2&application_name=mine";
        let each = read(url, &no_environment).unwrap();
        assert_eq!(each[1].get_hostaddrs(), ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(each[1].get_application_name(), Some("mine"));
        assert_eq!(each[1].get_ssl_mode(), SslMode::Prefer);
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_secrets() {
        for (url, said) in [
            ("postgres://me:sec?ret=1@a/log", "not one of"),
            ("postgres:///log", "no host"),
            ("postgres://me:secret@a,b/log?hostaddr=10.0.0.1", "as many"),
            ("postgres://me:secret@a/log?sslmode=sometimes", "verify-full"),
            ("postgres://me:secret@a/log?sslmode", "no value"),
            ("postgres://me:secret@a/log?target_session_attrs=any", "read-write"),
            ("postgres://me:secret@a/log?sslcert=/secret", "sslrootcert"),
            ("postgres://me@a/log?sslmode=verify-ca&sslrootcert=/not/there", "/not/there"),
            ("postgres://me@a/log?passfile=/not/there", "/not/there"),
        ] {
            let text = read(url, &no_environment).map(|_| ()).expect_err(url);
            assert!(text.contains(said), "{url}: {text}");
            assert!(!text.contains("ret"), "{url}: {text}");
        }
    }

    #[test]
    fn a_password_is_looked_for_where_libpq_looks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "# mine\n\
                     b:5432:log:me:for b\n\
                     a:1:*:other:not mine\n\
                     a:1:*:me:for \\: a \\\\ and:more\n\
                     *:*:*:*:for all\n";
        std::fs::write(file.path(), lines).unwrap();
        let path = file.path().display().to_string();
        let passwords = |url: &str, environment: Environment<'_>| -> Vec<Option<String>> {
            let text = |one: &Config| {
                let password = one.get_password()?;
                Some(String::from_utf8(password.to_vec()).unwrap())
            };
            read(url, environment).unwrap().iter().map(text).collect()
        };
        let some = |text: &str| Some(text.to_owned());
        let found = [some("for : a \\ and:more"), some("for b"), some("for all")];
        let hosts = "postgres://me@a:1,b,c/log";
        let by_name = |name: &str| (name == "PGPASSFILE").then(|| path.clone());
        assert_eq!(passwords(hosts, &by_name), found);
        assert_eq!(passwords(&format!("{hosts}?passfile={path}"), &no_environment), found);
        let first = |name: &str| (name == "PGPASSWORD").then(|| "first".to_owned());
        assert_eq!(passwords("postgres://me@a/log", &first), [some("first")]);
        assert_eq!(passwords("postgres://me:own@a/log", &first), [some("own")]);
        assert_eq!(passwords(hosts, &no_environment), [None, None, None]);
    }
}
