//! Where a setting's text comes from: flag > environment > file > default.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{Args, InvalidSettings, Key};

/// A key this similar to a known one is taken for a slip of the keyboard, or for a part of its name.
const SIMILARITY_MIN: f64 = 0.32;

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
    /// Settings that have no usable value, each with a violation.
    refused: BTreeSet<Key>,
    violations: Vec<String>,
}

impl Sources {
    pub(super) fn read(args: &Args, environment: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut sources =
            Self { texts: BTreeMap::new(), refused: BTreeSet::new(), violations: Vec::new() };
        let config = args.config.clone().or_else(|| environment("HERALD_CONFIG").map(Into::into));
        let mut file = BTreeMap::new();
        if let Some(path) = &config {
            read_file(path, &mut file, &mut sources.violations);
        }
        for &key in Key::ALL {
            let name = key.environment_name();
            let variable = environment(&name).map(|value| {
                value.into_string().unwrap_or_else(|_| {
                    sources.refuse(key, format!("{name}: must be UTF-8"));
                    key.default_text().to_owned()
                })
            });
            let found = args
                .text(key)
                .map(|text| (text.to_owned(), Source::Flag))
                .or_else(|| variable.map(|text| (text, Source::Environment)))
                .or_else(|| Some((file.remove(&key)?, Source::File(config.clone()?))))
                .unwrap_or_else(|| (key.default_text().to_owned(), Source::Default));
            sources.texts.insert(key, found);
        }
        sources
    }

    /// The value of `key`; its default's after noting what is wrong with it, so that the others are read too.
    pub(super) fn value<T>(&mut self, key: Key, read: impl Fn(&str) -> Result<T, String>) -> T {
        let (text, source) = &self.texts[&key];
        match read(text) {
            Ok(value) => value,
            Err(error) => {
                let violation = format!("{} {:?}: {error}", place(key, source), without_user(text));
                self.refuse(key, violation);
                read(key.default_text()).expect("a default can be read")
            }
        }
    }

    /// What `keys` must say together; nothing when one of them could not be read.
    pub(super) fn check(&mut self, keys: &[Key], holds: bool, violation: impl FnOnce() -> String) {
        if !holds && keys.iter().all(|key| !self.refused.contains(key)) {
            self.violations.push(violation());
        }
    }

    fn refuse(&mut self, key: Key, violation: String) {
        self.refused.insert(key);
        self.violations.push(violation);
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

/// The text without what stands before an `@` in a URL: that may be a password.
fn without_user(text: &str) -> Cow<'_, str> {
    match text.split_once("://").zip(text.rsplit_once('@')) {
        Some(((scheme, _), (_, host))) => format!("{scheme}://…@{host}").into(),
        None => text.into(),
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
        let Some(key) = Key::ALL.iter().copied().find(|key| key.name() == name) else {
            violations.push(format!("{shown}: {name} is not a setting{}", hint(&name)));
            continue;
        };
        match value {
            toml::Value::String(text) => drop(file.insert(key, text)),
            toml::Value::Boolean(value) if key.is_flag() => {
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
    let name = name.replace('_', "-");
    // Edits find slips in short names, common pairs of letters find a part of a long one.
    let likeness = |key: &Key| {
        let edits = strsim::normalized_damerau_levenshtein(&name, key.name());
        f64::midpoint(edits, strsim::sorensen_dice(&name, key.name()))
    };
    let nearest = Key::ALL.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest
        .filter(|key| likeness(key) >= SIMILARITY_MIN)
        .map(|key| format!(", did you mean {}?", key.name()))
        .unwrap_or_default()
}
