//! What a client gets.

use herald_auth::{Algorithm, PrivateKey};
use herald_issuer::{AUTHORIZATION_SERVER_PATH, CONFIGURATION_PATH, KEYS_PATH, TokenKind};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::{Laptop, PUBLISH, READ};

fn header_of(token: &str) -> Value {
    let text = token.split('.').next().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = text.chars().map(|c| format!("{:06b}", alphabet.find(c).unwrap())).collect();
    let bytes = bits.as_bytes().chunks_exact(8);
    let bytes: Vec<u8> = bytes
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_client_with_a_proof_gets_a_token_that_is_bound_to_its_key() {
    let Laptop { issuer, caller } = Laptop::start().await;
    let answered = caller.ask().await;
    let token = answered.token();
    assert_eq!(answered.headers["cache-control"], "no-store");
    assert_eq!(answered.nonce(), None);
    assert_eq!(answered.body["token_type"], "DPoP");
    assert_eq!(answered.body["expires_in"], 600);
    assert_eq!(answered.body["scope"], format!("{READ} {PUBLISH}"));

    assert_eq!(header_of(token), json!({"alg": "ES256", "typ": "JWT", "kid": issuer.kid()}));
    let mut claims = caller.claims(token).await.unwrap();
    let claims = claims.as_object_mut().unwrap();
    let [iat, nbf, exp] =
        ["iat", "nbf", "exp"].map(|name| claims.remove(name).unwrap().as_i64().unwrap());
    assert_eq!((iat, exp - iat), (nbf, 600));
    assert!((0..60).contains(&(Timestamp::now().as_second() - iat)));
    let jti = claims.remove("jti").unwrap();
    assert_eq!(
        Value::from(claims.clone()),
        json!({
            "iss": issuer.url(),
            "aud": "nhn:msh",
            "scope": [READ, PUBLISH],
            "client_id": "laptop",
            "client_amr": "private_key_jwt",
            "cnf": {"jkt": caller.prover.thumbprint()},
            "nhn:msh/client/claims/herid": "100-200",
            "helseid://claims/client/claims/orgnr_parent": "310000000",
        })
    );
    let next = caller.ask().await;
    assert_ne!(caller.claims(next.token()).await.unwrap()["jti"], jti);
}

#[tokio::test]
async fn the_configuration_says_where_everything_is() {
    let Laptop { issuer, caller } = Laptop::start().await;
    let configuration = caller.get(CONFIGURATION_PATH).await;
    assert_eq!(configuration.status, 200);
    assert_eq!(configuration.headers["content-type"], "application/json");
    let body = &configuration.body;
    assert_eq!(body["issuer"], issuer.url());
    assert_eq!(body["token_endpoint"], caller.endpoint());
    assert_eq!(body["jwks_uri"], format!("{}{KEYS_PATH}", issuer.url()));
    assert_eq!(body["grant_types_supported"], json!(["client_credentials"]));
    assert_eq!(body["token_endpoint_auth_methods_supported"], json!(["private_key_jwt"]));
    let algorithms = json!(Algorithm::ALL.map(Algorithm::name));
    assert_eq!(body["dpop_signing_alg_values_supported"], algorithms);
    assert_eq!(body["token_endpoint_auth_signing_alg_values_supported"], algorithms);
    assert_eq!(caller.get(AUTHORIZATION_SERVER_PATH).await.body, *body);
    assert!(issuer.url().starts_with("http://127.0.0.1:"));
    let keys = caller.get(KEYS_PATH).await.body;
    let key = keys["keys"][0].as_object().unwrap();
    assert_eq!((&key["kid"], &key["use"]), (&json!(issuer.kid()), &json!("sig")));
    assert!(!key.contains_key("d"));
}

#[tokio::test]
async fn settings_choose_algorithm_kind_audience_and_lifetime() {
    let rsa: PrivateKey =
        include_str!("../../../herald-auth/tests/keys/rsa.pkcs8.pem").parse().unwrap();
    let Laptop { issuer: _issuer, caller } = Laptop::start_with(|settings| {
        settings.signing_keys = vec![rsa.named("r1")];
        settings.algorithm = Some(Algorithm::Ps384);
        settings.token_kind = TokenKind::AtJwt;
        settings.audience = "another".to_owned();
        settings.lifetime = Duration::from_secs(90);
    })
    .await;
    let answered = caller.ask().await;
    let token = answered.token();
    assert_eq!(header_of(token), json!({"alg": "PS384", "typ": "at+jwt", "kid": "r1"}));
    let claims = caller.claims(token).await.unwrap();
    assert_eq!(claims["aud"], "another");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 90);
    assert_eq!(answered.body["expires_in"], 90);
}

#[tokio::test]
async fn a_client_gets_the_scopes_that_it_asks_for_and_may_have() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    for (asked, granted) in [
        (READ.to_owned(), vec![READ]),
        (PUBLISH.to_owned(), vec![PUBLISH]),
        (format!("{PUBLISH}+{READ}+{PUBLISH}"), vec![PUBLISH, READ]),
        (String::new(), vec![READ, PUBLISH]),
    ] {
        let answered = caller.ask_with(&caller.assertion(), &format!("&scope={asked}")).await;
        assert_eq!(answered.body["scope"], granted.join(" "), "{}", answered.body);
        assert_eq!(caller.claims(answered.token()).await.unwrap()["scope"], json!(granted));
    }
    for asked in ["openid", "nhn:msh/api+openid", "NHN:MSH/API"] {
        let answered = caller.ask_with(&caller.assertion(), &format!("&scope={asked}")).await;
        answered.assert_refused("invalid_scope", "laptop may not ask for");
    }
}
