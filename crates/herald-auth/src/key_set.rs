//! The keys that an issuer has published, and what they verify.

use std::fmt;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    algorithm::Algorithm,
    jws::{Jws, Malformed},
    key::{Jwk, PublicKey},
    object::{self, Object},
};

/// The most keys of a set that are used; the rest is left out.
pub const KEYS_MAX: usize = 64;

/// Published keys (RFC 7517, section 5).
#[derive(Clone, Default)]
pub struct KeySet(Vec<Published>);

#[derive(Clone)]
struct Published {
    kid: Option<String>,
    alg: Option<Algorithm>,
    key: PublicKey,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.0.len()).finish()
    }
}

/// A text that is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a JSON object with an array of keys")]
pub struct InvalidKeySet;

/// Why a signed object is not taken for its signer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It is no signed object, or its claims are no JSON object of the expected kind.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// Its algorithm is none that is allowed.
    #[error("its algorithm is not allowed")]
    Algorithm,
    /// No key has the name that it gives, or fits its algorithm.
    #[error("no key is known that it names")]
    UnknownKey,
    /// The key that it names has not signed it.
    #[error("its signature is not that of the key that it names")]
    Signature,
}

impl KeySet {
    /// Reads a set. A key of an unknown kind, for another purpose or for an unknown algorithm is left out, and spoils none
    /// of the others.
    ///
    /// # Errors
    /// [`InvalidKeySet`] when it is no set at all.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidKeySet> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = object::from_slice(text).map_err(|_| InvalidKeySet)?;
        let keys = set.keys.into_iter().filter_map(Published::read);
        Ok(Self(keys.take(KEYS_MAX).collect()))
    }

    /// A set of one key without a name.
    #[must_use]
    pub fn of(key: PublicKey) -> Self {
        Self(vec![Published { kid: None, alg: None, key }])
    }

    /// Whether there is no key in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claims of `text`, if a key of this set has signed it with an algorithm of `allowed`.
    ///
    /// # Errors
    /// [`Unverified`] says why not.
    pub fn verify<T: DeserializeOwned>(
        &self,
        text: &str,
        allowed: &[Algorithm],
    ) -> Result<T, Unverified> {
        self.claims(&Jws::parse(text)?, allowed)
    }

    /// As [`KeySet::verify`], whatever name the text gives to its key: a client and its issuer need not have agreed on one.
    ///
    /// # Errors
    /// [`Unverified`] says why not.
    pub fn verify_by_any<T: DeserializeOwned>(
        &self,
        text: &str,
        allowed: &[Algorithm],
    ) -> Result<T, Unverified> {
        self.claims_by(&Jws::parse(text)?, allowed, |_| true)
    }

    pub(crate) fn claims<T: DeserializeOwned>(
        &self,
        jws: &Jws<'_>,
        allowed: &[Algorithm],
    ) -> Result<T, Unverified> {
        let kid = jws.header.kid.as_deref();
        // Without a name every key is tried that fits; a name must be that of the key.
        self.claims_by(jws, allowed, |published| kid.is_none() || published.kid.as_deref() == kid)
    }

    fn claims_by<T: DeserializeOwned>(
        &self,
        jws: &Jws<'_>,
        allowed: &[Algorithm],
        is_named: impl Fn(&Published) -> bool,
    ) -> Result<T, Unverified> {
        let algorithm = jws.algorithm(allowed).ok_or(Unverified::Algorithm)?;
        let mut candidates = self.0.iter().filter(|published| {
            let is_for_it = published.alg.is_none_or(|only| only == algorithm);
            is_for_it && published.key.fits(algorithm) && is_named(published)
        });
        let first = candidates.next().ok_or(Unverified::UnknownKey)?;
        let claims = [first]
            .into_iter()
            .chain(candidates)
            .find_map(|published| jws.verified(&published.key, algorithm));
        Ok(claims.ok_or(Unverified::Signature)??)
    }
}

/// The claims of `jws`, which has its own key in its header: what it calls that key does not matter.
pub(crate) fn claims_of<T: DeserializeOwned>(
    jws: &Jws<'_>,
    key: PublicKey,
    allowed: &[Algorithm],
) -> Result<T, Unverified> {
    KeySet::of(key).claims_by(jws, allowed, |_| true)
}

impl Published {
    fn read(key: Value) -> Option<Self> {
        // RFC 7517, section 4.3: the list, if there is one, is complete. An empty one is how some write that there is none.
        let verifies = |operations: &Value| match operations {
            Value::Null => true,
            Value::Array(all) => all.is_empty() || all.iter().any(|one| one == "verify"),
            _ => false,
        };
        if !key.get("key_ops").is_none_or(verifies) {
            return None;
        }
        let Object(jwk) = serde_json::from_value::<Object<Jwk>>(key).ok()?;
        let key = PublicKey::try_from(&jwk).ok()?;
        let is_for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let alg = jwk.alg.map(|name| name.parse::<Algorithm>()).transpose().ok()?;
        let fits = is_for_signatures && alg.is_none_or(|alg| key.fits(alg));
        fits.then_some(Self { kid: jwk.kid, alg, key })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        jws::{SignedHeader, encode, sign},
        key::{KeyKind, PrivateKey},
    };

    fn set_of(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn published(key: &PrivateKey, more: &Value) -> Value {
        let mut jwk: Value = serde_json::from_str(&key.public().to_jwk()).unwrap();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    fn signed(key: &PrivateKey, kid: Option<&str>) -> String {
        let header = SignedHeader { typ: "JWT", kid, jwk: None };
        sign(key, key.algorithm(), &header, &json!({"a": 1})).unwrap()
    }

    fn verify(set: &KeySet, text: &str) -> Result<Value, Unverified> {
        set.verify(text, &Algorithm::ALL)
    }

    #[test]
    fn keys_that_cannot_be_used_do_not_spoil_the_good_ones() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let good = json!({"kid": "good", "use": "sig", "alg": "ES256", "key_ops": ["verify"]});
        let good = published(&key, &good);
        let members = published(&key, &json!({}));
        let set = set_of(&[
            json!("not an object"),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "good"}),
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "good"}),
            json!({"kty": 7}),
            json!(["EC", "P-256", members["x"], members["y"]]),
            published(&key, &json!({"kid": "good", "use": "enc"})),
            published(&key, &json!({"kid": "good", "key_ops": ["encrypt"]})),
            published(&key, &json!({"kid": "good", "key_ops": "verify"})),
            published(&key, &json!({"kid": "good", "alg": "RS256"})),
            published(&key, &json!({"kid": "good", "alg": "none"})),
            published(&key, &json!({"kid": "good", "d": "AA"})),
            good,
        ]);
        assert_eq!(set.0.len(), 1);
        assert_eq!(verify(&set, &signed(&key, Some("good"))), Ok(json!({"a": 1})));
        assert_eq!(KeySet::parse(b"{}").unwrap_err(), InvalidKeySet);
        assert_eq!(KeySet::parse(b"[]").unwrap_err(), InvalidKeySet);
        assert_eq!(KeySet::parse(b"[[]]").unwrap_err(), InvalidKeySet);
        assert!(set_of(&[]).is_empty());
    }

    #[test]
    fn what_is_null_or_empty_in_a_published_key_is_not_there() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        for empty in [
            json!({"d": null, "use": null, "alg": null, "kid": null}),
            json!({"key_ops": [], "oth": [], "x5c": []}),
            json!({"key_ops": null, "oth": null, "p": null, "k": null}),
        ] {
            let set = set_of(&[published(&key, &empty)]);
            assert!(verify(&set, &signed(&key, None)).is_ok(), "{empty}");
        }
    }

    #[test]
    fn a_name_is_that_of_the_key_and_without_one_each_is_tried() {
        let [one, two] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
        let set = set_of(&[
            published(&one, &json!({"kid": "one"})),
            published(&two, &json!({"kid": "two"})),
        ]);
        assert!(verify(&set, &signed(&two, Some("two"))).is_ok());
        assert!(verify(&set, &signed(&two, None)).is_ok());
        let other = PrivateKey::generate(KeyKind::P256).unwrap();
        let long = PrivateKey::generate(KeyKind::P384).unwrap();
        for (text, error) in [
            (signed(&two, Some("one")), Unverified::Signature),
            (signed(&other, None), Unverified::Signature),
            (signed(&two, Some("three")), Unverified::UnknownKey),
            (signed(&two, Some("")), Unverified::UnknownKey),
            (signed(&long, Some("one")), Unverified::UnknownKey),
        ] {
            assert_eq!(verify(&set, &text), Err(error));
        }
    }

    #[test]
    fn by_any_key_means_that_the_name_does_not_matter_and_the_signature_does() {
        let [one, other] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
        let set = set_of(&[published(&one, &json!({"kid": "one"}))]);
        let by_any = |text: &str| set.verify_by_any::<Value>(text, &Algorithm::ALL);
        for name in [None, Some("one"), Some("two")] {
            assert!(by_any(&signed(&one, name)).is_ok(), "{name:?}");
            assert_eq!(by_any(&signed(&other, name)), Err(Unverified::Signature), "{name:?}");
        }
    }

    #[test]
    fn at_most_64_keys_are_used() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let keys =
            |count: usize| set_of(&vec![published(&key, &json!({"kid": "k"})); count]).0.len();
        assert_eq!((keys(KEYS_MAX), keys(KEYS_MAX + 1)), (KEYS_MAX, KEYS_MAX));
    }

    #[test]
    fn neither_none_nor_a_secret_made_of_a_public_key_nor_what_is_not_allowed_signs() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let set = set_of(&[published(&key, &json!({"kid": "k"}))]);
        let claims = encode(br#"{"a":1}"#);
        for alg in ["none", "None", "nOnE", "HS256", ""] {
            let header = encode(format!(r#"{{"alg":"{alg}","kid":"k"}}"#).as_bytes());
            let public = key.public().to_jwk();
            let message = format!("{header}.{claims}");
            let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
            let tag = ring::hmac::sign(&hmac, message.as_bytes());
            for signature in [String::new(), encode(tag.as_ref())] {
                let text = format!("{message}.{signature}");
                assert_eq!(verify(&set, &text), Err(Unverified::Algorithm), "{alg}");
            }
        }
        let refused = set.verify::<Value>(&signed(&key, Some("k")), &[Algorithm::Es384]);
        assert_eq!(refused, Err(Unverified::Algorithm));
    }

    #[test]
    fn every_changed_character_refuses_a_signed_text() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let set = KeySet::of(key.public().clone());
        let text = signed(&key, None);
        assert!(verify(&set, &text).is_ok());
        for at in 0..text.len() {
            for other in ["A", "B", ".", "=", "+", " ", "é"] {
                let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert!(changed == text || verify(&set, &changed).is_err(), "{at} {other}");
            }
            assert!(verify(&set, &text[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn extensions_that_must_be_understood_refuse_a_text() {
        let key = PrivateKey::generate(KeyKind::P256).unwrap();
        let set = KeySet::of(key.public().clone());
        for header in [
            r#"{"alg":"ES256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","crit":null}"#,
        ] {
            let message = format!("{}.{}", encode(header.as_bytes()), encode(b"{}"));
            let signature = key.sign(Algorithm::Es256, message.as_bytes()).unwrap();
            let text = format!("{message}.{}", encode(&signature));
            let refused = verify(&set, &text);
            assert_eq!(refused, Err(Unverified::Malformed(Malformed::Critical)), "{header}");
        }
        for header in [
            r#"{"alg":"ES256","alg":"none"}"#,
            r#"{"alg":7}"#,
            r#"["ES256"]"#,
            r#"{"alg":"ES256","jwk":["EC"]}"#,
            "[]",
            "{}",
        ] {
            let message = format!("{}.{}", encode(header.as_bytes()), encode(b"{}"));
            let signature = key.sign(Algorithm::Es256, message.as_bytes()).unwrap();
            let text = format!("{message}.{}", encode(&signature));
            let refused = verify(&set, &text);
            assert_eq!(refused, Err(Unverified::Malformed(Malformed::Header)), "{header}");
        }
    }
}
