//! What an access token must say, and what an attacker would like it to.

use base64::Engine as _;
use herald_auth::{
    Algorithm, CLIENT_ID_CHARS_MAX, Check, JWS_BYTES_MAX, KeyKind, KeySet, PrivateKey, Token,
    TokenRules, encode,
};
use serde_json::{Value, json};

use crate::support::{
    ISSUER, NOW, Parties, RSA, key_set, key_set_text, now, public_jwk, refusal, signed_text, with,
};

fn outcome(changes: &Value) -> Option<Check> {
    let parties = Parties::new();
    refusal(parties.check_token(&parties.token(changes)))
}

#[test]
fn a_good_token_says_who_calls() {
    let parties = Parties::new();
    let token = parties.check_token(&parties.token(&json!({}))).unwrap();
    assert_eq!(token.client_id, "client-1");
    assert_eq!(token.thumbprint, parties.client.public().thumbprint());
    assert_eq!(token.expires.as_second(), NOW + 600);
    assert_eq!(token.scopes, ["nhn:msh/api"]);
    assert_eq!(token.holder.organisation.as_deref(), Some("994598759"));
}

#[test]
fn each_claim_that_is_needed_is_missed() {
    for (name, check) in [
        ("iss", Check::TokenIssuer),
        ("aud", Check::TokenAudience),
        ("exp", Check::TokenLifetime),
        ("cnf", Check::TokenBinding),
    ] {
        assert_eq!(outcome(&json!({ name: null })), Some(check), "{name}");
    }
    for name in ["nbf", "iat", "scope", "client_id", crate::support::HER_ID] {
        assert_eq!(outcome(&json!({ name: null })), None, "{name}");
    }
}

#[test]
fn a_claim_of_another_type_makes_it_no_token() {
    for (name, value) in [
        ("iss", json!(7)),
        ("iss", json!([ISSUER])),
        ("aud", json!(7)),
        ("aud", json!({"a": "nhn:msh"})),
        ("aud", json!([7, "nhn:msh"])),
        ("aud", json!([["nhn:msh"]])),
        ("exp", json!("1780000600")),
        ("exp", json!([NOW + 600])),
        ("exp", json!(true)),
        ("nbf", json!("1780000000")),
        ("scope", json!(7)),
        ("scope", json!({"nhn:msh/api": true})),
        ("client_id", json!(7)),
        ("cnf", json!("thumbprint")),
        ("cnf", json!(["thumbprint"])),
        ("cnf", json!({"jkt": 7})),
    ] {
        let refused = outcome(&json!({ name: value }));
        assert_eq!(refused, Some(Check::TokenForm), "{name} {value}");
    }
    assert_eq!(outcome(&json!({"cnf": {"x5t#S256": "a"}})), Some(Check::TokenBinding));
}

#[test]
fn the_issuer_is_this_one_with_or_without_a_slash() {
    for issuer in ["https://sts.example.no", "https://sts.example.no/"] {
        assert_eq!(outcome(&json!({ "iss": issuer })), None, "{issuer}");
    }
    for issuer in [
        "",
        "/",
        "https://sts.example.no//",
        "https://sts.example.no/ ",
        "https://STS.example.no",
        "https://sts.example.no:443",
        "https://sts.example.no.evil.example",
        "https://sts.example.no/x",
        "http://sts.example.no",
        "https://sts.example.n\u{43e}",
    ] {
        let refused = outcome(&json!({ "iss": issuer }));
        assert_eq!(refused, Some(Check::TokenIssuer), "{issuer}");
    }
    let parties = Parties::new();
    let rules = TokenRules { issuer: format!("{ISSUER}/"), ..Parties::token_rules() };
    let text = parties.token(&json!({}));
    assert!(Token::check(&text, &key_set(&[&parties.issuer]), &rules, now()).is_ok());
}

#[test]
fn the_audience_is_this_one_alone_or_among_others() {
    for audience in [json!("nhn:msh"), json!(["nhn:msh"]), json!(["a", "nhn:msh", "b"])] {
        assert_eq!(outcome(&json!({ "aud": audience })), None, "{audience}");
    }
    for audience in [
        json!(""),
        json!([]),
        json!("nhn:ms"),
        json!("nhn:msh "),
        json!("NHN:MSH"),
        json!("nhn:msh nhn:other"),
        json!(["nhn:other"]),
        json!(["nhn:msh/api"]),
    ] {
        let refused = outcome(&json!({ "aud": audience }));
        assert_eq!(refused, Some(Check::TokenAudience), "{audience}");
    }
}

fn scopes(scope: &Value) -> Vec<String> {
    let parties = Parties::new();
    parties.check_token(&parties.token(&json!({ "scope": scope }))).unwrap().scopes
}

#[test]
fn scopes_are_an_array_or_one_text_with_spaces() {
    assert_eq!(scopes(&json!(["a", "b"])), ["a", "b"]);
    assert_eq!(scopes(&json!("a b")), ["a", "b"]);
    assert_eq!(scopes(&json!("a  b ")), ["a", "b"]);
    assert_eq!(scopes(&json!("a\tb")), ["a\tb"]);
    for none in [json!(""), json!([]), json!(" "), json!([""])] {
        assert!(scopes(&none).is_empty(), "{none}");
    }
}

#[test]
fn an_element_with_a_space_in_it_is_no_two_scopes() {
    let parties = Parties::new();
    let token = parties.token(&json!({"scope": ["other nhn:msh/api", "a"]}));
    let token = parties.check_token(&token).unwrap();
    assert!(token.has_scope("a"));
    assert!(!token.has_scope("nhn:msh/api") && !token.has_scope("other") && !token.has_scope(""));
}

#[test]
fn it_is_valid_from_nbf_to_exp_with_5_seconds_for_clocks() {
    let claims = |name: &str, value: &str| {
        let parties = Parties::new();
        let claims = with(parties.claims(), &json!({ name: "VALUE" })).to_string();
        let text = parties.token_text(&claims.replace(r#""VALUE""#, value));
        refusal(parties.check_token(&text))
    };
    for (name, value, refused) in [
        ("exp", "1779999996", None),
        ("exp", "1779999995.001", None),
        ("exp", "1779999995", Some(Check::TokenLifetime)),
        ("exp", "1779999994.999", Some(Check::TokenLifetime)),
        ("exp", "0", Some(Check::TokenLifetime)),
        ("exp", "-0.0", Some(Check::TokenLifetime)),
        ("exp", "-1", Some(Check::TokenLifetime)),
        ("exp", "-1e308", Some(Check::TokenLifetime)),
        ("exp", "1e308", None),
        ("exp", "99999999999999999999999", None),
        ("exp", "1.780000600e9", None),
        ("exp", "1e400", Some(Check::TokenForm)),
        ("exp", "-1e400", Some(Check::TokenForm)),
        ("exp", "NaN", Some(Check::TokenForm)),
        ("exp", "Infinity", Some(Check::TokenForm)),
        ("exp", "null", Some(Check::TokenLifetime)),
        ("nbf", "1780000005", None),
        ("nbf", "1780000005.001", Some(Check::TokenLifetime)),
        ("nbf", "1780000006", Some(Check::TokenLifetime)),
        ("nbf", "1e308", Some(Check::TokenLifetime)),
        ("nbf", "-1e308", None),
        ("nbf", "null", None),
        ("nbf", "1e400", Some(Check::TokenForm)),
    ] {
        assert_eq!(claims(name, value), refused, "{name} {value}");
    }
}

#[test]
fn a_claim_that_is_there_twice_makes_it_no_token() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    for more in [
        r#""iss":"https://sts.example.no""#,
        r#""\u0069ss":"https://sts.example.no""#,
        r#""aud":"nhn:msh""#,
        r#""exp":1790000000"#,
        r#""scope":"nhn:msh/notifications-publish""#,
        r#""cnf":{"jkt":"other"}"#,
        r#""nhn:msh/client/claims/herid":"100""#,
        r#""helseid://claims/client/claims/orgnr_parent":"1""#,
    ] {
        for text in [
            claims.replacen('{', &format!("{{{more},"), 1),
            format!("{},{more}}}", claims.strip_suffix('}').unwrap()),
        ] {
            let refused = refusal(parties.check_token(&parties.token_text(&text)));
            assert_eq!(refused, Some(Check::TokenForm), "{more}");
        }
    }
    let twice = r#"{"jkt":"a","jkt":"b"}"#;
    let text = with(parties.claims(), &json!({"cnf": "CNF"})).to_string();
    let text = parties.token_text(&text.replace(r#""CNF""#, twice));
    assert_eq!(refusal(parties.check_token(&text)), Some(Check::TokenForm));
}

#[test]
fn claims_and_header_are_objects_and_nothing_else() {
    let parties = Parties::new();
    let thumbprint = parties.client.public().thumbprint();
    // In the order of the fields that are read, which is how serde would read a struct from an array.
    let array = json!([ISSUER, ["nhn:msh"], NOW + 600, NOW, ["a"], "c", [thumbprint], "0", "1"]);
    for claims in [
        array.to_string(),
        "7".to_owned(),
        "null".to_owned(),
        r#""text""#.to_owned(),
        String::new(),
        "{".to_owned(),
        "{} {}".to_owned(),
        "\u{feff}{}".to_owned(),
        format!("{}{}", "[".repeat(5000), "]".repeat(5000)),
        format!(r#"{{"a":{}"#, r#"{"a":"#.repeat(1500)),
    ] {
        let refused = refusal(parties.check_token(&parties.token_text(&claims)));
        assert_eq!(refused, Some(Check::TokenForm), "{claims:.40}");
    }
    let claims = parties.claims().to_string();
    for header in [
        r#"["ES256","JWT","k1"]"#,
        r#"{"alg":"ES256","kid":["k1"]}"#,
        r#"{"alg":"ES256","kid":"k1","kid":"k1"}"#,
        r#"{"alg":["ES256"]}"#,
        r#"{"alg":"ES256","jwk":["EC"]}"#,
        r#"{"typ":"JWT"}"#,
        "null",
        "",
    ] {
        let text = signed_text(&parties.issuer, Algorithm::Es256, header, &claims);
        assert_eq!(refusal(parties.check_token(&text)), Some(Check::TokenForm), "{header}");
    }
}

#[test]
fn unknown_claims_of_any_kind_do_not_matter() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    for more in [
        format!(r#""x":{}7{}"#, "[".repeat(100), "]".repeat(100)),
        format!(r#""x":"{}""#, "y".repeat(8000)),
        r#""x":1e308,"x":"twice","\u0000":null,"å":"\ud83d\ude00""#.to_owned(),
    ] {
        let text = claims.replacen('{', &format!("{{{more},"), 1);
        assert_eq!(refusal(parties.check_token(&parties.token_text(&text))), None, "{more:.40}");
    }
}

#[test]
fn its_type_does_not_matter() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    for typ in [r#","typ":"JWT""#, r#","typ":"at+jwt""#, r#","typ":"dpop+jwt""#, ""] {
        let header = format!(r#"{{"alg":"ES256","kid":"k1"{typ}}}"#);
        let text = signed_text(&parties.issuer, Algorithm::Es256, &header, &claims);
        assert_eq!(refusal(parties.check_token(&text)), None, "{typ}");
    }
}

#[test]
fn a_token_may_have_16_kib_and_not_one_byte_more() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    let padded = |spaces: usize| {
        let text = format!("{}{}}}", claims.strip_suffix('}').unwrap(), " ".repeat(spaces));
        parties.token_text(&text)
    };
    let empty = padded(0).len();
    // Four characters for three bytes: the length that is wanted is met by trying.
    let fits = (0..).map(|spaces| (JWS_BYTES_MAX - empty) / 4 * 3 - 4 + spaces);
    let largest = fits.take(12).map(padded).filter(|text| text.len() <= JWS_BYTES_MAX).last();
    let largest = largest.unwrap();
    assert!(largest.len() > JWS_BYTES_MAX - 3);
    assert_eq!(refusal(parties.check_token(&largest)), None);
    let refused = parties.check_token(&format!("{largest:A<0$}", JWS_BYTES_MAX + 1)).unwrap_err();
    assert_eq!(refused.explanation, "it is longer than 16384 bytes");
    let refused = parties.check_token(&format!("{largest:A<JWS_BYTES_MAX$}"));
    assert_ne!(
        refused.map_err(|refused| refused.explanation),
        Err("it is longer than 16384 bytes".to_owned())
    );
}

#[test]
fn a_client_has_a_name_of_1_to_200_characters() {
    let parties = Parties::new();
    let thumbprint = parties.client.public().thumbprint();
    let long = "å".repeat(CLIENT_ID_CHARS_MAX);
    for (given, taken) in [
        (json!(null), thumbprint.as_str()),
        (json!(""), thumbprint.as_str()),
        (json!("a"), "a"),
        (json!(long), long.as_str()),
    ] {
        let token = parties.check_token(&parties.token(&json!({ "client_id": given }))).unwrap();
        assert_eq!(token.client_id, taken);
    }
    // Cut, it could be another client's.
    let longer = parties.token(&json!({ "client_id": format!("{long}å") }));
    assert_eq!(parties.check_token(&longer).unwrap_err().check, Check::TokenForm);
}

/// Signs with a secret, which in this attack is something that everybody knows.
fn hmac_signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let tag = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}

#[test]
fn no_token_is_signed_with_what_everybody_knows() {
    let pem = include_str!("../keys/p256.public.pem");
    let issuer: PrivateKey = include_str!("../keys/p256.pkcs8.pem").parse().unwrap();
    assert_eq!(pem.parse().as_ref(), Ok(issuer.public()));
    let parties = Parties { issuer: issuer.named("k1"), ..Parties::new() };
    let claims = parties.claims().to_string();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::prelude::BASE64_STANDARD.decode(&base64).unwrap();
    let jwk = parties.issuer.public().to_jwk();
    let member = |name: &str| public_jwk(&parties.issuer)[name].as_str().unwrap().to_owned();
    let set = key_set_text(&[&parties.issuer]);
    let texts = ["", "k1", pem, pem.trim_end(), &base64, &jwk, &set, &member("x"), &member("y")];
    for secret in texts.map(str::as_bytes).into_iter().chain([&*der, &der[der.len() - 65..]]) {
        for alg in ["HS256", "hs256", "none", "NONE", "ES256", ""] {
            let header = format!(r#"{{"alg":"{alg}","kid":"k1"}}"#);
            let text = hmac_signed(&header, &claims, secret);
            let check = if alg == "ES256" { Check::TokenSignature } else { Check::TokenAlgorithm };
            assert_eq!(refusal(parties.check_token(&text)), Some(check), "{alg}");
        }
    }
    for alg in ["none", "ES256"] {
        let header = encode(format!(r#"{{"alg":"{alg}","kid":"k1"}}"#).as_bytes());
        let text = format!("{header}.{}.", encode(claims.as_bytes()));
        assert!(parties.check_token(&text).is_err());
    }
}

#[test]
fn a_key_verifies_its_own_algorithm_only() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    let rsa: PrivateKey = RSA.parse().unwrap();
    let long = PrivateKey::generate(KeyKind::P384).unwrap();
    let set = |key: &PrivateKey, more: &Value| {
        let jwk = with(with(public_jwk(key), &json!({"kid": "k1"})), more);
        KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap()
    };
    let check = |set: &KeySet, key: &PrivateKey, signed_with: Algorithm, says: &str| {
        let header = format!(r#"{{"alg":"{says}","kid":"k1"}}"#);
        let text = signed_text(key, signed_with, &header, &claims);
        refusal(Token::check(&text, set, &Parties::token_rules(), now()))
    };
    let none = json!({});
    let only = json!({"alg": "RS256"});
    for (set, key, signed_with, says, refused) in [
        (set(&rsa, &none), &rsa, Algorithm::Rs256, "RS256", None),
        (set(&rsa, &none), &rsa, Algorithm::Ps256, "PS256", None),
        (set(&rsa, &none), &rsa, Algorithm::Ps256, "RS256", Some(Check::TokenSignature)),
        (set(&rsa, &none), &rsa, Algorithm::Rs512, "RS256", Some(Check::TokenSignature)),
        (set(&rsa, &none), &rsa, Algorithm::Rs256, "ES256", Some(Check::TokenKey)),
        (set(&rsa, &only), &rsa, Algorithm::Rs256, "RS256", None),
        (set(&rsa, &only), &rsa, Algorithm::Ps256, "PS256", Some(Check::TokenKey)),
        (set(&rsa, &only), &rsa, Algorithm::Rs512, "RS512", Some(Check::TokenKey)),
        (set(&long, &none), &long, Algorithm::Es384, "ES384", None),
        (set(&long, &none), &long, Algorithm::Es384, "ES256", Some(Check::TokenKey)),
        (set(&long, &none), &parties.issuer, Algorithm::Es256, "ES256", Some(Check::TokenKey)),
        (
            set(&long, &none),
            &parties.issuer,
            Algorithm::Es256,
            "ES384",
            Some(Check::TokenSignature),
        ),
    ] {
        assert_eq!(check(&set, key, signed_with, says), refused, "{signed_with} as {says}");
    }
}

#[test]
fn an_algorithm_that_is_not_allowed_is_refused_before_any_key_is_looked_for() {
    let parties = Parties::new();
    let rules = TokenRules { algorithms: vec![Algorithm::Rs256], ..Parties::token_rules() };
    let text = parties.token(&json!({}));
    for set in [key_set(&[&parties.issuer]), KeySet::default()] {
        let refused = refusal(Token::check(&text, &set, &rules, now()));
        assert_eq!(refused, Some(Check::TokenAlgorithm));
    }
}

#[test]
fn a_key_name_is_a_name_and_nothing_that_is_looked_up() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    let long = "k".repeat(10_000);
    for kid in [
        "../../../../dev/null",
        "/proc/self/environ",
        "k1' OR '1'='1",
        "k1; --",
        "k1\\u0000",
        "K1",
        " k1",
        "",
        "https://evil.example/keys",
        "*",
        &long,
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
        let text = signed_text(&parties.issuer, Algorithm::Es256, &header, &claims);
        assert_eq!(refusal(parties.check_token(&text)), Some(Check::TokenKey), "{kid:.40}");
    }
}

#[test]
fn a_key_that_the_token_brings_or_names_is_never_used() {
    let parties = Parties::new();
    let claims = parties.claims().to_string();
    let evil = PrivateKey::generate(KeyKind::P256).unwrap();
    let jwk = evil.public().to_jwk();
    for (more, name) in [
        (format!(r#""jwk":{jwk}"#), "jwk"),
        (r#""jku":"http://127.0.0.1:1/keys""#.to_owned(), "jku"),
        (r#""x5u":"http://127.0.0.1:1/chain""#.to_owned(), "x5u"),
        (r#""x5c":["MIIB"]"#.to_owned(), "x5c"),
        (r#""x5t":"AAAA""#.to_owned(), "x5t"),
    ] {
        for (kid, check) in [
            (r#""kid":"k1","#, Check::TokenSignature),
            ("", Check::TokenSignature),
            (r#""kid":"evil","#, Check::TokenKey),
        ] {
            let header = format!(r#"{{"alg":"ES256",{kid}{more}}}"#);
            let text = signed_text(&evil, Algorithm::Es256, &header, &claims);
            assert_eq!(refusal(parties.check_token(&text)), Some(check), "{name} {kid}");
            // With the issuer's signature it does not matter what else is there.
            let text = signed_text(&parties.issuer, Algorithm::Es256, &header, &claims);
            let expected = (check == Check::TokenKey).then_some(check);
            assert_eq!(refusal(parties.check_token(&text)), expected, "{name} {kid}");
        }
    }
}

#[test]
fn what_is_no_signed_object_is_no_token() {
    let parties = Parties::new();
    let good = parties.token(&json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "opaque-token".to_owned(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}..{claims}.{signature}"),
        format!("{header}.{claims}.{signature}="),
        format!("{good} "),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}.{claims}.{signature}.a.b"),
        good.replace('.', "%2E"),
        format!("{good},{good}"),
    ] {
        assert_eq!(refusal(parties.check_token(&text)), Some(Check::TokenForm), "{text:.40}");
    }
}
