//! Nothing of a token or a proof comes out again: not as Debug, not in an explanation, not in a log.

use std::{collections::HashSet, time::Duration};

use herald_auth::{
    Address, Algorithm, Authenticator, Call, Check, Denied, IssuerKeys, KeyKind, KeysSettings,
    Presented, PrivateKey, ProofOf, ProofRules, Rules, SignedHeader, TokenRules,
};
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use crate::{
    issuer::{DISCOVERY, KEYS, discovery},
    logs::Logs,
    site::{Answer, Site},
    support::{ADDRESS, Parties, key_set_text, now, public_jwk, signed_text},
};

/// Fails if `text` has a part of `secret` that is long enough to be no accident.
#[track_caller]
fn assert_hides(text: &str, secret: &str) {
    for part in secret.split('.').chain([secret]).filter(|part| part.len() >= 8) {
        // A part cut short is still a part.
        for piece in [part, &part[..part.len() / 2], &part[part.len() / 2..]] {
            assert!(!text.contains(piece), "{text:.300}");
        }
    }
}

#[test]
fn no_debug_text_shows_a_token_a_proof_or_a_key() {
    let parties = Parties::new();
    let token = parties.token(&json!({}));
    let proof = parties.proof(&token, &json!({}), &json!({"nonce": "nonce-of-the-server"}));
    let address = Address::parse(ADDRESS).unwrap();
    let thumbprint = parties.client.public().thumbprint();
    let call = Call { method: "GET", address: &address, token: Some((&token, &thumbprint)) };
    let jwk = RawValue::from_string(parties.client.public().to_jwk()).unwrap();
    let header = SignedHeader { typ: "dpop+jwt", kid: None, jwk: Some(&jwk) };
    let authorization = format!("DPoP {token}");
    let presented = Presented {
        authorization: Some(authorization.as_bytes()),
        proof: Some(proof.as_bytes()),
        method: "GET",
        address: Some(&address),
    };
    let proof_of = ProofOf { method: "GET", url: ADDRESS, token: Some(&token), nonce: Some("n-0") };
    let checked = parties.check_proof(&proof, &token).unwrap();
    for text in [
        format!("{call:?}"),
        format!("{header:?}"),
        format!("{presented:?}"),
        format!("{proof_of:?}"),
        format!("{checked:?}"),
        format!("{:?}", parties.check_token(&token).unwrap()),
        format!("{:?}", parties.prover()),
        format!("{:?} {:?}", parties.client, parties.client.public()),
        format!("{:?}", crate::support::key_set(&[&parties.issuer])),
    ] {
        assert_hides(&text, &token);
        assert_hides(&text, &proof);
        for member in ["x", "y"] {
            assert_hides(&text, public_jwk(&parties.client)[member].as_str().unwrap());
            assert_hides(&text, public_jwk(&parties.issuer)[member].as_str().unwrap());
        }
        assert_hides(&text, &format!("{:?}", now().as_second()));
        assert_hides(&text, "nonce-of-the-server");
    }
}

/// Every way in which a call is refused, by what it brings.
fn calls(parties: &Parties, issuer: &str) -> Vec<(Option<String>, Option<String>)> {
    let good = parties.token(&json!({ "iss": issuer }));
    let authorization = |token: &str| Some(format!("DPoP {token}"));
    let mut calls = Vec::new();
    for claims in [
        json!({}),
        json!({"iss": issuer, "aud": "secret-audience"}),
        json!({"iss": issuer, "exp": 1_234_567_890}),
        json!({"iss": issuer, "nbf": 2_345_678_901_u64}),
        json!({"iss": issuer, "cnf": null}),
        json!({"iss": issuer, "exp": "secret-time"}),
        json!({"iss": issuer, "scope": 7}),
    ] {
        let token = parties.token(&claims);
        calls.push((authorization(&token), Some(parties.proof(&token, &json!({}), &json!({})))));
    }
    for header in [r#"{"alg":"secret-alg"}"#, r#"{"alg":"ES256","kid":"secret-kid"}"#, "{secret"] {
        let claims = parties.claims().to_string();
        let token = signed_text(&parties.issuer, Algorithm::Es256, header, &claims);
        calls.push((authorization(&token), Some(parties.proof(&token, &json!({}), &json!({})))));
    }
    for token in [format!("{good}A"), good.replace('.', "!"), "secret-opaque-token".to_owned()] {
        calls.push((authorization(&token), Some(parties.proof(&token, &json!({}), &json!({})))));
    }
    for value in [format!("Bearer {good}"), good.clone(), format!("DPoP{good}"), String::new()] {
        calls.push((Some(value), None));
    }
    calls.push((None, Some(parties.proof(&good, &json!({}), &json!({})))));
    calls.push((authorization(&good), None));
    let other = PrivateKey::generate(KeyKind::P256).unwrap();
    for (header, claims) in [
        (json!({}), json!({})),
        (json!({"typ": "secret-typ"}), json!({})),
        (json!({"alg": "secret-alg"}), json!({})),
        (json!({"alg": "ES384"}), json!({})),
        (json!({"jwk": null}), json!({})),
        (json!({"jwk": public_jwk(&other)}), json!({})),
        (json!({"jwk": {"kty": "oct", "k": "secret-key-material"}}), json!({})),
        (json!({"jwk": {"kty": "secret-kty"}}), json!({})),
        (json!({"crit": ["secret-extension"]}), json!({})),
        (json!({}), json!({"ath": "secret-hash"})),
        (json!({}), json!({"jti": "secret-id-".repeat(100)})),
        (json!({}), json!({"htm": "secret-method"})),
        (json!({}), json!({"htu": "https://secret-host.example/secret-path"})),
        (json!({}), json!({"htu": "https://user:secret-password@api.example.no/notifications"})),
        (json!({}), json!({"iat": 1_234_567_890})),
        (json!({}), json!({"iat": "secret-time"})),
    ] {
        calls.push((authorization(&good), Some(parties.proof(&good, &header, &claims))));
    }
    let (header, claims) = (parties.proof_header(), Parties::proof_claims(&good));
    let (header, claims) = (header.to_string(), claims.to_string());
    let forged = signed_text(&other, Algorithm::Es256, &header, &claims);
    calls.push((authorization(&good), Some(forged)));
    calls.push((authorization(&good), Some("secret-proof".to_owned())));
    calls.push((authorization(&good), Some("x".repeat(20_000))));
    calls
}

#[tokio::test]
async fn no_refusal_and_no_log_repeats_what_a_call_brought() {
    let logs = Logs::start();
    let (site, parties) = (Site::start().await, Parties::new());
    site.put(DISCOVERY, discovery(&site.url(""), &site.url(KEYS)));
    site.put(KEYS, Answer::json(key_set_text(&[&parties.issuer])));
    // Whoever names an unknown key has the keys fetched, which is logged too.
    let settings = KeysSettings { refresh_pause: Duration::ZERO, ..KeysSettings::default() };
    let keys = IssuerKeys::new(&site.url(""), settings).unwrap();
    let fresh = keys.clone();
    tokio::spawn(async move { fresh.keep_fresh().await });
    keys.known().await;
    let token = TokenRules { issuer: site.url(""), ..Parties::token_rules() };
    let rules = Rules { token, proof: ProofRules::default(), replays_max: 1 };
    let authenticator = Authenticator::new(keys, rules);
    let address = Address::parse(ADDRESS).unwrap();
    let mut seen = HashSet::new();
    for (authorization, proof) in calls(&parties, &site.url("")) {
        let presented = Presented {
            authorization: authorization.as_deref().map(str::as_bytes),
            proof: proof.as_deref().map(str::as_bytes),
            method: "GET",
            address: Some(&address),
        };
        let mut shown = match authenticator.check(presented, now()).await {
            Ok(caller) => {
                authenticator.use_up(&caller, Instant::now()).unwrap();
                let again = authenticator.use_up(&caller, Instant::now()).unwrap_err();
                let Denied::Refused(refused) = &again else { panic!("{again:?}") };
                seen.insert(refused.check);
                format!("{caller:?} {again:?}")
            }
            Err(Denied::Refused(refused)) => {
                seen.insert(refused.check);
                format!(
                    "{refused} {refused:?} {} {}",
                    refused.explanation,
                    refused.check.sentence()
                )
            }
            Err(other) => format!("{other:?}"),
        };
        shown += &format!("{presented:?}");
        for brought in [authorization, proof].into_iter().flatten() {
            let brought = brought.split_once(' ').map_or(&*brought, |(_, token)| token);
            assert_hides(&shown, brought);
            assert_hides(&logs.text(), brought);
        }
        // Nor anything that stood in it in clear.
        assert!(!shown.contains("secret"), "{shown}");
    }
    assert_eq!(seen.len(), Check::ALL.len(), "{seen:?}");
    assert!(!logs.text().contains("secret"));
    assert!(logs.text().contains("keys known"), "something is logged");
}
