//! A public key: read from a JWK, named by its thumbprint, and what it verifies.

use std::fmt;

use p521::ecdsa::signature::Verifier as _;
use ring::{
    digest,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    algorithm::Algorithm,
    jws::{decode, encode},
};

/// The lengths of an RSA modulus that are taken, in bytes: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// The longest RSA exponent, in bytes: longer ones only cost time.
const EXPONENT_BYTES_MAX: usize = 5;

/// A key as a token, a proof or a key set has it (RFC 7517), unknown members left out.
#[derive(Clone, Deserialize)]
pub struct Jwk {
    kty: String,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    pub(super) d: Secret,
    #[serde(default)]
    pub(super) p: Secret,
    #[serde(default)]
    pub(super) q: Secret,
    #[serde(default)]
    pub(super) dp: Secret,
    #[serde(default)]
    pub(super) dq: Secret,
    #[serde(default)]
    pub(super) qi: Secret,
    #[serde(default)]
    oth: Secret,
    #[serde(default)]
    k: Secret,
    /// Its name in a key set.
    #[serde(default)]
    pub kid: Option<String>,
    /// What it is for; `sig` or nothing here.
    #[serde(default, rename = "use")]
    pub purpose: Option<String>,
    /// The only algorithm that it is for.
    #[serde(default)]
    pub alg: Option<String>,
}

impl fmt::Debug for Jwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwk")
            .field("kty", &self.kty)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// A member that only a private key has. It is never shown.
#[derive(Clone, Default)]
pub(super) struct Secret(Option<String>);

impl Secret {
    /// Its bytes, if it is there and well formed.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        decode(self.0.as_deref()?).ok()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Some writers of JSON write what is not there as null, or as an empty array; whatever else it is, it is there.
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Null => None,
            Value::Array(values) if values.is_empty() => None,
            value => Some(value.as_str().unwrap_or_default().to_owned()),
        }))
    }
}

/// Why a JWK is no public key to verify signatures with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableJwk {
    /// It has a member of a private key.
    #[error("it holds a private key")]
    Private,
    /// Neither RSA, nor a curve that is known here.
    #[error("it is of a kind that is not known")]
    Kind,
    /// A member is missing or malformed.
    #[error("a member of it is missing or malformed")]
    Member,
    /// RSA, and shorter than 2048 or longer than 8192 bits.
    #[error("its modulus has not 2048 to 8192 bits")]
    Length,
}

/// A key that verifies signatures.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey(pub(super) Kind);

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The points are uncompressed: 4, x, y.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey")
    }
}

impl TryFrom<&Jwk> for PublicKey {
    type Error = UnusableJwk;

    fn try_from(jwk: &Jwk) -> Result<Self, UnusableJwk> {
        let secrets = [&jwk.d, &jwk.p, &jwk.q, &jwk.dp, &jwk.dq, &jwk.qi, &jwk.oth, &jwk.k];
        if secrets.iter().any(|secret| secret.0.is_some()) {
            return Err(UnusableJwk::Private);
        }
        Self::of_members(jwk)
    }
}

impl PublicKey {
    /// The public members of `jwk`, whatever else it has.
    pub(super) fn of_members(jwk: &Jwk) -> Result<Self, UnusableJwk> {
        let point = |len| -> Result<_, UnusableJwk> {
            let mut point = vec![4];
            for coordinate in [&jwk.x, &jwk.y] {
                let bytes = member(coordinate.as_ref())?;
                if bytes.len() != len {
                    return Err(UnusableJwk::Member);
                }
                point.extend(bytes);
            }
            Ok(point)
        };
        let kind = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Self::rsa(member(jwk.n.as_ref())?, member(jwk.e.as_ref())?)?.0,
            ("EC", Some("P-256")) => Kind::P256(point(32)?),
            ("EC", Some("P-384")) => Kind::P384(point(48)?),
            ("EC", Some("P-521")) => Kind::P521(point(66)?),
            _ => return Err(UnusableJwk::Kind),
        };
        Ok(Self(kind))
    }

    /// An RSA key of a length that is taken.
    pub(super) fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Self, UnusableJwk> {
        // Leading zeros would give one key two thumbprints.
        if [&n, &e].into_iter().any(|number| number.first().is_none_or(|byte| *byte == 0))
            || e.len() > EXPONENT_BYTES_MAX
        {
            return Err(UnusableJwk::Member);
        }
        if !MODULUS_BYTES.contains(&n.len()) {
            return Err(UnusableJwk::Length);
        }
        Ok(Self(Kind::Rsa { n, e }))
    }

    /// Whether the key is of the kind that `algorithm` needs.
    #[must_use]
    pub const fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{Es256, Es384, Es512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        matches!(
            (&self.0, algorithm),
            (Kind::Rsa { .. }, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512)
                | (Kind::P256(_), Es256)
                | (Kind::P384(_), Es384)
                | (Kind::P521(_), Es512)
        )
    }

    /// Whether this key has made `signature` over `message` with `algorithm`, which must fit the key.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let ec = |algorithm: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
        };
        match (&self.0, algorithm) {
            (Kind::Rsa { n, e }, algorithm) => {
                rsa_parameters(algorithm).is_some_and(|parameters| {
                    RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
                })
            }
            (Kind::P256(point), Algorithm::Es256) => ec(&ECDSA_P256_SHA256_FIXED, point),
            (Kind::P384(point), Algorithm::Es384) => ec(&ECDSA_P384_SHA384_FIXED, point),
            (Kind::P521(point), Algorithm::Es512) => es512(point, message, signature),
            (Kind::P256(_) | Kind::P384(_) | Kind::P521(_), _) => false,
        }
    }

    /// The key as a JWK, with what a thumbprint is made of and nothing else: the members in the order of their names,
    /// without spaces (RFC 7638, section 3).
    #[must_use]
    pub fn to_jwk(&self) -> String {
        let ec = |crv: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            let (x, y) = (encode(x), encode(y));
            format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#)
        };
        match &self.0 {
            Kind::Rsa { n, e } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n))
            }
            Kind::P256(point) => ec("P-256", point),
            Kind::P384(point) => ec("P-384", point),
            Kind::P521(point) => ec("P-521", point),
        }
    }

    /// The key's thumbprint (RFC 7638, SHA-256, base64url): what a token's `cnf.jkt` names.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        encode(digest::digest(&digest::SHA256, self.to_jwk().as_bytes()).as_ref())
    }
}

fn member(text: Option<&String>) -> Result<Vec<u8>, UnusableJwk> {
    decode(text.ok_or(UnusableJwk::Member)?).map_err(|_| UnusableJwk::Member)
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => return None,
    })
}

/// ring has no P-521.
fn es512(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
    let signature = p521::ecdsa::Signature::from_slice(signature);
    matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
}
