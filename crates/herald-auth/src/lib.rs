//! Token, proof and time in, grant out; and the proofs that a client makes.
//!
//! This crate refuses to know what a call is about: whose notifications, and which. It has no clock: the time is an
//! argument. With the feature `server` it keeps an issuer's keys and the organisations' HER-ids fresh; without it, it only
//! signs and verifies.

mod address;
mod algorithm;
mod dpop;
mod jws;
mod key;
mod key_set;
mod object;
mod prove;
mod refused;
mod watched;

#[cfg(feature = "server")]
mod authenticator;
#[cfg(feature = "server")]
mod fetch;
#[cfg(feature = "server")]
mod jwks;
#[cfg(feature = "server")]
mod lists;
#[cfg(feature = "server")]
mod organisations;
#[cfg(feature = "server")]
mod publishers;
#[cfg(feature = "server")]
mod replay;
#[cfg(feature = "server")]
mod source;
#[cfg(feature = "server")]
mod token;

pub use address::Address;
pub use algorithm::{Algorithm, UnknownAlgorithm};
#[cfg(feature = "server")]
pub use authenticator::{Authenticator, Caller, Claimant, Denied, Presented, REPLAYS_MAX, Rules};
pub use dpop::{Call, PROOF_ID_CHARS_MAX, Proof, ProofRules};
#[cfg(feature = "server")]
pub use fetch::{FETCH_TIMEOUT, FetchError, InvalidUrl, check_url};
#[cfg(feature = "server")]
pub use jwks::{InvalidIssuer, IssuerKeys, KEY_FETCHES, KeysSettings};
pub use jws::{JWS_BYTES_MAX, Malformed, SignedHeader, encode, sign, unverified};
pub use key::{
    InvalidKey, InvalidPublicKey, Jwk, KeyKind, PrivateKey, PublicKey, Unsignable, UnusableJwk,
};
pub use key_set::{InvalidKeySet, KEYS_MAX, KeySet, Unverified};
#[cfg(feature = "server")]
pub use lists::{
    DOCUMENT_CURRENT, DOCUMENT_READS, InvalidDocument, Lists, ReadDocumentError, Subject,
};
#[cfg(feature = "server")]
pub use organisations::{OfOrganisations, Organisations};
pub use prove::{ASSERTION_LIFETIME, ProofOf, Prover, assertion};
#[cfg(feature = "server")]
pub use publishers::{OfPublishers, Publishers};
pub use refused::{Check, Refused};
#[cfg(feature = "server")]
pub use replay::{Replays, Unusable};
#[cfg(feature = "server")]
pub use source::{
    Changed, DOCUMENT_BYTES_MAX, DocumentFile, InvalidRegistry, Registry, Source, SourceError,
};
#[cfg(feature = "server")]
pub use token::{
    CLIENT_ID_CHARS_MAX, Claimed, HER_ID_CLAIM, Holder, ORGANISATION_CLAIM, Token, TokenRules,
};
pub use watched::{WATCH_INTERVAL, WatchedFile};
