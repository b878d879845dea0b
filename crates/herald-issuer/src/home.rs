//! A directory with all that a first afternoon needs: a signing key, a client with its key, and organisations.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use herald_auth::{Algorithm, InvalidKey, PrivateKey, Unsignable};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use uuid::Uuid;

use crate::keys::{KeyError, kind_of};

/// The client that is made.
pub const HOME_CLIENT: &str = "laptop";
/// The scopes that it may ask for: to read, and to append.
pub const HOME_SCOPES: [&str; 2] = ["nhn:msh/api", "nhn:msh/notifications-publish"];
/// Its organisation; the number is made up.
pub const HOME_ORGANISATION: &str = "310000000";
/// The HER-ids of that organisation.
pub const HOME_HER_IDS: [u32; 3] = [8_139_764, 8_139_765, 90_215];

/// The files of an issuer on a laptop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The private JWK that signs tokens; for its owner's eyes.
    pub signing_key: PathBuf,
    /// The private JWK of [`HOME_CLIENT`]; for its owner's eyes.
    pub client_key: PathBuf,
    /// The client file.
    pub clients: PathBuf,
    /// Organisation numbers and their HER-ids, as a server of notifications reads them.
    pub organisations: PathBuf,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file or the directory cannot be read or written.
    #[error("could not use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of a key holds none.
    #[error("could not read the key in {}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidKey,
    },
    /// No key can be made.
    #[error(transparent)]
    Make(#[from] KeyError),
}

impl From<Unsignable> for HomeError {
    fn from(error: Unsignable) -> Self {
        KeyError::from(error).into()
    }
}

impl Home {
    /// Where everything is in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            signing_key: dir.join("signing-key.json"),
            client_key: dir.join(format!("{HOME_CLIENT}-key.json")),
            clients: dir.join("clients.json"),
            organisations: dir.join("organisations.json"),
        }
    }

    /// Makes what is missing, and changes nothing that is there.
    ///
    /// # Errors
    /// [`HomeError`] names the file.
    pub fn fill(&self) -> Result<(), HomeError> {
        if !self.clients.exists() {
            if !self.client_key.exists() {
                write(&self.client_key, &new_key(Algorithm::Es256, HOME_CLIENT)?)?;
            }
            let key = read_key(&self.client_key)?;
            write(&self.clients, &pretty(&clients(&key)))?;
        }
        if !self.organisations.exists() {
            write(&self.organisations, &pretty(&json!({ HOME_ORGANISATION: HOME_HER_IDS })))?;
        }
        Ok(())
    }

    /// The key that signs tokens, made for `algorithm` if it is missing.
    ///
    /// # Errors
    /// [`HomeError`] names the file, or says that no such key can be made.
    pub fn signing_key(&self, algorithm: Algorithm) -> Result<PrivateKey, HomeError> {
        if !self.signing_key.exists() {
            // A name of its own: whoever verifies may have keys of another directory still.
            let kid = Uuid::new_v4().to_string();
            write(&self.signing_key, &new_key(algorithm, &kid)?)?;
        }
        read_key(&self.signing_key)
    }
}

fn new_key(algorithm: Algorithm, kid: &str) -> Result<String, HomeError> {
    Ok(PrivateKey::generate_jwk(kind_of(algorithm)?, kid)? + "\n")
}

fn clients(key: &PrivateKey) -> Value {
    let public = key.public().to_jwk();
    let mut jwk: Value = serde_json::from_str(&public).expect("a JWK is JSON");
    jwk["kid"] = key.kid().into();
    json!({"clients": [{
        "client_id": HOME_CLIENT,
        "keys": [jwk],
        "scopes": HOME_SCOPES,
        "lifetime": "10m",
        "claims": {
            "helseid://claims/client/client_name": "Journal on a laptop",
            "helseid://claims/client/claims/orgnr_parent": HOME_ORGANISATION,
            "nhn:msh/client/claims/herid": "0",
        },
    }]})
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn read_key(path: &Path) -> Result<PrivateKey, HomeError> {
    let text = fs::read_to_string(path)
        .map_err(|source| HomeError::Io { path: path.to_owned(), source })?;
    text.parse().map_err(|source| HomeError::Key { path: path.to_owned(), source })
}

/// Whole or not at all, for its owner only, and never over a file that is there.
fn write(path: &Path, text: &str) -> Result<(), HomeError> {
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist_noclobber(path)?;
        Ok(())
    };
    write().map_err(|source| HomeError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_filled_once_and_keys_are_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(&dir.path().join("a/b"));
        home.fill().unwrap();
        let kid = home.signing_key(Algorithm::Es384).unwrap().kid().map(ToOwned::to_owned);
        let files = [&home.signing_key, &home.client_key, &home.clients, &home.organisations];
        let texts = files.map(|path| fs::read_to_string(path).unwrap());
        for path in &files[..2] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        home.fill().unwrap();
        let again = home.signing_key(Algorithm::Es256).unwrap();
        assert_eq!((again.kid(), again.algorithm()), (kid.as_deref(), Algorithm::Es384));
        assert_eq!(files.map(|path| fs::read_to_string(path).unwrap()), texts);
        assert_eq!(fs::read_dir(dir.path().join("a/b")).unwrap().count(), 4);
    }

    #[test]
    fn a_client_file_that_is_missing_is_made_for_the_key_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        home.fill().unwrap();
        let clients = fs::read_to_string(&home.clients).unwrap();
        fs::remove_file(&home.clients).unwrap();
        home.fill().unwrap();
        assert_eq!(fs::read_to_string(&home.clients).unwrap(), clients);
        assert!(!clients.contains("\"d\""));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let refused = home.signing_key(Algorithm::Rs256).unwrap_err();
        assert!(matches!(refused, HomeError::Make(KeyError::Given(Algorithm::Rs256))));
        fs::write(&home.client_key, "{}").unwrap();
        assert!(home.fill().unwrap_err().to_string().contains("laptop-key.json"));
        let file = Home::new(&home.client_key);
        assert!(file.fill().unwrap_err().to_string().contains("laptop-key.json"));
    }
}
