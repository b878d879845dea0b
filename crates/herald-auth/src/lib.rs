//! Token, proof and time in, grant out; and the proofs that a client makes.

mod address;
mod algorithm;
mod dpop;
mod jws;
mod key;
mod key_set;
mod prove;
mod refused;
mod watched;

pub use address::Address;
pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use dpop::{Call, PROOF_ID_CHARS_MAX, Proof, ProofRules};
pub use jws::{JWS_BYTES_MAX, Malformed, SignedHeader, encode, sign};
pub use key::{InvalidKey, Jwk, KeyKind, PrivateKey, PublicKey, Unsignable, UnusableJwk};
pub use key_set::{InvalidKeySet, KEYS_MAX, KeySet, Unverified};
pub use prove::{ASSERTION_LIFETIME, ProofOf, Prover, assertion};
pub use refused::{Check, Refused};
pub use watched::{WATCH_INTERVAL, WatchedFile};
