//! Signing in: an issuer and a server that check what they are sent and answer as a test says.

mod calls;
mod issuer;
mod secrets;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use herald_auth::{Address, Algorithm, Call, KeySet, PrivateKey, Proof, ProofRules};
use herald_client::{Client, HelseId};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::script::{Request, Script, answer, write};

const KEY: &str = include_str!("../../../herald-auth/tests/keys/p256.jwk.json");
const KEYS: [&str; 6] = [
    KEY,
    include_str!("../../../herald-auth/tests/keys/p256.pkcs8.pem"),
    include_str!("../../../herald-auth/tests/keys/p384.sec1.pem"),
    include_str!("../../../herald-auth/tests/keys/p521.jwk.json"),
    include_str!("../../../herald-auth/tests/keys/rsa.jwk.json"),
    include_str!("../../../herald-auth/tests/keys/rsa.pkcs8.pem"),
];
const JSON: &str = "content-type: application/json\r\n";

/// A request for a token, checked.
struct Asked {
    /// Its number from 0, discovery not counted.
    number: usize,
    form: Vec<(String, String)>,
    assertion: Value,
    proof: Proof,
}

impl Asked {
    fn field(&self, name: &str) -> &str {
        let mut values = self.form.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let value = values.next().unwrap();
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    /// The nonce in its proof.
    fn nonce(&self) -> Option<&str> {
        self.proof.nonce.as_deref()
    }
}

struct Issuer {
    script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Issuer {
    /// Answers each request for a token with `token`.
    fn start(token: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::with(|url| discovery(url, "/connect/token"), token)
    }

    /// The same with another discovery document.
    fn with(
        discovery: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
        token: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&asked);
        let script = Script::start(move |_, request, stream| {
            let url = format!("http://{}", request.header("host").unwrap());
            if request.target() == "GET /.well-known/openid-configuration" {
                return write(stream, discovery(&url));
            }
            assert_eq!(request.target(), "POST /connect/token");
            let answer = {
                let mut all = all.lock().unwrap();
                let number = all.len();
                all.push(check(request, &url, number));
                token(&all[number])
            };
            write(stream, answer);
        });
        Self { script, asked }
    }

    /// How many discovery documents and tokens were asked for.
    fn counts(&self) -> (usize, usize) {
        let tokens = self.asked.lock().unwrap().len();
        (self.script.requests().len() - tokens, tokens)
    }

    fn helseid(&self) -> HelseId {
        HelseId::new(&self.script.url, "journal", KEY).unwrap()
    }

    fn client(&self, server: &Script) -> Client {
        Client::builder(&server.url, "Journal, v2.4").credentials(self.helseid()).build().unwrap()
    }
}

/// What every request for a token must be, whatever becomes of it.
fn check(request: &Request, issuer: &str, number: usize) -> Asked {
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let form = format!("form:?{}", std::str::from_utf8(&request.body).unwrap());
    let form = reqwest::Url::parse(&form).unwrap();
    let form: Vec<_> = form.query_pairs().into_owned().collect();
    let address = Address::parse(&format!("{issuer}/connect/token")).unwrap();
    let call = Call { method: "POST", address: &address, token: None };
    let text = request.header("dpop").unwrap();
    let proof = Proof::check(text, call, &ProofRules::default(), Timestamp::now()).unwrap();
    let assertion = &form.iter().find(|(name, _)| name == "client_assertion").unwrap().1;
    let assertion = keys().verify(assertion, &Algorithm::ALL).unwrap();
    Asked { number, form, assertion, proof }
}

/// The public halves of all keys that tests sign with, under their names.
fn keys() -> KeySet {
    let keys: Vec<Value> = KEYS
        .iter()
        .map(|text| {
            let key = text.parse::<PrivateKey>().unwrap();
            let mut jwk: Value = serde_json::from_str(&key.public().to_jwk()).unwrap();
            if let Some(kid) = key.kid() {
                jwk["kid"] = kid.into();
            }
            jwk
        })
        .collect();
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn discovery(issuer: &str, token_path: &str) -> Vec<u8> {
    let endpoint = format!("{}{token_path}", issuer.trim_end_matches('/'));
    let document = json!({"issuer": issuer, "token_endpoint": endpoint, "new": [1]});
    answer("200 OK", JSON, document.to_string())
}

fn token(text: &str, expires_in: u64, headers: &str) -> Vec<u8> {
    let body = json!({"access_token": text, "token_type": "DPoP", "expires_in": expires_in});
    answer("200 OK", &format!("{JSON}{headers}"), body.to_string())
}

/// A token of ten minutes that names its number.
fn usual(asked: &Asked) -> Vec<u8> {
    token(&format!("token-{}", asked.number), 600, "")
}

fn refusal(status: &str, headers: &str, error: &str, description: &str) -> Vec<u8> {
    let body = json!({"error": error, "error_description": description});
    answer(status, &format!("{JSON}{headers}"), body.to_string())
}

/// Checks token and proof of a call; returns the token's text and the proof.
fn signed(request: &Request, server: &str) -> (String, Proof) {
    let token = request.header("authorization").unwrap().strip_prefix("DPoP ").unwrap();
    let (method, path) = request.target().split_once(' ').unwrap();
    let address = Address::parse(&format!("{server}{path}")).unwrap();
    let check = |token| {
        let call = Call { method, address: &address, token };
        let text = request.header("dpop").unwrap();
        Proof::check(text, call, &ProofRules::default(), Timestamp::now()).unwrap()
    };
    let thumbprint = check(None).thumbprint;
    (token.to_owned(), check(Some((token, &thumbprint))))
}

/// All calls so far, each as its token and its proof.
fn calls(server: &Script) -> Vec<(String, Proof)> {
    server.requests().iter().map(|request| signed(request, &server.url)).collect()
}

fn tokens_of(server: &Script) -> Vec<String> {
    calls(server).into_iter().map(|(token, _)| token).collect()
}

/// Moves the clock while nothing is under way.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
