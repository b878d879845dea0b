//! Who may ask for tokens, and what their tokens say.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use herald_auth::{Jwk, KeySet, PublicKey, UnusableJwk, WatchedFile};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::{info, warn};

/// How large a client file may be.
pub const CLIENT_FILE_BYTES_MAX: usize = 1024 * 1024;
/// How many characters a client's id may have, 1 at least, all of them visible ASCII.
pub const CLIENT_ID_CHARS_MAX: usize = 200;
/// How long a token may be valid, 1 s at least.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One who may ask for tokens.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// The keys that may sign its assertions.
    pub keys: KeySet,
    /// What it may ask for; all of it is what it gets when it asks for nothing.
    pub scopes: Vec<String>,
    /// How long its tokens are valid, whole seconds; as the issuer's settings say when none.
    pub lifetime: Option<Duration>,
    /// What its tokens say beside, or instead of, what all tokens say; null leaves a claim out.
    pub claims: Map<String, Value>,
}

impl Client {
    /// A client that may ask for nothing yet.
    #[must_use]
    pub fn new(id: impl Into<String>, key: PublicKey) -> Self {
        let (scopes, claims) = (Vec::new(), Map::new());
        Self { id: id.into(), keys: KeySet::of(key), scopes, lifetime: None, claims }
    }

    /// The same client, which may ask for this too.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scopes.push(scope.into());
        self
    }

    /// The same client, whose tokens say this too.
    #[must_use]
    pub fn with_claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }
}

/// Where the clients are written.
#[derive(Clone, Debug)]
pub enum ClientSource {
    /// These, for ever.
    Given(Vec<Client>),
    /// A file, looked at whenever a token is asked for, so that a change counts at once.
    File(PathBuf),
}

impl From<Vec<Client>> for ClientSource {
    fn from(clients: Vec<Client>) -> Self {
        Self::Given(clients)
    }
}

impl From<PathBuf> for ClientSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// A text that is no client file.
#[derive(Debug, thiserror::Error)]
pub enum InvalidClients {
    /// Not of the right shape.
    #[error("it is no client file: {0}")]
    Form(#[from] serde_json::Error),
    /// One client is not as it should be.
    #[error("client {id}: {what}")]
    Client {
        /// Its id.
        id: String,
        /// What is wrong, and what should be.
        what: String,
    },
}

/// A client file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not read the clients from {}", path.display())]
pub struct UnreadableClients {
    path: PathBuf,
    #[source]
    source: FileError,
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Invalid(#[from] InvalidClients),
}

/// Clients by id.
#[derive(Debug, Default)]
pub(crate) struct Clients(HashMap<String, Client>);

impl Clients {
    pub(crate) fn by_id(&self, id: &str) -> Option<&Client> {
        self.0.get(id)
    }

    fn of(clients: Vec<Client>) -> Self {
        Self(clients.into_iter().map(|client| (client.id.clone(), client)).collect())
    }

    fn parse(text: &[u8]) -> Result<Self, InvalidClients> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            clients: Vec<Written>,
        }
        let file: File = serde_json::from_slice(text)?;
        let mut clients = Self::default();
        for written in file.clients {
            let id = written.client_id.clone();
            let refused = |what| InvalidClients::Client { id: id.escape_debug().collect(), what };
            let client = written.read().map_err(refused)?;
            if clients.0.insert(id.clone(), client).is_some() {
                return Err(refused("it is there twice".to_owned()));
            }
        }
        Ok(clients)
    }
}

/// A client as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    client_id: String,
    #[serde(default)]
    keys: Option<Value>,
    #[serde(default)]
    key_pem: Option<String>,
    scopes: Vec<String>,
    #[serde(default)]
    lifetime: Option<String>,
    #[serde(default)]
    claims: Map<String, Value>,
}

impl Written {
    fn read(self) -> Result<Client, String> {
        let Self { client_id: id, keys, key_pem, scopes, lifetime, claims } = self;
        let is_visible = id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(1..=CLIENT_ID_CHARS_MAX).contains(&id.len()) {
            return Err(format!(
                "client_id must have 1 to {CLIENT_ID_CHARS_MAX} visible ASCII characters"
            ));
        }
        if let Some(scope) = scopes.iter().find(|scope| !is_scope(scope)) {
            return Err(format!("{scope:?} is no scope: visible ASCII, no spaces, no quotes"));
        }
        let keys = read_keys(keys, key_pem.as_deref())?;
        let lifetime = lifetime.as_deref().map(read_lifetime).transpose()?;
        Ok(Client { id, keys, scopes, lifetime, claims })
    }
}

/// RFC 6749, section 3.3.
fn is_scope(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

/// One JWK, an array of them, or a set; and PEM.
fn read_keys(keys: Option<Value>, pem: Option<&str>) -> Result<KeySet, String> {
    let mut keys = match keys {
        None => Vec::new(),
        Some(Value::Array(keys)) => keys,
        Some(Value::Object(mut set)) => match set.remove("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err("keys in keys must be an array of JWKs".to_owned()),
            None => vec![set.into()],
        },
        Some(_) => return Err("keys must be an array of public JWKs, or a set of them".to_owned()),
    };
    if let Some(pem) = pem {
        let key: PublicKey = pem.parse().map_err(|error| format!("key_pem: {error}"))?;
        let jwk = serde_json::from_str(&key.to_jwk());
        keys.push(jwk.map_err(|error| format!("key_pem: {error}"))?);
    }
    if keys.is_empty() {
        return Err("it has neither keys nor key_pem".to_owned());
    }
    for (place, key) in keys.iter().enumerate() {
        usable(key).map_err(|error| format!("key {}: {error}", place + 1))?;
    }
    let set = json!({ "keys": keys }).to_string();
    KeySet::parse(set.as_bytes()).map_err(|error| error.to_string())
}

/// A set leaves out what it cannot use; here its owner must hear of it.
fn usable(key: &Value) -> Result<(), String> {
    let jwk = Jwk::deserialize(key).map_err(|_| "it is no JWK".to_owned())?;
    match PublicKey::try_from(&jwk) {
        Err(UnusableJwk::Private) => {
            return Err("it is a private key: only the client may have that".to_owned());
        }
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    let alone = json!({ "keys": [key] }).to_string();
    match KeySet::parse(alone.as_bytes()) {
        Ok(set) if !set.is_empty() => Ok(()),
        Ok(_) | Err(_) => Err("its use or alg is not for signatures with such a key".to_owned()),
    }
}

fn read_lifetime(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|time: SignedDuration| Duration::try_from(time).ok());
    let time = time.filter(|time| time.subsec_nanos() == 0 && !time.is_zero());
    time.filter(|time| *time <= LIFETIME_MAX).ok_or_else(|| {
        let hours = LIFETIME_MAX.as_secs() / 3600;
        format!("lifetime must be whole seconds such as 90s or 10m, 1s to {hours}h")
    })
}

/// The clients as they are now.
#[derive(Debug)]
pub(crate) enum Registry {
    Given(Arc<Clients>),
    File(ClientFile),
}

/// A file, and what was read from it last.
#[derive(Debug)]
pub(crate) struct ClientFile {
    path: PathBuf,
    // A lock for as long as it takes to look: the file is read without it.
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    text: Vec<u8>,
    clients: Arc<Clients>,
}

impl Registry {
    pub(crate) async fn open(source: ClientSource) -> Result<Self, UnreadableClients> {
        match source {
            ClientSource::Given(clients) => Ok(Self::Given(Arc::new(Clients::of(clients)))),
            ClientSource::File(path) => {
                let read = async {
                    let text = read(&path).await?;
                    let clients = Arc::new(Clients::parse(&text)?);
                    Ok(Last { text, clients })
                };
                match read.await {
                    Ok(last) => Ok(Self::File(ClientFile { path, last: Mutex::new(last) })),
                    Err(source) => Err(UnreadableClients { path, source }),
                }
            }
        }
    }

    /// The clients as they are now. A file that cannot be used leaves the clients that it had before.
    pub(crate) async fn clients(&self) -> Arc<Clients> {
        match self {
            Self::Given(clients) => Arc::clone(clients),
            Self::File(file) => file.clients().await,
        }
    }
}

impl ClientFile {
    async fn clients(&self) -> Arc<Clients> {
        let read = read(&self.path).await;
        let path = self.path.display();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Err(error) => warn!(%path, %error, "could not read the clients, keeping the old ones"),
            Ok(text) if text == last.text => {}
            Ok(text) => {
                match Clients::parse(&text) {
                    Ok(clients) => {
                        info!(%path, clients = clients.0.len(), "clients changed");
                        last.clients = Arc::new(clients);
                    }
                    Err(error) => {
                        warn!(%path, %error, "could not use the clients, keeping the old ones");
                    }
                }
                // A broken one too: it is said once.
                last.text = text;
            }
        }
        Arc::clone(&last.clients)
    }
}

async fn read(path: &std::path::Path) -> io::Result<Vec<u8>> {
    let mut file = WatchedFile::new(path, CLIENT_FILE_BYTES_MAX);
    let text = file.changed().await?;
    Ok(text.unwrap_or_default().to_vec())
}
