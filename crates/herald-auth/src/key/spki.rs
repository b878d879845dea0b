//! A public key as PEM has it: `SubjectPublicKeyInfo` (RFC 5280, section 4.1).

use std::str::FromStr;

use p521::pkcs8::{
    ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{Reader as _, SliceReader, asn1::UintRef},
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};

use super::public::{Kind, PublicKey};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// A text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no PEM with one public key: RSA of 2048 to 8192 bits, or on P-256, P-384 or P-521")]
pub struct InvalidPublicKey;

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    /// Reads PEM that begins with `-----BEGIN PUBLIC KEY-----`; points must be uncompressed.
    fn from_str(pem: &str) -> Result<Self, InvalidPublicKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes());
        der.ok().and_then(|der| read(&der)).ok_or(InvalidPublicKey)
    }
}

fn read(der: &[u8]) -> Option<PublicKey> {
    let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    if info.algorithm.oid == RSA {
        let (n, e) = rsa_numbers(key)?;
        return PublicKey::rsa(n, e).ok();
    }
    let curve = info.algorithm.parameters_oid().ok().filter(|_| info.algorithm.oid == EC)?;
    let is_uncompressed = key.first() == Some(&4);
    match (curve, key.len()) {
        _ if !is_uncompressed => None,
        (P256, 65) => Some(PublicKey(Kind::P256(key.to_vec()))),
        (P384, 97) => Some(PublicKey(Kind::P384(key.to_vec()))),
        (P521, 133) => Some(PublicKey(Kind::P521(key.to_vec()))),
        _ => None,
    }
}

/// Modulus and exponent, as `RSAPublicKey` has them (RFC 8017, appendix A.1.1).
fn rsa_numbers(key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = SliceReader::new(key).ok()?;
    let numbers = reader.sequence(|inner| {
        let (n, e): (UintRef<'_>, UintRef<'_>) = (inner.decode()?, inner.decode()?);
        Ok::<_, p521::pkcs8::der::Error>((n.as_bytes().to_vec(), e.as_bytes().to_vec()))
    });
    numbers.ok().filter(|_| reader.is_finished())
}
