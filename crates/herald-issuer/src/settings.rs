//! How an issuer behaves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use herald_auth::{Algorithm, PrivateKey};

use crate::clients::ClientSource;

/// What the header of a token calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// `JWT`, as HelseID does.
    #[default]
    Jwt,
    /// `at+jwt` (RFC 9068).
    AtJwt,
}

impl TokenKind {
    pub(crate) const fn typ(self) -> &'static str {
        match self {
            Self::Jwt => "JWT",
            Self::AtJwt => "at+jwt",
        }
    }
}

/// How an issuer behaves.
#[derive(Debug)]
pub struct IssuerSettings {
    /// Where to listen: loopback only. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may ask for tokens.
    pub clients: ClientSource,
    /// The keys that sign, one after the other: a rotation takes the next. With none left, or none given, new ones are made.
    pub signing_keys: Vec<PrivateKey>,
    /// What signs; none is what the key is for, and ES256 for a key that is made.
    pub algorithm: Option<Algorithm>,
    /// What the header of a token calls it.
    pub token_kind: TokenKind,
    /// What `aud` says.
    pub audience: String,
    /// How long a token is valid, for clients that have no lifetime of their own; whole seconds, at least 1.
    pub lifetime: Duration,
    /// The signing key changes so often; never by itself when none, or nothing.
    pub rotate_every: Option<Duration>,
    /// A nonce is handed out for so long, and accepted for as long again; whole seconds, at least 1.
    pub nonce_period: Duration,
}

impl IssuerSettings {
    /// As HelseID does it, on a free port.
    #[must_use]
    pub fn new(clients: impl Into<ClientSource>) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            clients: clients.into(),
            signing_keys: Vec::new(),
            algorithm: None,
            token_kind: TokenKind::default(),
            audience: "nhn:msh".to_owned(),
            lifetime: Duration::from_secs(600),
            rotate_every: None,
            nonce_period: Duration::from_secs(60),
        }
    }
}
