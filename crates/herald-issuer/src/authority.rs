//! What all requests share.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use herald_auth::Address;

use crate::{clients::Registry, keys::Keys, nonces::Nonces, seen::Seen, settings::TokenKind};

/// An issuer without its port.
///
/// Each of its locks is held for one look or change in memory, and never two of them at once.
pub(crate) struct Authority {
    /// What `iss` says: the base URL without a slash at its end.
    pub(crate) url: String,
    pub(crate) token_endpoint: Address,
    pub(crate) audience: String,
    pub(crate) lifetime: Duration,
    pub(crate) token_kind: TokenKind,
    pub(crate) registry: Registry,
    pub(crate) nonces: Nonces,
    pub(crate) keys: Mutex<Keys>,
    /// By client and `jti`.
    pub(crate) assertions: Mutex<Seen>,
    /// By thumbprint and `jti`.
    pub(crate) proofs: Mutex<Seen>,
}

impl Authority {
    pub(crate) fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }
}

/// Every change under these locks is whole, whoever panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
