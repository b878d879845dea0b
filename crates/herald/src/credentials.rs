//! Who the client commands are to a server with tokens.

use std::{
    env,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, builder::NonEmptyStringValueParser};
use herald_client::{HelseId, SettingsError};

use crate::output::{self, WrongUsage};

/// Where the key itself may be. It is no flag: everybody on a machine can read those of others.
const KEY: &str = "HERALD_HELSEID_KEY";
/// What a server that asks for a token is answered with.
pub(crate) const ASK: &str =
    "give --helseid-issuer, --helseid-client-id and --helseid-key-file to sign in";
/// All that may say who is calling, or what is asked for, besides flags.
const VARIABLES: [&str; 5] = [
    "HERALD_HELSEID_ISSUER",
    "HERALD_HELSEID_CLIENT_ID",
    "HERALD_HELSEID_KEY_FILE",
    KEY,
    "HERALD_HELSEID_SCOPE",
];
/// A longer file is no key.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// Everybody but the owner.
const OTHERS: u32 = 0o077;

/// Who is calling, for a server that takes tokens of HelseID.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Signing in with HelseID")]
pub(crate) struct HelseIdArgs {
    /// The issuer's address: the server takes its tokens.
    #[arg(
        long,
        value_name = "URL",
        env = "HERALD_HELSEID_ISSUER",
        hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new()
    )]
    helseid_issuer: Option<String>,
    /// The client's id at the issuer.
    #[arg(
        long,
        value_name = "ID",
        env = "HERALD_HELSEID_CLIENT_ID",
        hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new()
    )]
    helseid_client_id: Option<String>,
    /// The client's private key, JWK or PEM; or HERALD_HELSEID_KEY has the key itself.
    #[arg(long, value_name = "FILE", env = "HERALD_HELSEID_KEY_FILE", hide_env_values = true)]
    helseid_key_file: Option<PathBuf>,
    /// What is asked for, one or more scopes with blanks between them [default: nhn:msh/api, to append
    /// nhn:msh/notifications-publish].
    #[arg(long, value_name = "SCOPE", env = "HERALD_HELSEID_SCOPE", hide_env_values = true)]
    helseid_scope: Option<String>,
}

impl HelseIdArgs {
    /// Whether there is anything to sign in with; whether it will do, [`HelseIdArgs::read`] says.
    pub(crate) fn is_given(&self) -> bool {
        self.helseid_issuer.is_some()
    }

    /// The credentials, if there are any, for `scope` unless another is asked for; or wrong usage.
    pub(crate) fn read(&self, scope: &str) -> anyhow::Result<Option<HelseId>> {
        let key = env::var_os(KEY).filter(|key| !key.is_empty());
        let given = [
            ("--helseid-issuer", self.helseid_issuer.is_some()),
            ("--helseid-client-id", self.helseid_client_id.is_some()),
            ("--helseid-key-file", self.helseid_key_file.is_some() || key.is_some()),
        ];
        let (Some(issuer), Some(client_id), true) =
            (&self.helseid_issuer, &self.helseid_client_id, given[2].1)
        else {
            if self.helseid_scope.is_none() && given.iter().all(|(_, is_given)| !is_given) {
                return Ok(None);
            }
            let missing = given.iter().filter(|(_, is_given)| !is_given).map(|(name, _)| *name);
            let missing = missing.collect::<Vec<_>>().join(" and ");
            return Err(WrongUsage(format!(
                "--helseid-issuer, --helseid-client-id and --helseid-key-file (or {KEY}) go together: \
                 there is no {missing}{}",
                set_variables()
            ))
            .into());
        };
        let (place, key, is_open) = match &self.helseid_key_file {
            Some(path) => {
                let (key, is_open) = read_key(path)?;
                (format!("--helseid-key-file {}", path.display()), key, is_open)
            }
            None => (KEY.to_owned(), key.unwrap_or_default().to_string_lossy().into_owned(), false),
        };
        let helseid = HelseId::new(issuer, client_id, &key).map_err(|error| match error {
            SettingsError::Key { why, .. } => WrongUsage(format!("{place}: {why}")),
            SettingsError::ClientId => WrongUsage(format!("--helseid-client-id: {error}")),
            error => WrongUsage(format!("--helseid-issuer: {error}")),
        })?;
        if is_open {
            output::say(format!(
                "warning: others than its owner may read or change {}, a private key: chmod 600 \
                 keeps it private",
                self.helseid_key_file.as_deref().unwrap_or(Path::new("")).display()
            ));
        }
        Ok(Some(helseid.scope(self.helseid_scope.as_deref().unwrap_or(scope))))
    }
}

/// Somebody who gave no flag may not know of these.
fn set_variables() -> String {
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let set: Vec<_> = VARIABLES.into_iter().filter(is_set).collect();
    match set.as_slice() {
        [] => String::new(),
        [name] => format!(" ({name} is set)"),
        names => format!(" ({} are set)", names.join(" and ")),
    }
}

/// The key's text, and whether others than its owner may read or change the file, which is used all the same.
fn read_key(path: &Path) -> anyhow::Result<(String, bool)> {
    let wrong = |why: &str| WrongUsage(format!("--helseid-key-file {}: {why}", path.display()));
    let wrong_io = |error: io::Error| wrong(&error.to_string());
    let file = File::open(path).map_err(wrong_io)?;
    let metadata = file.metadata().map_err(wrong_io)?;
    let mut key = Vec::new();
    file.take(KEY_BYTES_MAX + 1).read_to_end(&mut key).map_err(wrong_io)?;
    if key.len() as u64 > KEY_BYTES_MAX {
        return Err(wrong(&format!("it has more than {KEY_BYTES_MAX} bytes")).into());
    }
    let is_open = metadata.is_file() && metadata.permissions().mode() & OTHERS != 0;
    let key = String::from_utf8(key).map_err(|_| wrong("it is no text"))?;
    Ok((key, is_open))
}
