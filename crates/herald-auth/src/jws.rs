//! A signed object in its compact form (RFC 7515): three texts and two dots.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    algorithm::Algorithm,
    key::{Jwk, PrivateKey, PublicKey, Unsignable},
    object,
};

/// How long a token or a proof may be: a head of a request holds both.
pub const JWS_BYTES_MAX: usize = 16 * 1024;

/// What a header may say that means something here. Everything else is left alone, above all what would name another
/// key (`jku`, `x5u`, `x5c`): no key is ever looked for where a token says.
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    #[serde(default)]
    pub(crate) typ: Option<String>,
    #[serde(default)]
    pub(crate) kid: Option<String>,
    #[serde(default, deserialize_with = "object::optional")]
    pub(crate) jwk: Option<Jwk>,
    /// Extensions that must be understood. None is, so that its presence refuses the object (RFC 7515, section 4.1.11).
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// Whatever the value is, it is there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Why a text is no signed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`JWS_BYTES_MAX`].
    #[error("it is longer than {JWS_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts.
    #[error("it is not three parts with a dot between each")]
    Parts,
    /// Not base64url.
    #[error("a part is not base64url without padding")]
    Base64,
    /// No header.
    #[error("its header is not a JSON object of the usual kind")]
    Header,
    /// A header with `crit`.
    #[error("its header asks for extensions (crit)")]
    Critical,
    /// No claims of the expected kind.
    #[error("its claims are not a JSON object of the usual kind")]
    Claims,
}

/// A signed object, taken apart and not verified.
pub(crate) struct Jws<'a> {
    pub(crate) header: Header,
    signed: &'a str,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.len() > JWS_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(Malformed::Parts)?;
        let header: Header = object::from_slice(&decode(header)?).map_err(|_| Malformed::Header)?;
        if header.crit {
            return Err(Malformed::Critical);
        }
        Ok(Self { header, signed, claims: decode(claims)?, signature: decode(signature)? })
    }

    /// The algorithm that its header names, if that is one of `allowed`.
    pub(crate) fn algorithm(&self, allowed: &[Algorithm]) -> Option<Algorithm> {
        self.header.alg.parse().ok().filter(|algorithm| allowed.contains(algorithm))
    }

    /// The claims, if `key` has signed them with `algorithm`: there is no other way to them.
    pub(crate) fn verified<T: DeserializeOwned>(
        &self,
        key: &PublicKey,
        algorithm: Algorithm,
    ) -> Option<Result<T, Malformed>> {
        if !key.verifies(algorithm, self.signed.as_bytes(), &self.signature) {
            return None;
        }
        Some(object::from_slice(&self.claims).map_err(|_| Malformed::Claims))
    }
}

/// What `text` claims, whoever has signed it: good for nothing but to find out whose keys must have.
///
/// # Errors
/// [`Malformed`] when it is no signed object, or its claims are of another kind.
pub fn unverified<T: DeserializeOwned>(text: &str) -> Result<T, Malformed> {
    serde_json::from_slice(&Jws::parse(text)?.claims).map_err(|_| Malformed::Claims)
}

/// Base64url without padding; anything else, a stray bit in the last character with it, is refused.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed::Base64)
}

/// Base64url without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is signed beside the claims.
#[derive(Serialize)]
pub struct SignedHeader<'a> {
    /// What kind of object it is.
    pub typ: &'a str,
    /// Which key verifies it, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<&'a str>,
    /// Which key verifies it, as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwk: Option<&'a RawValue>,
}

impl fmt::Debug for SignedHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedHeader").field("typ", &self.typ).finish_non_exhaustive()
    }
}

/// Signs `claims` in the compact form.
///
/// # Errors
/// [`Unsignable`] when the key cannot sign with `algorithm`.
pub fn sign(
    key: &PrivateKey,
    algorithm: Algorithm,
    header: &SignedHeader<'_>,
    claims: &impl Serialize,
) -> Result<String, Unsignable> {
    #[derive(Serialize)]
    struct Whole<'a> {
        alg: &'a str,
        #[serde(flatten)]
        header: &'a SignedHeader<'a>,
    }
    let header = serde_json::to_vec(&Whole { alg: algorithm.name(), header });
    let header = header.map_err(|_| Unsignable::Claims)?;
    let claims = serde_json::to_vec(claims).map_err(|_| Unsignable::Claims)?;
    let mut text = format!("{}.{}", encode(&header), encode(&claims));
    let signature = key.sign(algorithm, text.as_bytes())?;
    text.push('.');
    text.push_str(&encode(&signature));
    Ok(text)
}
