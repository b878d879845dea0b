//! A new private key as a text, for a file that only its owner may read.

use p521::pkcs8::{
    PrivateKeyInfoRef,
    der::{Reader as _, SliceReader, asn1::OctetStringRef},
};
use ring::{rand::SystemRandom, signature::EcdsaKeyPair};
use serde_json::{Map, Value};

use super::private::{KeyKind, P256, P384, PrivateKey, Unsignable, new_p521};
use crate::jws::encode;

impl PrivateKey {
    /// A new key as a private JWK with the name `kid`, which [`str::parse`] reads: the only way from here to a key that can
    /// be written down, since a [`PrivateKey`] does not show what it holds.
    ///
    /// # Errors
    /// [`Unsignable::Failed`] when the system has no random numbers.
    pub fn generate_jwk(kind: KeyKind, kid: &str) -> Result<String, Unsignable> {
        let random = SystemRandom::new();
        let on_curve = |algorithm| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok()?;
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).ok()?;
            Some((Self::of(pair.into(), None, None).ok()?, secret_of(pkcs8.as_ref())?))
        };
        let made = match kind {
            KeyKind::P256 => on_curve(P256),
            KeyKind::P384 => on_curve(P384),
            KeyKind::P521 => {
                let key = new_p521(&random)?;
                let secret = key.to_bytes().to_vec();
                Self::of(key.into(), None, None).ok().map(|key| (key, secret))
            }
        };
        let (key, secret) = made.ok_or(Unsignable::Failed)?;
        let public = serde_json::from_str(&key.public().to_jwk());
        let mut jwk: Map<String, Value> = public.map_err(|_| Unsignable::Claims)?;
        jwk.insert("d".to_owned(), encode(&secret).into());
        jwk.insert("kid".to_owned(), kid.into());
        jwk.insert("alg".to_owned(), key.algorithm().name().into());
        serde_json::to_string_pretty(&jwk).map_err(|_| Unsignable::Claims)
    }
}

/// The number that is the key, out of the PKCS#8 that ring makes: the second member of an `ECPrivateKey` (RFC 5915).
fn secret_of(pkcs8: &[u8]) -> Option<Vec<u8>> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).ok()?;
    let mut reader = SliceReader::new(info.private_key.as_bytes()).ok()?;
    let secret = reader.sequence(|inner| {
        let _version: u8 = inner.decode()?;
        let secret: &OctetStringRef = inner.decode()?;
        let secret = secret.as_bytes().to_vec();
        // The public key again.
        while !inner.is_finished() {
            inner.tlv_bytes()?;
        }
        Ok::<_, p521::pkcs8::der::Error>(secret)
    });
    secret.ok()
}
