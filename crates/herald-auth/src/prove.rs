//! What a client signs: a proof for each request (RFC 9449), and the assertion that says who it is (RFC 7523).

use std::{fmt, time::Duration};

use jiff::Timestamp;
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    algorithm::Algorithm,
    jws::{SignedHeader, encode, sign},
    key::{KeyKind, PrivateKey, Unsignable},
};

/// How long an assertion is valid; HelseID takes no longer one. Source: docs/protocol.md, access.
pub const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);
/// How many random bytes a `jti` has.
const ID_BYTES: usize = 16;

/// Makes proofs with one key, to which a token can be bound.
pub struct Prover {
    key: PrivateKey,
    jwk: Box<RawValue>,
    thumbprint: String,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prover")
    }
}

/// The request that a proof is for.
#[derive(Clone, Copy)]
pub struct ProofOf<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The request's address; its query and fragment are left out of the proof.
    pub url: &'a str,
    /// The token that goes with it; none when a token is asked for.
    pub token: Option<&'a str>,
    /// What the server has asked to find in the proof.
    pub nonce: Option<&'a str>,
}

impl fmt::Debug for ProofOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofOf").field("method", &self.method).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Proof<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Prover {
    /// A prover with a new key on P-256, the cheapest to sign with and to verify.
    ///
    /// # Errors
    /// [`Unsignable::Failed`] when the system has no random numbers.
    pub fn new() -> Result<Self, Unsignable> {
        Self::of(PrivateKey::generate(KeyKind::P256)?)
    }

    /// A prover with this key.
    ///
    /// # Errors
    /// None that can be made to happen: every public key has a JWK.
    pub fn of(key: PrivateKey) -> Result<Self, Unsignable> {
        let jwk = RawValue::from_string(key.public().to_jwk()).map_err(|_| Unsignable::Claims)?;
        let thumbprint = key.public().thumbprint();
        Ok(Self { key, jwk, thumbprint })
    }

    /// The key's thumbprint, which a token names that is bound to it.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// A new proof for one request that is made now.
    ///
    /// # Errors
    /// [`Unsignable`] when the key cannot sign.
    pub fn proof(&self, of: ProofOf<'_>, now: Timestamp) -> Result<String, Unsignable> {
        let header = SignedHeader { typ: "dpop+jwt", kid: None, jwk: Some(&self.jwk) };
        let end = of.url.find(['?', '#']).unwrap_or(of.url.len());
        let claims = Proof {
            jti: random_id()?,
            htm: of.method,
            htu: &of.url[..end],
            iat: now.as_second(),
            ath: of.token.map(token_hash),
            nonce: of.nonce,
        };
        sign(&self.key, self.algorithm(), &header, &claims)
    }

    fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }
}

/// A new assertion by which `client_id` says who it is to the token endpoint of `issuer`.
///
/// # Errors
/// [`Unsignable`] when the key cannot sign.
pub fn assertion(
    key: &PrivateKey,
    client_id: &str,
    issuer: &str,
    now: Timestamp,
) -> Result<String, Unsignable> {
    let header = SignedHeader { typ: "client-authentication+jwt", kid: key.kid(), jwk: None };
    let iat = now.as_second();
    let claims = Assertion {
        iss: client_id,
        sub: client_id,
        aud: issuer,
        jti: random_id()?,
        iat,
        nbf: iat,
        exp: iat.saturating_add_unsigned(ASSERTION_LIFETIME.as_secs()),
    };
    sign(key, key.algorithm(), &header, &claims)
}

/// What a proof says of the token that goes with it: its `ath`.
pub(crate) fn token_hash(token: &str) -> String {
    encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

fn random_id() -> Result<String, Unsignable> {
    let mut bytes = [0; ID_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Unsignable::Failed)?;
    Ok(encode(&bytes))
}
