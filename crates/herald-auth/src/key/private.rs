//! A private key: read from a JWK or PEM, or made; and what it signs.

use std::{fmt, str::FromStr};

use p521::{
    ecdsa::{SigningKey, signature::Signer as _},
    elliptic_curve::sec1::ToSec1Point as _,
    pkcs8::DecodePrivateKey as _,
};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    rsa::{self, KeyPairComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};

use super::{
    der::pkcs8_of_sec1,
    public::{Jwk, Kind, PublicKey},
};
use crate::algorithm::Algorithm;

/// A text that is no private key. It says nothing of the text: that may be a secret all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Neither a JSON object nor PEM.
    #[error("it is neither a private JWK nor PEM with one private key")]
    Form,
    /// A JWK without what makes it private.
    #[error("the JWK has no private part, or a member of it is missing or malformed")]
    Jwk,
    /// A key of a kind that is not known here, or one that is broken.
    #[error(
        "it is no RSA key of 2048 to 4096 bits and no key on P-256, P-384 or P-521 with its public part"
    )]
    Key,
}

/// A key that cannot sign what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    /// The algorithm needs another kind of key.
    #[error("the key is of a kind that {0} does not take")]
    Kind(Algorithm),
    /// What is to be signed cannot be written as JSON.
    #[error("the claims cannot be written")]
    Claims,
    /// The system has no random numbers, or the key is broken.
    #[error("the key could not sign")]
    Failed,
}

/// A kind of key that can be made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// For ES256.
    P256,
    /// For ES384.
    P384,
    /// For ES512.
    P521,
}

/// A key that signs.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
    /// The key's name at whoever verifies.
    kid: Option<String>,
    /// The only algorithm that it is for.
    alg: Option<Algorithm>,
}

pub(super) enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    P521(Box<SigningKey>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl FromStr for PrivateKey {
    type Err = InvalidKey;

    /// Reads a JWK (RFC 7517) or PEM: PKCS#8, PKCS#1 or SEC1.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text.trim_start().starts_with('{') {
            let jwk: Jwk = serde_json::from_str(text).map_err(|_| InvalidKey::Jwk)?;
            return Self::from_jwk(&jwk);
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| InvalidKey::Form)?;
        let pair = match &der {
            PrivateKeyDer::Pkcs1(key) => {
                RsaKeyPair::from_der(key.secret_pkcs1_der()).ok().map(Pair::rsa)
            }
            PrivateKeyDer::Pkcs8(key) => Pair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(key) => {
                let sec1 = key.secret_sec1_der();
                let ec = pkcs8_of_sec1(sec1).iter().find_map(|pkcs8| Pair::ec_from_pkcs8(pkcs8));
                ec.or_else(|| {
                    let secret = p521::SecretKey::from_sec1_der(sec1).ok()?;
                    Some(SigningKey::from(secret).into())
                })
            }
            _ => None,
        };
        Self::of(pair.ok_or(InvalidKey::Key)?, None, None)
    }
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// [`Unsignable::Failed`] when the system has no random numbers.
    pub fn generate(kind: KeyKind) -> Result<Self, Unsignable> {
        let random = SystemRandom::new();
        let pair = match kind {
            KeyKind::P256 | KeyKind::P384 => {
                let algorithm = if kind == KeyKind::P256 { P256 } else { P384 };
                let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
                    .map_err(|_| Unsignable::Failed)?;
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
                pair.map_err(|_| Unsignable::Failed)?.into()
            }
            KeyKind::P521 => new_p521(&random)?.into(),
        };
        Self::of(pair, None, None).map_err(|_| Unsignable::Failed)
    }

    fn from_jwk(jwk: &Jwk) -> Result<Self, InvalidKey> {
        let public = PublicKey::of_members(jwk).map_err(|_| InvalidKey::Jwk)?;
        let d = jwk.d.bytes().ok_or(InvalidKey::Jwk)?;
        let ec = |algorithm, point: &[u8]| {
            let random = SystemRandom::new();
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, &d, point, &random)
                .map(Pair::from)
                .map_err(|_| InvalidKey::Key)
        };
        let pair = match &public.0 {
            Kind::Rsa { n, e } => {
                let part = |secret: &super::public::Secret| secret.bytes().ok_or(InvalidKey::Jwk);
                let components = KeyPairComponents {
                    public_key: rsa::PublicKeyComponents { n, e },
                    d: &d,
                    p: &part(&jwk.p)?,
                    q: &part(&jwk.q)?,
                    dP: &part(&jwk.dp)?,
                    dQ: &part(&jwk.dq)?,
                    qInv: &part(&jwk.qi)?,
                };
                Pair::rsa(RsaKeyPair::from_components(&components).map_err(|_| InvalidKey::Key)?)
            }
            Kind::P256(point) => ec(P256, point)?,
            Kind::P384(point) => ec(P384, point)?,
            Kind::P521(_) => SigningKey::from_slice(&d).map_err(|_| InvalidKey::Key)?.into(),
        };
        let alg = match &jwk.alg {
            Some(name) => Some(name.parse().map_err(|_| InvalidKey::Jwk)?),
            None => None,
        };
        let key = Self::of(pair, jwk.kid.clone(), alg)?;
        // Otherwise it would sign with one key and show another.
        if key.public == public { Ok(key) } else { Err(InvalidKey::Key) }
    }

    pub(super) fn of(
        pair: Pair,
        kid: Option<String>,
        alg: Option<Algorithm>,
    ) -> Result<Self, InvalidKey> {
        let public = PublicKey(match &pair {
            Pair::Rsa(pair) => {
                let rsa::PublicKeyComponents { n, e } = pair.public().into();
                Kind::Rsa { n, e }
            }
            Pair::Ec(pair) => match pair.public_key().as_ref() {
                point if point.len() == 65 => Kind::P256(point.to_vec()),
                point => Kind::P384(point.to_vec()),
            },
            Pair::P521(key) => {
                Kind::P521(key.verifying_key().as_affine().to_sec1_point(false).as_bytes().to_vec())
            }
        });
        if alg.is_some_and(|alg| !public.fits(alg)) {
            return Err(InvalidKey::Key);
        }
        Ok(Self { pair, public, kid, alg })
    }

    /// The same key under a name.
    #[must_use]
    pub fn named(self, kid: impl Into<String>) -> Self {
        Self { kid: Some(kid.into()), ..self }
    }

    /// The key's name.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The algorithm that the key is for: the one that its JWK names, else the usual one of its kind.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.alg.unwrap_or(match self.public.0 {
            Kind::Rsa { .. } => Algorithm::Rs256,
            Kind::P256(_) => Algorithm::Es256,
            Kind::P384(_) => Algorithm::Es384,
            Kind::P521(_) => Algorithm::Es512,
        })
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// [`Unsignable`] when the key is of another kind than `algorithm` takes.
    pub fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, Unsignable> {
        if !self.public.fits(algorithm) {
            return Err(Unsignable::Kind(algorithm));
        }
        let random = SystemRandom::new();
        let failed = |_| Unsignable::Failed;
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding = rsa_encoding(algorithm).ok_or(Unsignable::Kind(algorithm))?;
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Pair::Ec(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(message);
                Ok(signature.to_bytes().to_vec())
            }
        }
    }
}

pub(super) const P256: &EcdsaSigningAlgorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
pub(super) const P384: &EcdsaSigningAlgorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;

/// A new key on P-521.
pub(super) fn new_p521(random: &SystemRandom) -> Result<SigningKey, Unsignable> {
    loop {
        let mut bytes = [0; 66];
        random.fill(&mut bytes).map_err(|_| Unsignable::Failed)?;
        // 521 bits; what is not below the order of the curve, hardly ever, is drawn again.
        bytes[0] &= 1;
        if let Ok(key) = SigningKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
}

impl From<EcdsaKeyPair> for Pair {
    fn from(pair: EcdsaKeyPair) -> Self {
        Self::Ec(Box::new(pair))
    }
}

impl From<SigningKey> for Pair {
    fn from(key: SigningKey) -> Self {
        Self::P521(Box::new(key))
    }
}

impl Pair {
    fn rsa(pair: RsaKeyPair) -> Self {
        Self::Rsa(Box::new(pair))
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        if let Ok(pair) = RsaKeyPair::from_pkcs8(pkcs8) {
            return Some(Self::rsa(pair));
        }
        Self::ec_from_pkcs8(pkcs8).or_else(|| {
            let secret = p521::SecretKey::from_pkcs8_der(pkcs8).ok()?;
            Some(SigningKey::from(secret).into())
        })
    }

    fn ec_from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let random = SystemRandom::new();
        [P256, P384]
            .iter()
            .find_map(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &random).ok())
            .map(Self::from)
    }
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &RSA_PSS_SHA256,
        Algorithm::Ps384 => &RSA_PSS_SHA384,
        Algorithm::Ps512 => &RSA_PSS_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 => return None,
    })
}
