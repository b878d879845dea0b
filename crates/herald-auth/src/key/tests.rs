use super::*;
use crate::algorithm::Algorithm;

const RSA_PKCS8: &str = include_str!("../../tests/keys/rsa.pkcs8.pem");
const P256_JWK: &str = include_str!("../../tests/keys/p256.jwk.json");

/// Each key in each form, and its thumbprint as another library computes it.
const FORMS: [(&str, &[&str], &str); 4] = [
    (
        "RS256",
        &[
            RSA_PKCS8,
            include_str!("../../tests/keys/rsa.pkcs1.pem"),
            include_str!("../../tests/keys/rsa.jwk.json"),
        ],
        "sd-mXX2cFhZuKZJL1zMskhLvnSvgVso6nvPtJcEv_7Q",
    ),
    (
        "ES256",
        &[
            include_str!("../../tests/keys/p256.pkcs8.pem"),
            include_str!("../../tests/keys/p256.sec1.pem"),
            P256_JWK,
        ],
        "7ev5QAwS4wG1O5I8ECYSzreUaHuIyR9quUHhBWJjFLM",
    ),
    (
        "ES384",
        &[
            include_str!("../../tests/keys/p384.pkcs8.pem"),
            include_str!("../../tests/keys/p384.sec1.pem"),
            include_str!("../../tests/keys/p384.jwk.json"),
        ],
        "HWwETMpilhnbs9uKxre9fUfbm90PhFJLyrmf97iW8tM",
    ),
    (
        "ES512",
        &[
            include_str!("../../tests/keys/p521.pkcs8.pem"),
            include_str!("../../tests/keys/p521.sec1.pem"),
            include_str!("../../tests/keys/p521.jwk.json"),
        ],
        "oTjF43_b7mrzEnE0XMUJYPFz4388LdT8ggtIMXy04iw",
    ),
];

fn jwk(text: &str) -> Result<PublicKey, UnusableJwk> {
    PublicKey::try_from(&serde_json::from_str::<Jwk>(text).unwrap())
}

#[test]
fn a_key_is_the_same_in_every_form_and_verifies_what_any_of_them_signs() {
    for (name, forms, thumbprint) in FORMS {
        let algorithm: Algorithm = name.parse().unwrap();
        let keys: Vec<PrivateKey> = forms.iter().map(|form| form.parse().unwrap()).collect();
        let public = jwk(&keys[0].public().to_jwk()).unwrap();
        for key in &keys {
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(key.public().thumbprint(), thumbprint, "{name}");
            let signature = key.sign(algorithm, b"message").unwrap();
            assert!(public.verifies(algorithm, b"message", &signature), "{name}");
            assert!(!public.verifies(algorithm, b"massage", &signature), "{name}");
            assert!(!public.verifies(algorithm, b"message", &signature[1..]), "{name}");
            assert!(!public.verifies(algorithm, b"message", &[]), "{name}");
        }
    }
}

#[test]
fn a_signature_counts_only_for_its_own_algorithm_and_kind_of_key() {
    let keys: Vec<PrivateKey> =
        FORMS.iter().map(|(_, forms, _)| forms[0].parse().unwrap()).collect();
    for signed_with in Algorithm::ALL {
        for key in &keys {
            let Ok(signature) = key.sign(signed_with, b"message") else {
                assert!(!key.public().fits(signed_with));
                continue;
            };
            for read_as in Algorithm::ALL {
                for other in &keys {
                    let is_same = read_as == signed_with && other.public() == key.public();
                    let verifies = other.public().verifies(read_as, b"message", &signature);
                    assert_eq!(verifies, is_same, "{signed_with} {read_as}");
                }
            }
        }
    }
}

#[test]
fn a_key_can_be_made_for_each_curve() {
    for (kind, algorithm) in [
        (KeyKind::P256, Algorithm::Es256),
        (KeyKind::P384, Algorithm::Es384),
        (KeyKind::P521, Algorithm::Es512),
    ] {
        let [one, other] = [(); 2].map(|()| PrivateKey::generate(kind).unwrap());
        let signature = one.sign(algorithm, b"message").unwrap();
        assert!(one.public().verifies(algorithm, b"message", &signature));
        assert!(!other.public().verifies(algorithm, b"message", &signature));
    }
}

#[test]
fn the_thumbprint_of_rfc_7638_is_what_it_says() {
    let key = jwk(
        r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#,
    );
    assert_eq!(key.unwrap().thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn a_public_key_must_be_public_known_and_whole() {
    let public = P256_JWK.parse::<PrivateKey>().unwrap().public().to_jwk();
    assert!(jwk(&public).is_ok());
    for member in [
        r#""d":"AA""#,
        r#""d":7"#,
        r#""k":"AA""#,
        r#""p":"AA""#,
        r#""q":"AA""#,
        r#""dp":"AA""#,
        r#""dq":"AA""#,
        r#""qi":"AA""#,
        r#""oth":[{}]"#,
    ] {
        let with = public.replacen('{', &format!("{{{member},"), 1);
        assert_eq!(jwk(&with), Err(UnusableJwk::Private), "{member}");
    }
    let rsa = RSA_PKCS8.parse::<PrivateKey>().unwrap().public().to_jwk();
    for (text, error) in [
        (public.replace("P-256", "P-384"), UnusableJwk::Member),
        (public.replace("P-256", "secp256k1"), UnusableJwk::Kind),
        (public.replace(r#""x":""#, r#""x":"AA"#), UnusableJwk::Member),
        (public.replace(r#""y""#, r#""z""#), UnusableJwk::Member),
        (public.replace("EC", "oct"), UnusableJwk::Kind),
        (public.replace("EC", "OKP"), UnusableJwk::Kind),
        (rsa.replace(r#""n":""#, r#""n":"AAAA"#), UnusableJwk::Member),
        (rsa.replace("AQAB", ""), UnusableJwk::Member),
        (rsa.replace("AQAB", "AQAAAAAB"), UnusableJwk::Member),
        (rsa.replace("AQAB", "AQA="), UnusableJwk::Member),
        (r#"{"kty":"RSA","e":"AQAB","n":"xxxx"}"#.to_owned(), UnusableJwk::Length),
    ] {
        assert_eq!(jwk(&text), Err(error), "{text}");
    }
    let small = include_str!("../../tests/keys/rsa1024.pkcs8.pem").parse::<PrivateKey>();
    assert_eq!(small.unwrap_err(), InvalidKey::Key);
}

#[test]
fn a_point_that_is_not_on_its_curve_verifies_nothing() {
    for (name, forms, _) in &FORMS[1..] {
        let algorithm = name.parse().unwrap();
        let key: PrivateKey = forms[0].parse().unwrap();
        let signature = key.sign(algorithm, b"message").unwrap();
        let text = key.public().to_jwk();
        // Another last character of y: the same length, hardly on the curve.
        let end = text.len() - 4;
        let other = if &text[end..=end] == "B" { "C" } else { "B" };
        let off = format!("{}{other}{}", &text[..end], &text[end + 1..]);
        assert!(!jwk(&off).unwrap().verifies(algorithm, b"message", &signature), "{name}");
    }
}

#[test]
fn what_is_no_private_key_is_refused_without_being_repeated() {
    let public = P256_JWK.parse::<PrivateKey>().unwrap().public().to_jwk();
    let mixed = P256_JWK.replace("\"d\": \"", "\"d\": \"A");
    let other_alg = P256_JWK.replacen('{', r#"{"alg":"RS256","#, 1);
    for (text, error) in [
        ("", InvalidKey::Form),
        ("secret", InvalidKey::Form),
        ("{", InvalidKey::Jwk),
        ("{}", InvalidKey::Jwk),
        (public.as_str(), InvalidKey::Jwk),
        (mixed.as_str(), InvalidKey::Key),
        (other_alg.as_str(), InvalidKey::Key),
        (include_str!("../../tests/keys/ed25519.pkcs8.pem"), InvalidKey::Key),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", InvalidKey::Key),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", InvalidKey::Form),
    ] {
        assert_eq!(text.parse::<PrivateKey>().unwrap_err(), error, "{text}");
    }
}

#[test]
fn no_debug_text_shows_a_key() {
    let private: PrivateKey = P256_JWK.parse().unwrap();
    let jwk: Jwk = serde_json::from_str(P256_JWK).unwrap();
    assert_eq!(format!("{private:?}"), "PrivateKey { kid: Some(\"p256\"), .. }");
    assert_eq!(format!("{:?}", private.public()), "PublicKey");
    assert_eq!(format!("{jwk:?}"), "Jwk { kty: \"EC\", kid: Some(\"p256\"), .. }");
}

#[test]
fn a_public_key_in_pem_is_the_one_of_the_private_key() {
    for (pem, (name, _, thumbprint)) in [
        include_str!("../../tests/keys/rsa.public.pem"),
        include_str!("../../tests/keys/p256.public.pem"),
        include_str!("../../tests/keys/p384.public.pem"),
        include_str!("../../tests/keys/p521.public.pem"),
    ]
    .into_iter()
    .zip(FORMS)
    {
        let key: PublicKey = pem.parse().unwrap();
        assert_eq!(key.thumbprint(), thumbprint, "{name}");
        for at in pem.match_indices('\n').map(|(at, _)| at) {
            assert_eq!(pem[..at - 1].parse::<PublicKey>(), Err(InvalidPublicKey), "{name} {at}");
        }
    }
}

#[test]
fn what_is_no_public_key_in_pem_is_refused() {
    for text in [
        "",
        P256_JWK,
        RSA_PKCS8,
        include_str!("../../tests/keys/ed25519.public.pem"),
        include_str!("../../tests/keys/rsa1024.public.pem"),
        include_str!("../../tests/keys/p256.compressed.public.pem"),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        assert_eq!(text.parse::<PublicKey>(), Err(InvalidPublicKey), "{text}");
    }
}

#[test]
fn a_key_that_is_made_as_text_is_read_back_with_its_name() {
    for (kind, algorithm) in [
        (KeyKind::P256, Algorithm::Es256),
        (KeyKind::P384, Algorithm::Es384),
        (KeyKind::P521, Algorithm::Es512),
    ] {
        let [one, other] = [(); 2].map(|()| PrivateKey::generate_jwk(kind, "laptop").unwrap());
        assert_ne!(one, other);
        let key: PrivateKey = one.parse().unwrap();
        assert_eq!((key.kid(), key.algorithm()), (Some("laptop"), algorithm));
        let signature = key.sign(algorithm, b"message").unwrap();
        assert!(jwk(&key.public().to_jwk()).unwrap().verifies(algorithm, b"message", &signature));
    }
}
