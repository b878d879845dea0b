//! The flags of `herald serve`, made from the table.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, value_parser};

use super::Key;

const CONFIG: &str = "config";

/// The flags of `herald serve`. What is left out comes from the environment, the file, or is the default.
///
/// They are texts here, so that a value is read in one place wherever it came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    texts: BTreeMap<Key, String>,
    /// The TOML file.
    pub config: Option<PathBuf>,
}

impl Args {
    /// As if these were given on the command line; a later one of the same key wins.
    pub(crate) fn with(texts: &[(Key, &str)]) -> Self {
        let texts = texts.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        Self { texts, config: None }
    }

    pub(super) fn text(&self, key: Key) -> Option<&str> {
        self.texts.get(&key).map(String::as_str)
    }
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(
                "A TOML file with any of these settings, named like the flags [env: HERALD_CONFIG]",
            );
        command.args(Key::ALL.iter().copied().map(argument)).arg(config)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: Key) -> Arg {
    let argument =
        Arg::new(key.name()).long(key.name()).help(key.help()).help_heading(key.heading());
    match key.value_name() {
        Some(value_name) => argument.value_name(value_name),
        None => argument.action(ArgAction::SetTrue),
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for &key in Key::ALL {
            let text = if key.is_flag() {
                matches.get_flag(key.name()).then(|| "true".to_owned())
            } else {
                matches.get_one(key.name()).cloned()
            };
            self.texts.extend(text.map(|text| (key, text)));
        }
        self.config = matches.get_one(CONFIG).cloned().or(self.config.take());
        Ok(())
    }
}
