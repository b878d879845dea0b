//! Keys: public ones as a JWK has them, private ones as a JWK or PEM.

mod der;
mod generate;
mod private;
mod public;
mod spki;

pub use private::{InvalidKey, KeyKind, PrivateKey, Unsignable};
pub use public::{Jwk, PublicKey, UnusableJwk};
pub use spki::InvalidPublicKey;

#[cfg(test)]
mod tests;
