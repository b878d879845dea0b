//! The keys that sign, and those that have signed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use herald_auth::{Algorithm, KeyKind, PrivateKey, Unsignable};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// For how long a key is published after the last token that it signed has expired: whoever verifies may be a little late.
pub const KEY_GRACE: Duration = Duration::from_secs(30);
/// How many keys that do not sign any more are published; the oldest goes first.
pub const OLD_KEYS_MAX: usize = 15;

/// Why an issuer has no key to sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// RSA keys cannot be made here.
    #[error("a key for {0} cannot be made here and must be given")]
    Given(Algorithm),
    /// A given key is for something else.
    #[error("a signing key is of a kind that {0} does not take")]
    Kind(Algorithm),
    /// The system has no random numbers.
    #[error("no key could be made")]
    Failed(#[from] Unsignable),
}

/// The signing key cannot be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signing key stays")]
pub struct CannotRotate(#[source] pub KeyError);

/// Every key of an issuer.
#[derive(Debug)]
pub(crate) struct Keys {
    current: Signing,
    waiting: VecDeque<Arc<SigningKey>>,
    /// The oldest first.
    old: VecDeque<Signing>,
}

#[derive(Debug)]
struct Signing {
    key: Arc<SigningKey>,
    /// When the last token expires that it signed; none if it has signed none.
    needed_until: Option<i64>,
}

/// A key with its name and what it signs with.
#[derive(Debug)]
pub(crate) struct SigningKey {
    pub(crate) key: PrivateKey,
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
}

impl SigningKey {
    fn new(key: PrivateKey, algorithm: Option<Algorithm>) -> Result<Arc<Self>, KeyError> {
        let algorithm = algorithm.unwrap_or_else(|| key.algorithm());
        if !key.public().fits(algorithm) {
            return Err(KeyError::Kind(algorithm));
        }
        let kid = key.kid().map_or_else(|| key.public().thumbprint(), ToOwned::to_owned);
        Ok(Arc::new(Self { key, kid, algorithm }))
    }

    fn generate(algorithm: Algorithm) -> Result<Arc<Self>, KeyError> {
        Self::new(PrivateKey::generate(kind_of(algorithm)?)?, Some(algorithm))
    }

    /// As it is published.
    fn to_jwk(&self) -> Value {
        let public = self.key.public().to_jwk();
        let mut jwk: Map<String, Value> =
            serde_json::from_str(&public).expect("a public key is written as a JSON object");
        jwk.insert("kid".to_owned(), self.kid.as_str().into());
        jwk.insert("use".to_owned(), "sig".into());
        jwk.insert("alg".to_owned(), self.algorithm.name().into());
        jwk.into()
    }
}

/// The kind of key that is made for `algorithm`.
pub(crate) const fn kind_of(algorithm: Algorithm) -> Result<KeyKind, KeyError> {
    match algorithm {
        Algorithm::Es256 => Ok(KeyKind::P256),
        Algorithm::Es384 => Ok(KeyKind::P384),
        Algorithm::Es512 => Ok(KeyKind::P521),
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => Err(KeyError::Given(algorithm)),
    }
}

impl Keys {
    pub(crate) fn new(
        given: Vec<PrivateKey>,
        algorithm: Option<Algorithm>,
    ) -> Result<Self, KeyError> {
        let given = given.into_iter().map(|key| SigningKey::new(key, algorithm));
        let mut waiting: VecDeque<_> = given.collect::<Result<_, _>>()?;
        let first = match waiting.pop_front() {
            Some(first) => first,
            None => SigningKey::generate(algorithm.unwrap_or(Algorithm::Es256))?,
        };
        let current = Signing { key: first, needed_until: None };
        Ok(Self { current, waiting, old: VecDeque::new() })
    }

    /// The key that signs now.
    pub(crate) fn current(&self) -> &SigningKey {
        &self.current.key
    }

    /// The key that signs a token that is valid until then.
    pub(crate) fn signer(&mut self, until: i64) -> Arc<SigningKey> {
        self.current.needed_until = self.current.needed_until.max(Some(until));
        Arc::clone(&self.current.key)
    }

    /// The next key signs from now on; the one before stays published while a token of it may be valid.
    pub(crate) fn rotate(&mut self, now: Timestamp) -> Result<(), CannotRotate> {
        let next = match self.waiting.pop_front() {
            Some(next) => next,
            None => SigningKey::generate(self.current().algorithm).map_err(CannotRotate)?,
        };
        let next = Signing { key: next, needed_until: None };
        self.old.push_back(std::mem::replace(&mut self.current, next));
        self.retire(now);
        while self.old.len() > OLD_KEYS_MAX {
            self.old.pop_front();
        }
        Ok(())
    }

    /// Publishes only the key that signs now, whoever has tokens of the others.
    pub(crate) fn retire_old(&mut self) {
        self.old.clear();
    }

    fn retire(&mut self, now: Timestamp) {
        let needed_from = now.as_second().saturating_sub_unsigned(KEY_GRACE.as_secs());
        self.old.retain(|old| old.needed_until.is_some_and(|until| until >= needed_from));
    }

    /// What is published (RFC 7517, section 5): the key that signs first.
    pub(crate) fn published(&mut self, now: Timestamp) -> Value {
        self.retire(now);
        let keys = [&self.current].into_iter().chain(self.old.iter().rev());
        let keys: Vec<Value> = keys.map(|signing| signing.key.to_jwk()).collect();
        json!({ "keys": keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn published(keys: &mut Keys, now: i64) -> Vec<String> {
        let set = keys.published(at(now));
        let kids = set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap());
        kids.map(ToOwned::to_owned).collect()
    }

    fn named(kid: &str) -> PrivateKey {
        PrivateKey::generate(KeyKind::P256).unwrap().named(kid)
    }

    #[test]
    fn an_old_key_is_published_until_its_last_token_has_expired_and_a_little_longer() {
        let mut keys = Keys::new(vec![named("a"), named("b"), named("c")], None).unwrap();
        assert_eq!(keys.signer(600).kid, "a");
        keys.signer(300);
        keys.rotate(at(0)).unwrap();
        // Nothing was signed with b.
        keys.rotate(at(0)).unwrap();
        assert_eq!(published(&mut keys, 630), ["c", "a"]);
        assert_eq!(published(&mut keys, 631), ["c"]);
    }

    #[test]
    fn old_keys_are_bounded_and_can_be_retired_at_once() {
        let mut keys = Keys::new(vec![named("first")], None).unwrap();
        for _ in 0..OLD_KEYS_MAX {
            keys.signer(600);
            keys.rotate(at(0)).unwrap();
        }
        let kids = published(&mut keys, 0);
        assert_eq!((kids.len(), kids.last().unwrap().as_str()), (OLD_KEYS_MAX + 1, "first"));
        keys.signer(600);
        keys.rotate(at(0)).unwrap();
        let kids = published(&mut keys, 0);
        assert_eq!(kids.len(), OLD_KEYS_MAX + 1);
        assert!(!kids.contains(&"first".to_owned()));
        keys.retire_old();
        assert_eq!(published(&mut keys, 0), kids[..1]);
    }

    #[test]
    fn keys_are_made_for_curves_only_and_must_fit_the_algorithm() {
        let ps256 = Algorithm::Ps256;
        assert_eq!(Keys::new(vec![], Some(ps256)).unwrap_err(), KeyError::Given(ps256));
        let key = vec![named("a")];
        assert_eq!(Keys::new(key, Some(ps256)).unwrap_err(), KeyError::Kind(ps256));
        for algorithm in [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512] {
            let mut keys = Keys::new(vec![], Some(algorithm)).unwrap();
            let first = keys.current().kid.clone();
            keys.rotate(at(0)).unwrap();
            assert_eq!(keys.current().algorithm, algorithm);
            assert_ne!(keys.current().kid, first);
        }
        let rsa = || include_str!("../../herald-auth/tests/keys/rsa.pkcs8.pem").parse().unwrap();
        let mut keys = Keys::new(vec![rsa()], Some(ps256)).unwrap();
        assert_eq!(keys.rotate(at(0)), Err(CannotRotate(KeyError::Given(ps256))));
        assert_eq!(Keys::new(vec![rsa()], None).unwrap().current().algorithm, Algorithm::Rs256);
    }
}
