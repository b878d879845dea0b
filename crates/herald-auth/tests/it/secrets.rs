//! Nothing of a token or a proof comes out again: not as Debug, not in an explanation, not in a log.

use herald_auth::{Address, Call, Presented, ProofOf, SignedHeader};
use serde_json::{json, value::RawValue};

use crate::support::{ADDRESS, Parties, now, public_jwk};

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
