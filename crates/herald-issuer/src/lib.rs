//! A small real token issuer for laptops and tests: client credentials with signed assertions, and tokens bound to the
//! client's key by proofs.
//!
//! It refuses to know what its tokens are for: which claims a client gets is written in the client file. It listens on
//! loopback only, and is no issuer for anything that matters. docs/issuer.md describes it from outside.

mod assertion;
mod authority;
mod clients;
mod form;
mod home;
mod issuer;
mod keys;
mod nonces;
mod refusal;
mod routes;
mod seen;
mod server;
mod settings;
mod token;

pub use assertion::{ASSERTION_ID_CHARS_MAX, ASSERTION_SKEW};
pub use clients::{
    CLIENT_FILE_BYTES_MAX, CLIENT_ID_CHARS_MAX, Client, ClientSource, InvalidClients, LIFETIME_MAX,
    UnreadableClients,
};
pub use home::{HOME_CLIENT, HOME_HER_IDS, HOME_ORGANISATION, HOME_SCOPES, Home, HomeError};
pub use issuer::{Issuer, StartError};
pub use keys::{CannotRotate, KEY_GRACE, KeyError, OLD_KEYS_MAX};
pub use nonces::NoRandomNumbers;
pub use routes::{
    AUTHORIZATION_SERVER_PATH, CONFIGURATION_PATH, KEYS_PATH, RENEW_NONCES_PATH, RETIRE_KEYS_PATH,
    ROTATE_PATH, TOKEN_PATH,
};
pub use seen::SEEN_MAX;
pub use server::{BODY_BYTES_MAX, CONNECTION_TIME_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX};
pub use settings::{IssuerSettings, TokenKind};
