//! What a proof must say, for which call, and in which order that is looked at.

use herald_auth::{
    Address, Algorithm, Call, Check, JWS_BYTES_MAX, KeyKind, PROOF_ID_CHARS_MAX, PrivateKey, Proof,
    ProofOf, ProofRules, Prover, encode,
};
use serde_json::{Value, json};

use crate::support::{
    ADDRESS, NOW, Parties, RSA, now, public_jwk, refusal, signed_text, token_hash, with,
};

const TOKEN: &str = "a.b.c";

fn header(changes: &Value) -> Option<Check> {
    let parties = Parties::new();
    refusal(parties.check_proof(&parties.proof(TOKEN, changes, &json!({})), TOKEN))
}

fn claims(changes: &Value) -> Option<Check> {
    let parties = Parties::new();
    refusal(parties.check_proof(&parties.proof(TOKEN, &json!({}), changes), TOKEN))
}

#[test]
fn what_our_own_client_proves_is_taken_with_every_kind_of_key() {
    let address = Address::parse(ADDRESS).unwrap();
    let keys = [KeyKind::P256, KeyKind::P384, KeyKind::P521].map(PrivateKey::generate);
    for key in keys.into_iter().map(Result::unwrap).chain([RSA.parse().unwrap()]) {
        let prover = Prover::of(key).unwrap();
        let of = |token| ProofOf {
            method: "GET",
            url: "https://api.example.no/notifications?HerIds=1#x",
            token,
            nonce: Some("n"),
        };
        let call = |token| Call { method: "GET", address: &address, token };
        for (proof_of, token) in [(None, None), (Some(TOKEN), Some((TOKEN, prover.thumbprint())))] {
            let text = prover.proof(of(proof_of), now()).unwrap();
            let proof = Proof::check(&text, call(token), &ProofRules::default(), now()).unwrap();
            assert_eq!(proof.thumbprint, prover.thumbprint());
            assert_eq!(proof.nonce.as_deref(), Some("n"));
            assert!(!proof.id.is_empty());
        }
    }
}

#[test]
fn its_type_is_dpop_jwt_to_the_letter() {
    assert_eq!(header(&json!({})), None);
    // RFC 7515 lets a type be written in another case and with application/ before it. RFC 9449 names one value, the
    // reference compares the text, and no client is known that writes another.
    for typ in [
        json!(null),
        json!(""),
        json!("JWT"),
        json!("at+jwt"),
        json!("DPoP+JWT"),
        json!("dpop+JWT"),
        json!("application/dpop+jwt"),
        json!("dpop+jwt "),
        json!("dpop+jwt\u{0}"),
        json!("dpop"),
    ] {
        assert_eq!(header(&json!({"typ": typ})), Some(Check::ProofType), "{typ}");
    }
    assert_eq!(header(&json!({"typ": ["dpop+jwt"]})), Some(Check::ProofForm));
}

#[test]
fn its_algorithm_is_one_that_is_allowed_and_fits_its_key() {
    for alg in ["none", "HS256", "es256", "EdDSA", "ES256K", ""] {
        assert_eq!(header(&json!({"alg": alg})), Some(Check::ProofAlgorithm), "{alg}");
    }
    for alg in ["ES384", "ES512", "RS256", "PS256"] {
        assert_eq!(header(&json!({"alg": alg})), Some(Check::ProofAlgorithm), "{alg}");
    }
    assert_eq!(header(&json!({"alg": null})), Some(Check::ProofForm));
    let parties = Parties::new();
    let address = Address::parse(ADDRESS).unwrap();
    let call = Call { method: "GET", address: &address, token: None };
    let text = parties.proof(TOKEN, &json!({}), &json!({}));
    let rules = ProofRules { algorithms: vec![Algorithm::Rs256], ..ProofRules::default() };
    assert_eq!(refusal(Proof::check(&text, call, &rules, now())), Some(Check::ProofAlgorithm));
}

#[test]
fn its_key_is_public_and_the_one_that_the_token_is_bound_to() {
    let parties = Parties::new();
    let jwk = public_jwk(&parties.client);
    let check = |jwk: Value| {
        let text = parties.proof(TOKEN, &json!({ "jwk": jwk }), &json!({}));
        refusal(parties.check_proof(&text, TOKEN))
    };
    let other = PrivateKey::generate(KeyKind::P256).unwrap();
    let long = PrivateKey::generate(KeyKind::P384).unwrap();
    for odd in [
        json!(null),
        public_jwk(&other),
        public_jwk(&long),
        with(jwk.clone(), &json!({"d": "AAAA"})),
        with(jwk.clone(), &json!({"d": ""})),
        with(jwk.clone(), &json!({"k": "AAAA"})),
        json!({"kty": "oct", "k": "AAAA"}),
        json!({"kty": "oct"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
        json!({"kty": "EC"}),
        with(jwk.clone(), &json!({"kty": "ec"})),
        with(jwk.clone(), &json!({"crv": "secp256k1"})),
        with(jwk.clone(), &json!({"crv": "P-384"})),
        with(jwk.clone(), &json!({"x": jwk["y"], "y": jwk["x"]})),
        with(jwk.clone(), &json!({"x": "AAAA"})),
        with(jwk.clone(), &json!({"x": format!("{}=", jwk["x"].as_str().unwrap())})),
    ] {
        assert_eq!(check(odd.clone()), Some(Check::ProofKey), "{odd}");
    }
    for malformed in
        [json!(7), json!("EC"), json!([]), json!({}), with(jwk.clone(), &json!({"x": 7}))]
    {
        assert_eq!(check(malformed.clone()), Some(Check::ProofForm), "{malformed}");
    }
    // What it is called does not matter: the thumbprint is its name.
    for more in [json!({"kid": "k"}), json!({"use": "sig", "alg": "ES256"}), json!({"ext": true})] {
        assert_eq!(check(with(jwk.clone(), &more)), None, "{more}");
    }
    assert_eq!(header(&json!({"kid": "whatever", "jku": "http://127.0.0.1:1/"})), None);
}

#[test]
fn an_exponent_with_leading_zeros_is_no_second_name_for_a_key() {
    let key: PrivateKey = RSA.parse().unwrap();
    let address = Address::parse(ADDRESS).unwrap();
    let call = Call { method: "GET", address: &address, token: None };
    let check = |jwk: Value| {
        let header = json!({"typ": "dpop+jwt", "alg": "RS256", "jwk": jwk});
        let claims = Parties::proof_claims(TOKEN).to_string();
        let text = signed_text(&key, Algorithm::Rs256, &header.to_string(), &claims);
        refusal(Proof::check(&text, call, &ProofRules::default(), now()))
    };
    let jwk = public_jwk(&key);
    assert_eq!(check(jwk.clone()), None);
    assert_eq!(check(with(jwk, &json!({"e": "AAEAAQ"}))), Some(Check::ProofKey));
}

#[test]
fn the_key_in_its_header_has_signed_it() {
    let parties = Parties::new();
    let other = PrivateKey::generate(KeyKind::P256).unwrap();
    let (header, claims) =
        (parties.proof_header().to_string(), Parties::proof_claims(TOKEN).to_string());
    let good = signed_text(&parties.client, Algorithm::Es256, &header, &claims);
    let (message, _) = good.rsplit_once('.').unwrap();
    assert_eq!(refusal(parties.check_proof(&good, TOKEN)), None);
    for text in [
        signed_text(&other, Algorithm::Es256, &header, &claims),
        format!("{message}."),
        format!("{message}.{}", encode(&[0; 64])),
        format!("{message}.{}", encode(&[0xFF; 64])),
        format!("{good}AAAA"),
    ] {
        assert_eq!(refusal(parties.check_proof(&text, TOKEN)), Some(Check::ProofSignature));
    }
    for text in ["", "..", "a.b.c", &format!("{good}, {good}"), &format!("{good}="), message] {
        assert_eq!(refusal(parties.check_proof(text, TOKEN)), Some(Check::ProofForm));
    }
    let long = format!("{good:A<0$}", JWS_BYTES_MAX + 1);
    let refused = parties.check_proof(&long, TOKEN).unwrap_err();
    assert_eq!(refused.check, Check::ProofForm);
    assert_eq!(refused.explanation, "it is longer than 16384 bytes");
}

#[test]
fn it_is_for_this_very_token() {
    for ath in [
        json!(null),
        json!(""),
        json!(TOKEN),
        json!(token_hash("another")),
        json!(format!("{}=", token_hash(TOKEN))),
        json!(token_hash(TOKEN).to_uppercase()),
    ] {
        assert_eq!(claims(&json!({"ath": ath})), Some(Check::ProofToken), "{ath}");
    }
    assert_eq!(claims(&json!({"ath": [token_hash(TOKEN)]})), Some(Check::ProofForm));
}

#[test]
fn its_name_has_1_to_512_characters() {
    for (id, refused) in [
        (json!(null), Some(Check::ProofId)),
        (json!(""), Some(Check::ProofId)),
        (json!("x"), None),
        (json!("å".repeat(PROOF_ID_CHARS_MAX)), None),
        (json!("x".repeat(PROOF_ID_CHARS_MAX + 1)), Some(Check::ProofId)),
        (json!("\u{0}"), None),
        (json!(7), Some(Check::ProofForm)),
    ] {
        assert_eq!(claims(&json!({"jti": id})), refused, "{id:.40}");
    }
}

#[test]
fn it_is_for_this_method_in_this_case() {
    for htm in [json!(null), json!(""), json!("get"), json!("Get"), json!("POST"), json!("GET ")] {
        assert_eq!(claims(&json!({"htm": htm})), Some(Check::ProofMethod), "{htm}");
    }
    assert_eq!(claims(&json!({"htm": ["GET"]})), Some(Check::ProofForm));
}

#[test]
fn it_is_for_this_address_and_none_that_looks_like_it() {
    for htu in [
        ADDRESS,
        "HTTPS://API.EXAMPLE.NO/notifications",
        "https://api.example.no:443/notifications",
        "https://api.example.no:/notifications",
    ] {
        assert_eq!(claims(&json!({"htu": htu})), None, "{htu}");
    }
    for htu in [
        "",
        "/notifications",
        "notifications",
        "//api.example.no/notifications",
        "api.example.no/notifications",
        "http://api.example.no/notifications",
        "http://api.example.no:443/notifications",
        "https://api.example.no:80/notifications",
        "https://api.example.no:8443/notifications",
        "https://api.example.no:65979/notifications",
        "https://api.example.no./notifications",
        "https://api.example.no.evil.example/notifications",
        "https://user@api.example.no/notifications",
        "https://api.example.no@evil.example/notifications",
        "https://api.example.no%2f@evil.example/notifications",
        "https://%61pi.example.no/notifications",
        "https://api.example.no\\@evil.example/notifications",
        "https:\\\\api.example.no\\notifications",
        "https:///api.example.no/notifications",
        "https:api.example.no/notifications",
        "https://api.example.no/notifications?",
        "https://api.example.no/notifications?a=b",
        "https://api.example.no/notifications#",
        "https://api.example.no/notifications;x",
        "https://api.example.no/notifications/",
        "https://api.example.no/Notifications",
        "https://api.example.no//notifications",
        "https://api.example.no/./notifications",
        "https://api.example.no/x/../notifications",
        "https://api.example.no/%6eotifications",
        "https://api.example.no/notifications%20",
        "https://api.example.no/notifications ",
        " https://api.example.no/notifications",
        "https://api.example.no/notifications\u{0}",
        "https://api.example.no/notifications\r\n",
        "https://\u{430}pi.example.no/notifications",
        "https://api\u{3002}example\u{3002}no/notifications",
        "https://api.example.no/notification\u{17f}",
        "https://[::1]/notifications",
        "htt\u{1e9e}ps://api.example.no/notifications",
        "ws://api.example.no/notifications",
    ] {
        assert_eq!(claims(&json!({"htu": htu})), Some(Check::ProofAddress), "{htu:?}");
    }
    assert_eq!(claims(&json!({"htu": null})), Some(Check::ProofAddress));
    assert_eq!(claims(&json!({"htu": [ADDRESS]})), Some(Check::ProofForm));
}

#[test]
fn it_is_of_now_by_6_seconds_before_and_5_after() {
    let parties = Parties::new();
    let check = |iat: &str| {
        let claims = with(Parties::proof_claims(TOKEN), &json!({"iat": "IAT"})).to_string();
        let claims = claims.replace(r#""IAT""#, iat);
        let header = parties.proof_header().to_string();
        let text = signed_text(&parties.client, Algorithm::Es256, &header, &claims);
        refusal(parties.check_proof(&text, TOKEN))
    };
    for (ahead, refused) in [
        (-7, Some(Check::ProofTime)),
        (-6, None),
        (0, None),
        (5, None),
        (6, Some(Check::ProofTime)),
        (-NOW, Some(Check::ProofTime)),
        (NOW * 1000, Some(Check::ProofTime)),
    ] {
        assert_eq!(check(&(NOW + ahead).to_string()), refused, "{ahead}");
    }
    for (iat, refused) in [
        ("1779999994.0", None),
        ("1779999993.999", Some(Check::ProofTime)),
        ("1780000005.001", Some(Check::ProofTime)),
        ("1.78e9", None),
        ("null", Some(Check::ProofTime)),
        ("-1e308", Some(Check::ProofTime)),
        ("1e308", Some(Check::ProofTime)),
        ("1e400", Some(Check::ProofForm)),
        (r#""1780000000""#, Some(Check::ProofForm)),
        ("[1780000000]", Some(Check::ProofForm)),
        ("true", Some(Check::ProofForm)),
    ] {
        assert_eq!(check(iat), refused, "{iat}");
    }
}

#[test]
fn a_claim_of_it_that_is_there_twice_makes_it_no_proof() {
    let parties = Parties::new();
    let claims = Parties::proof_claims(TOKEN).to_string();
    for more in [
        r#""jti":"id-2""#,
        r#""htm":"POST""#,
        r#""h\u0074u":"https://evil.example/""#,
        r#""iat":1"#,
        r#""ath":"a""#,
        r#""nonce":"a","nonce":"b""#,
    ] {
        let claims = claims.replacen('{', &format!("{{{more},"), 1);
        let header = parties.proof_header().to_string();
        let text = signed_text(&parties.client, Algorithm::Es256, &header, &claims);
        assert_eq!(refusal(parties.check_proof(&text, TOKEN)), Some(Check::ProofForm), "{more}");
    }
}

#[test]
fn the_first_check_that_fails_is_the_one_that_is_named() {
    // Each row spoils one thing more than the row below it, and is refused for that.
    let parties = Parties::new();
    let other = PrivateKey::generate(KeyKind::P256).unwrap();
    let steps = [
        (Check::ProofType, json!({"typ": "JWT"}), json!({})),
        (Check::ProofAlgorithm, json!({"alg": "none"}), json!({})),
        (Check::ProofKey, json!({"jwk": public_jwk(&other)}), json!({})),
        (Check::ProofToken, json!({}), json!({"ath": "a"})),
        (Check::ProofId, json!({}), json!({"jti": ""})),
        (Check::ProofMethod, json!({}), json!({"htm": "POST"})),
        (Check::ProofAddress, json!({}), json!({"htu": "https://evil.example/"})),
        (Check::ProofTime, json!({}), json!({"iat": 0})),
    ];
    let (mut header, mut claims) = (json!({}), json!({}));
    for (check, of_header, of_claims) in steps.into_iter().rev() {
        header = with(header, &of_header);
        claims = with(claims, &of_claims);
        let text = parties.proof(TOKEN, &header, &claims);
        assert_eq!(refusal(parties.check_proof(&text, TOKEN)), Some(check));
    }
    let order: Vec<Check> =
        Check::ALL.into_iter().filter(|check| check.error() == "invalid_dpop_proof").collect();
    assert_eq!(
        order[..5],
        [
            Check::ProofForm,
            Check::ProofType,
            Check::ProofAlgorithm,
            Check::ProofKey,
            Check::ProofSignature,
        ]
    );
}
