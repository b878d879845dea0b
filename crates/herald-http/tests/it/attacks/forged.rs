//! Tokens and proofs that bring their own key, or none.

use std::sync::Arc;

use herald_auth::{KeyKind, PrivateKey, encode};
use http::StatusCode;
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    auth::assert_refused,
    guarded::{Caller, Guarded, TestIssuer, secret, signed, unsigned},
};

fn new_key() -> PrivateKey {
    PrivateKey::generate(KeyKind::P256).unwrap()
}

fn jwk_of(key: &PrivateKey) -> Value {
    serde_json::from_str(&key.public().to_jwk()).unwrap()
}

async fn refused_token(guarded: &Guarded, caller: &Caller, token: String, detail: &str) {
    let caller = Caller { key: Arc::clone(&caller.key), token };
    let refused = guarded.poll(&caller, "HerIds=100&Offset=0").await;
    assert_refused(&refused, "invalid_token", detail);
}

#[tokio::test]
async fn an_unsigned_token_is_refused_however_none_is_written() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let claims = guarded.claims(&reader.key);
    let kid = guarded.issuer.published()[0]["kid"].clone();
    let signature = reader.token.rsplit('.').next().unwrap().to_owned();
    for alg in ["none", "None", "NONE", "nOnE", "", "null"] {
        for signature in ["", "AA", &signature] {
            let text = unsigned(&json!({ "typ": "JWT", "alg": alg, "kid": kid }), &claims);
            let token = secret(format!("{text}.{signature}"));
            refused_token(&guarded, &reader, token, "its algorithm").await;
        }
    }
    for header in [json!({ "kid": kid }), json!({ "alg": null }), json!({ "alg": ["none"] })] {
        let token = secret(format!("{}.", unsigned(&header, &claims)));
        refused_token(&guarded, &reader, token, "no signed token").await;
    }
}

/// The confusion of algorithms: the public key, which everybody has, taken for the secret of an HMAC.
#[tokio::test]
async fn a_token_signed_with_the_public_key_as_a_secret_is_refused() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let published = guarded.issuer.published().remove(0);
    let claims = guarded.claims(&reader.key);
    let coordinates = ["x", "y"].map(|name| published[name].as_str().unwrap().to_owned());
    for material in
        [published.to_string(), coordinates.concat(), coordinates[0].clone(), String::new()]
    {
        for (alg, hash) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
            // Called what the key is for.
            ("ES256", hmac::HMAC_SHA256),
        ] {
            let text = unsigned(&json!({ "alg": alg, "kid": published["kid"] }), &claims);
            let tag = hmac::sign(&hmac::Key::new(hash, material.as_bytes()), text.as_bytes());
            let token = secret(format!("{text}.{}", encode(tag.as_ref())));
            let detail = if alg == "ES256" { "its signature" } else { "its algorithm" };
            refused_token(&guarded, &reader, token, detail).await;
        }
    }
}

#[tokio::test]
async fn a_token_that_brings_its_own_key_is_refused_and_nothing_is_fetched_for_it() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    // Whoever attacks has published a key of its own.
    let evil = TestIssuer::start().await;
    let (key, kid) = (new_key(), guarded.issuer.published()[0]["kid"].clone());
    let mut jwk = jwk_of(&key);
    jwk["kid"] = kid.clone();
    evil.publish(vec![jwk.clone()]);
    let keys_url = format!("{}/keys", evil.url);
    let claims = guarded.claims(&reader.key);
    for more in [
        json!({ "jwk": jwk }),
        json!({ "jku": keys_url }),
        json!({ "x5u": keys_url }),
        json!({ "x5c": ["MIIB"], "x5t": "x" }),
        json!({ "jwk": jwk, "jku": keys_url, "x5u": keys_url }),
    ] {
        for kid in [kid.clone(), json!(null)] {
            let header = json!({ "typ": "JWT", "alg": "ES256", "kid": kid });
            let header = crate::guarded::changed(header, more.clone());
            let token = signed(&key, &header, &claims);
            let caller = Caller { key: Arc::clone(&reader.key), token };
            let refused = guarded.poll(&caller, "HerIds=100&Offset=0").await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{header}");
        }
    }
    assert_eq!(evil.fetches(), 0);
    // Beside the right signature they mean nothing.
    let token = guarded.issuer.sign(&json!({ "jku": keys_url, "x5u": keys_url }), &claims);
    let caller = Caller { key: Arc::clone(&reader.key), token };
    let taken = guarded.poll(&caller, "HerIds=100&Offset=0").await;
    assert_eq!((taken.status, evil.fetches()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_key_is_found_by_its_whole_name_and_names_are_no_paths() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let stranger = new_key();
    let claims = guarded.claims(&reader.key);
    let kid = guarded.issuer.published()[0]["kid"].as_str().unwrap().to_owned();
    for wrong in [
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "",
        "*",
        &format!("{kid} "),
        &kid.to_uppercase(),
        &format!("{kid}\0"),
    ] {
        let header = json!({ "typ": "JWT", "alg": "ES256", "kid": wrong });
        refused_token(&guarded, &reader, signed(&stranger, &header, &claims), "no such key").await;
    }
}

#[tokio::test]
async fn a_proof_brings_a_public_key_and_it_is_the_tokens() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let url = guarded.url("/notifications");
    let refused = async |header: Value, detail: &str| {
        let proof = reader.proof_with("GET", &url, header, json!({}));
        assert_refused(&guarded.poll_with(&reader, &proof).await, "invalid_dpop_proof", detail);
    };
    let own = jwk_of(&reader.key);
    let with = |name: &str, value: Value| {
        let mut jwk = own.clone();
        jwk[name] = value;
        json!({ "jwk": jwk })
    };
    for (name, value) in [
        ("d", json!("AAAA")),
        ("d", json!("")),
        ("k", json!("AAAA")),
        ("kty", json!("oct")),
        ("kty", json!("RSA")),
        ("crv", json!("P-384")),
        ("crv", json!("secp256k1")),
        ("x", json!("AAAA")),
        ("x", json!("")),
        ("y", own["x"].clone()),
    ] {
        refused(with(name, value), "its key").await;
    }
    refused(json!({ "jwk": { "kty": "oct", "k": "AAAA" }, "alg": "HS256" }), "its algorithm").await;
    refused(json!({ "jwk": { "kty": "oct", "k": "AAAA" } }), "its key").await;
    for jku in ["http://127.0.0.1:1/keys", "file:///etc/passwd"] {
        refused(json!({ "jwk": null, "jku": jku, "x5u": jku }), "its key").await;
    }
    // Another's key in the header, signed with that one: a stolen token without its key.
    let thief = new_key();
    let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk_of(&thief) });
    let stolen = Caller { key: Arc::new(thief), token: reader.token.clone() };
    let proof = stolen.proof("GET", &url);
    assert_refused(&guarded.poll_with(&stolen, &proof).await, "invalid_dpop_proof", "its key");
    // The token's key in the header, signed with another.
    let claims = json!({ "jti": "a", "htm": "GET", "htu": url, "iat": 0, "ath": "x" });
    let header = crate::guarded::changed(header, json!({ "jwk": own }));
    let proof = signed(&stolen.key, &header, &claims);
    assert_refused(&guarded.poll_with(&reader, &proof).await, "invalid_dpop_proof", "signature");
}

#[tokio::test]
async fn a_token_of_16_kib_is_read_and_a_longer_one_is_not() {
    let guarded = Guarded::start().await;
    for (padding, status) in [(8_000, StatusCode::OK), (13_000, StatusCode::UNAUTHORIZED)] {
        let reader = guarded.caller(json!({ "padding": "x".repeat(padding) }));
        let given = guarded.poll(&reader, "HerIds=100&Offset=0").await;
        assert_eq!(given.status, status, "{} bytes", reader.token.len());
    }
}

#[tokio::test]
async fn a_part_with_padding_spaces_or_another_alphabet_is_no_part() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let [header, claims, signature] =
        <[&str; 3]>::try_from(reader.token.split('.').collect::<Vec<_>>()).unwrap();
    for token in [
        format!("{header}.{claims}.{signature}="),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}.{signature}."),
        format!("{header}..{claims}.{signature}"),
        format!(".{header}.{claims}.{signature}"),
        format!("{header}. {claims}.{signature}"),
        format!("{header}.{claims}+.{signature}"),
        format!("{header}.{claims}/.{signature}"),
        format!("{header}.{claims}.{signature} x"),
    ] {
        refused_token(&guarded, &reader, token, "no signed token").await;
    }
    // One whose last character has bits that nobody reads would be another text for the same signature.
    let last = signature.chars().last().unwrap();
    let twin =
        char::from_u32(u32::from(last) + 1).filter(char::is_ascii_alphanumeric).unwrap_or('B');
    let token = format!("{header}.{claims}.{}{twin}", &signature[..signature.len() - 1]);
    let caller = Caller { key: Arc::clone(&reader.key), token };
    let refused = guarded.poll(&caller, "HerIds=100&Offset=0").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}
