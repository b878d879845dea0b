use std::time::Duration;

use herald_auth::{Algorithm, Check, HER_ID_CLAIM, ORGANISATION_CLAIM, Token, TokenRules};
use serde_json::Value;

use crate::{
    auth::{KEYS, NOW, accepted, header_and_claims, now, signed},
    claims::claimed,
};

const ISSUER: &str = "https://sts.example.no";
const AUDIENCE: &str = "nhn:msh";

/// The input as a token; and as claims, behind a line with a header if there is one, that the issuer has signed.
///
/// A token that is accepted says what a plain reading of its JSON says.
///
/// # Panics
/// If that does not hold.
pub fn token(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let check = |text: &str| {
        let rules = TokenRules {
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            algorithms: Algorithm::ALL.to_vec(),
            skew: Duration::from_secs(5),
        };
        Token::check(text, &KEYS, &rules, now())
    };
    if check(input).is_ok() {
        assert_eq!(input.matches('.').count(), 2);
    }
    let (header, claims) = header_and_claims(input, r#"{"alg":"ES256"}"#);
    let text = signed(header, claims);
    match check(&text) {
        Ok(token) => assert_says(&token, &accepted(header, claims).1),
        // The issuer has signed it.
        Err(refused) => assert_ne!(refused.check, Check::TokenSignature),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a second of 2026")]
fn assert_says(token: &Token, claims: &Value) {
    let issuer = claims["iss"].as_str().expect("an issuer");
    assert!([ISSUER, &format!("{ISSUER}/")].contains(&issuer), "{issuer}");
    let is_for_us = match &claims["aud"] {
        Value::Array(audiences) => audiences.iter().any(|audience| audience == AUDIENCE),
        audience => audience == AUDIENCE,
    };
    assert!(is_for_us, "{claims}");
    assert!(claims["exp"].as_f64().expect("a time") + 5.0 > NOW as f64, "{claims}");
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf - 5.0 <= NOW as f64), "{claims}");
    assert_eq!(claims["cnf"]["jkt"], token.thumbprint);
    let words: Vec<&str> = match &claims["scope"] {
        Value::String(words) => words.split(' ').collect(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let words = words.into_iter().filter(|word| !word.is_empty() && !word.contains(' '));
    assert!(words.eq(&token.scopes), "{claims}");
    let client = claims["client_id"].as_str().filter(|client| !client.is_empty());
    assert!(client.unwrap_or(&token.thumbprint).starts_with(&token.client_id), "{claims}");
    assert_eq!(claims[ORGANISATION_CLAIM].as_str(), token.holder.organisation.as_deref());
    assert_eq!(claimed(claims[HER_ID_CLAIM].as_str()), token.holder.claimed);
}
