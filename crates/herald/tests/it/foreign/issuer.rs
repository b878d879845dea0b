//! The issuer as npm's oauth4webapi asks it and npm's jose verifies it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use herald_auth::{Algorithm, PrivateKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{program, run, script};
use crate::support::cli::Running;

/// A token that the client was given and verified.
#[derive(Debug, Deserialize)]
struct Granted {
    round: String,
    nonces: u32,
    header: BTreeMap<String, Value>,
    claims: BTreeMap<String, Value>,
    expires_in: u32,
    scope: String,
    token_type: String,
    thumbprint: String,
}

fn keys() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../herald-auth/tests/keys")
}

/// Which key signs with what.
fn key_file(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Es256 => "p256.jwk.json",
        Algorithm::Es384 => "p384.jwk.json",
        Algorithm::Es512 => "p521.jwk.json",
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => "rsa.jwk.json",
    }
}

/// The public half of the key that signs with this.
pub(super) fn public_jwk(algorithm: Algorithm) -> Value {
    let key = fs::read_to_string(keys().join(key_file(algorithm))).expect("a key");
    let key: PrivateKey = key.parse().expect("a private key");
    serde_json::from_str(&key.public().to_jwk()).expect("a JWK")
}

/// One client for each algorithm.
fn client_file() -> Value {
    let clients = Algorithm::ALL.map(|algorithm| {
        let public = public_jwk(algorithm);
        json!({
            "client_id": algorithm.name(), "keys": [public], "scopes": ["a", "b"], "lifetime": "90s",
            "claims": {"nhn:msh/client/claims/herid": "100-200"},
        })
    });
    json!({ "clients": clients })
}

/// Starts an issuer that signs with `algorithm`; its base URL.
pub(super) fn issuer(clients: &Path, algorithm: Algorithm) -> (Running, String) {
    let key = keys().join(key_file(algorithm));
    let mut issuer = Running::start(&[
        "dev",
        "issuer",
        "--listen",
        "127.0.0.1:0",
        "--clients",
        clients.to_str().expect("a path"),
        "--signing-key",
        key.to_str().expect("a path"),
        "--algorithm",
        algorithm.name(),
    ]);
    let line = issuer.line().expect("it says where it is");
    let url = line.strip_prefix("The issuer is ").expect("its address").to_owned();
    (issuer, url)
}

#[test]
#[ignore = "needs tools: cargo xtask foreign"]
fn oauth4webapi_is_given_tokens_that_jose_verifies_with_every_algorithm() {
    let home = tempfile::tempdir().expect("a directory");
    let clients = home.path().join("clients.json");
    fs::write(&clients, client_file().to_string()).expect("it can be written");
    for signing in Algorithm::ALL {
        let (issuer, url) = issuer(&clients, signing);
        let mut node = program("node");
        node.arg(script("issuer_tokens.mjs")).arg(&url);
        // Every client once: kinds of clients and of signing keys have nothing to do with each other.
        let asking = if signing == Algorithm::Rs256 { &Algorithm::ALL[..] } else { &[signing] };
        for algorithm in asking.iter().copied() {
            let key = keys().join(key_file(algorithm));
            node.arg(algorithm.name()).arg(key).arg(algorithm.name());
        }
        let output = String::from_utf8(run(&mut node).stdout).expect("text");
        let mut lines = output.lines();
        for algorithm in asking {
            // Its first token takes a nonce, its second has one.
            for (round, nonces) in [("first", 1), ("second", 0)] {
                let line = lines.next().expect("two tokens for each client");
                let granted: Granted = serde_json::from_str(line).expect("a token");
                assert_eq!((granted.round.as_str(), granted.nonces), (round, nonces), "{line}");
                assert_eq!(granted.header["alg"], signing.name());
                assert_eq!(granted.claims["client_id"], algorithm.name());
                assert_eq!(granted.claims["scope"], json!(["a", "b"]));
                assert_eq!(granted.claims["nhn:msh/client/claims/herid"], "100-200");
                assert_eq!(granted.claims["cnf"], json!({"jkt": granted.thumbprint}));
                assert_eq!((granted.expires_in, granted.scope.as_str()), (90, "a b"));
                // oauth4webapi writes it in lower case.
                assert_eq!(granted.token_type, "dpop");
            }
        }
        let refused: Value = serde_json::from_str(lines.next().expect("a refusal")).expect("JSON");
        assert_eq!(refused["refused"], "invalid_scope", "{refused}");
        assert_eq!(lines.next(), None);
        issuer.signal("TERM");
        assert_eq!(issuer.wait().code, 0);
    }
}
