//! An issuer and a client that sign what a test tells them to, odd things too.

use herald_auth::{
    Address, Algorithm, Call, Check, KeyKind, KeySet, PrivateKey, Proof, ProofRules, Prover,
    Refused, Token, TokenRules, encode,
};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://sts.example.no";
pub(crate) const AUDIENCE: &str = "nhn:msh";
pub(crate) const ADDRESS: &str = "https://api.example.no/notifications";
pub(crate) const HER_ID: &str = herald_auth::HER_ID_CLAIM;
pub(crate) const ORGANISATION: &str = herald_auth::ORGANISATION_CLAIM;
/// The second at which everything here happens.
pub(crate) const NOW: i64 = 1_780_000_000;

pub(crate) const RSA: &str = include_str!("../keys/rsa.pkcs8.pem");

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// A signed object of these very texts.
pub(crate) fn signed_text(
    key: &PrivateKey,
    algorithm: Algorithm,
    header: &str,
    claims: &str,
) -> String {
    let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = key.sign(algorithm, message.as_bytes()).unwrap();
    format!("{message}.{}", encode(&signature))
}

/// `object` with the members of `changes`; null takes one out.
pub(crate) fn with(mut object: Value, changes: &Value) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    object
}

pub(crate) fn public_jwk(key: &PrivateKey) -> Value {
    serde_json::from_str(&key.public().to_jwk()).unwrap()
}

/// A key set with `keys` by their names.
pub(crate) fn key_set_text(keys: &[&PrivateKey]) -> String {
    let keys: Vec<Value> =
        keys.iter().map(|key| with(public_jwk(key), &json!({"kid": key.kid()}))).collect();
    json!({"keys": keys}).to_string()
}

pub(crate) fn key_set(keys: &[&PrivateKey]) -> KeySet {
    KeySet::parse(key_set_text(keys).as_bytes()).unwrap()
}

/// An issuer with one key, and a client with another.
pub(crate) struct Parties {
    pub(crate) issuer: PrivateKey,
    pub(crate) client: PrivateKey,
}

impl Parties {
    pub(crate) fn new() -> Self {
        let [issuer, client] = [(); 2].map(|()| PrivateKey::generate(KeyKind::P256).unwrap());
        Self { issuer: issuer.named("k1"), client }
    }

    /// What a good token of now says.
    pub(crate) fn claims(&self) -> Value {
        json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": NOW + 600,
            "nbf": NOW,
            "iat": NOW,
            "scope": ["nhn:msh/api"],
            "client_id": "client-1",
            "cnf": {"jkt": self.client.public().thumbprint()},
            HER_ID: "0",
            ORGANISATION: "994598759",
        })
    }

    /// A token with changed claims.
    pub(crate) fn token(&self, changes: &Value) -> String {
        self.token_text(&with(self.claims(), changes).to_string())
    }

    /// A token with these claims, to the byte.
    pub(crate) fn token_text(&self, claims: &str) -> String {
        signed_text(&self.issuer, Algorithm::Es256, r#"{"alg":"ES256","kid":"k1"}"#, claims)
    }

    pub(crate) fn token_rules() -> TokenRules {
        TokenRules {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            algorithms: Algorithm::ALL.to_vec(),
            skew: std::time::Duration::from_secs(5),
        }
    }

    pub(crate) fn check_token(&self, text: &str) -> Result<Token, Refused> {
        Token::check(text, &key_set(&[&self.issuer]), &Self::token_rules(), now())
    }

    pub(crate) fn proof_header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(&self.client)})
    }

    /// What a good proof of now for `GET` [`ADDRESS`] with `token` says.
    pub(crate) fn proof_claims(token: &str) -> Value {
        json!({"jti": "id-1", "htm": "GET", "htu": ADDRESS, "iat": NOW, "ath": token_hash(token)})
    }

    /// A proof for `token` with changed header and claims.
    pub(crate) fn proof(&self, token: &str, header: &Value, claims: &Value) -> String {
        signed_text(
            &self.client,
            Algorithm::Es256,
            &with(self.proof_header(), header).to_string(),
            &with(Self::proof_claims(token), claims).to_string(),
        )
    }

    /// Checks a proof that came with `token`, for `GET` [`ADDRESS`].
    pub(crate) fn check_proof(&self, text: &str, token: &str) -> Result<Proof, Refused> {
        let address = Address::parse(ADDRESS).unwrap();
        let thumbprint = self.client.public().thumbprint();
        let call = Call { method: "GET", address: &address, token: Some((token, &thumbprint)) };
        Proof::check(text, call, &ProofRules::default(), now())
    }

    pub(crate) fn prover(&self) -> Prover {
        Prover::new().unwrap()
    }
}

/// The check that refused.
pub(crate) fn refusal<T>(outcome: Result<T, Refused>) -> Option<Check> {
    outcome.err().map(|refused| refused.check)
}

/// The `ath` of a token.
pub(crate) fn token_hash(token: &str) -> String {
    encode(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref())
}
