//! Where a setting's text comes from: flag > environment > file > default.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{Args, InvalidSettings, Key};

/// A key this similar to a known one is taken for a slip of the keyboard.
const SIMILARITY_MIN: f64 = 0.5;

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A flag on the command line.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The TOML file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Each setting's text and source, and what is wrong so far.
pub(super) struct Sources {
    texts: BTreeMap<Key, (String, Source)>,
    violations: Vec<String>,
}

impl Sources {
    pub(super) fn read(
        args: &Args,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, InvalidSettings> {
        let mut violations = Vec::new();
        let mut file = BTreeMap::new();
        let config = args.config.clone().or_else(|| environment("HERALD_CONFIG").map(Into::into));
        if let Some(path) = &config {
            read_file(path, &mut file, &mut violations);
        }
        let mut texts = BTreeMap::new();
        for key in Key::ALL {
            let name = key.environment_name();
            let variable = environment(&name).map(|value| {
                value.into_string().unwrap_or_else(|_| {
                    violations.push(format!("{name}: must be UTF-8"));
                    key.default_text().to_owned()
                })
            });
            let found = args
                .flag(key)
                .map(|text| (text, Source::Flag))
                .or_else(|| variable.map(|text| (text, Source::Environment)))
                .or_else(|| Some((file.remove(&key)?, Source::File(config.clone()?))))
                .unwrap_or_else(|| (key.default_text().to_owned(), Source::Default));
            texts.insert(key, found);
        }
        Ok(Self { texts, violations })
    }

    /// The value of `key`, or `None` after noting what is wrong with it.
    pub(super) fn value<T>(
        &mut self,
        key: Key,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, source) = &self.texts[&key];
        let place = place(key, source);
        read(text).map_err(|error| self.violations.push(format!("{place} {text:?}: {error}"))).ok()
    }

    /// What two addresses, and the lack of authentication, allow.
    pub(super) fn check_addresses(&mut self, api: SocketAddr, ops: SocketAddr, insecure: bool) {
        if api == ops && api.port() != 0 {
            self.violations.push(format!("ops-listen {ops}: must not be the address of the API"));
        }
        if !api.ip().is_loopback() && !insecure {
            self.violations.push(format!(
                "listen {api}: with --auth none everybody who can connect reads and writes everything, so only \
                 loopback is listened on; --insecure-no-auth allows it"
            ));
        }
    }

    pub(super) fn finish(self) -> Result<Vec<(Key, String, Source)>, InvalidSettings> {
        if self.violations.is_empty() {
            let texts = self.texts.into_iter();
            Ok(texts.map(|(key, (text, source))| (key, text, source)).collect())
        } else {
            Err(InvalidSettings(self.violations))
        }
    }
}

/// How a message names a setting: as whoever set it wrote it.
fn place(key: Key, source: &Source) -> String {
    match source {
        Source::Flag | Source::Default => format!("--{}", key.name()),
        Source::Environment => key.environment_name(),
        Source::File(path) => format!("{}: {}", path.display(), key.name()),
    }
}

fn read_file(path: &Path, file: &mut BTreeMap<Key, String>, violations: &mut Vec<String>) {
    let shown = path.display();
    let table =
        fs::read_to_string(path).map_err(|error| format!("{shown}: {error}")).and_then(|text| {
            text.parse().map_err(|error: toml::de::Error| format!("{shown}: {error}"))
        });
    let table: toml::Table = match table {
        Ok(table) => table,
        Err(violation) => return violations.push(violation.trim_end().to_owned()),
    };
    for (name, value) in table {
        let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
            violations.push(format!("{shown}: {name} is not a setting{}", hint(&name)));
            continue;
        };
        match value {
            toml::Value::String(text) => drop(file.insert(key, text)),
            toml::Value::Boolean(value) if key == Key::InsecureNoAuth => {
                file.insert(key, value.to_string());
            }
            _ => violations.push(format!(
                "{shown}: {name} must be a text, such as \"{}\"",
                key.default_text()
            )),
        }
    }
}

/// `, did you mean …?` with the nearest known key, when one is near.
fn hint(name: &str) -> String {
    let likeness = |key: &Key| strsim::jaro_winkler(&name.replace('_', "-"), key.name());
    let nearest = Key::ALL.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest
        .filter(|key| likeness(key) >= SIMILARITY_MIN)
        .map(|key| format!(", did you mean {}?", key.name()))
        .unwrap_or_default()
}
