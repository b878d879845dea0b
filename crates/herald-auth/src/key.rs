//! Keys: public ones as a JWK has them, private ones as a JWK or PEM.

mod der;
mod private;
mod public;

pub use private::{InvalidKey, KeyKind, PrivateKey, Unsignable};
pub use public::{Jwk, PublicKey, UnusableJwk};

#[cfg(test)]
mod tests;
