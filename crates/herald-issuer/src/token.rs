//! The token endpoint: a request in, a token or a refusal out.

use std::sync::Mutex;

use herald_auth::{Call, Proof, ProofRules, SignedHeader, sign};
use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing::info;
use uuid::Uuid;

use crate::{
    assertion::Assertion,
    authority::{Authority, lock},
    clients::{Client, Clients},
    form::Form,
    nonces::Freshness,
    refusal::Refusal,
    seen::{Noted, Seen},
};

/// What a client gets (RFC 6749, section 5.1).
#[derive(Serialize)]
pub(crate) struct Granted {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    scope: String,
}

/// Answers one token request: a token, or why there is none; and a nonce for the client's next proof, when it needs one.
pub(crate) fn grant(
    authority: &Authority,
    clients: &Clients,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> (Result<Granted, Refusal>, Option<String>) {
    let mut nonce = None;
    let granted = try_grant(authority, clients, headers, body, now, &mut nonce);
    (granted, nonce)
}

fn try_grant(
    authority: &Authority,
    clients: &Clients,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    next_nonce: &mut Option<String>,
) -> Result<Granted, Refusal> {
    let form = Form::parse(body)?;
    let grant_type = form.required("grant_type")?;
    if grant_type != "client_credentials" {
        return Err(Refusal::grant_type("grant_type must be client_credentials"));
    }
    let token_endpoint = authority.token_endpoint.to_string();
    let audiences = [authority.url.as_str(), token_endpoint.as_str()];
    let assertion = Assertion::check(&form, clients, &audiences, now)?;
    let client = assertion.client;
    // As HelseID: an assertion is used up by the question for a nonce, too.
    let assertions = &authority.assertions;
    once(assertions, &client.id, &assertion.id, assertion.until, now, || {
        Refusal::client("the client assertion is not accepted: its jti was used before")
    })?;
    let proof = check_proof(authority, headers, now)?;
    match proof.nonce.as_deref().map(|nonce| authority.nonces.freshness(nonce, now)) {
        Some(Freshness::Current) => {}
        Some(Freshness::Previous) => *next_nonce = Some(authority.nonces.current(now)),
        Some(Freshness::Unknown) | None => {
            *next_nonce = Some(authority.nonces.current(now));
            return Err(Refusal::nonce("the proof must have the nonce of the header DPoP-Nonce"));
        }
    }
    let remembered = ProofRules::default().accepted_for().as_secs();
    let until = now.as_second().saturating_add_unsigned(remembered);
    once(&authority.proofs, &proof.thumbprint, &proof.id, until, now, || {
        Refusal::proof("the proof is not accepted: its jti was used before")
    })?;
    let scopes = scopes_of(client, form.optional("scope")?)?;
    issue(authority, client, &scopes, &proof.thumbprint, now)
}

fn once(
    seen: &Mutex<Seen>,
    owner: &str,
    id: &str,
    until: i64,
    now: Timestamp,
    again: impl FnOnce() -> Refusal,
) -> Result<(), Refusal> {
    match lock(seen).note(owner, id, until, now.as_second()) {
        Noted::New => Ok(()),
        Noted::Again => Err(again()),
        Noted::Full => Err(Refusal::busy("too many requests in the last minute")),
    }
}

fn check_proof(
    authority: &Authority,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Proof, Refusal> {
    let mut proofs = headers.get_all("dpop").iter();
    let (Some(proof), None) = (proofs.next(), proofs.next()) else {
        return Err(Refusal::proof("there must be one header DPoP with a proof"));
    };
    let proof = proof.to_str().map_err(|_| Refusal::proof("the header DPoP must be ASCII"))?;
    let call = Call { method: "POST", address: &authority.token_endpoint, token: None };
    Proof::check(proof, call, &ProofRules::default(), now).map_err(|refused| {
        Refusal::proof(format!("the proof is not accepted: {}", refused.explanation))
    })
}

/// What the client asks for, if it may; all it may when it asks for nothing.
fn scopes_of<'a>(client: &'a Client, asked: Option<&str>) -> Result<Vec<&'a str>, Refusal> {
    let allowed = || client.scopes.iter().map(String::as_str);
    let Some(asked) = asked else { return Ok(allowed().collect()) };
    let mut scopes = Vec::new();
    for name in asked.split(' ').filter(|name| !name.is_empty()) {
        let scope = allowed().find(|scope| *scope == name).ok_or_else(|| {
            let allowed: Vec<_> = allowed().collect();
            let shown: String = name.chars().take(100).collect();
            let allowed = allowed.join(" ");
            Refusal::scope(format!("{} may not ask for {shown}, but for: {allowed}", client.id))
        })?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn issue(
    authority: &Authority,
    client: &Client,
    scopes: &[&str],
    thumbprint: &str,
    now: Timestamp,
) -> Result<Granted, Refusal> {
    let lifetime = client.lifetime.unwrap_or(authority.lifetime).as_secs().max(1);
    let exp = now.as_second().saturating_add_unsigned(lifetime);
    let claims = claims_of(authority, client, scopes, thumbprint, now.as_second(), exp);
    let signer = authority.keys().signer(exp);
    let header =
        SignedHeader { typ: authority.token_kind.typ(), kid: Some(&signer.kid), jwk: None };
    let access_token = sign(&signer.key, signer.algorithm, &header, &claims)
        .map_err(|error| Refusal::broken(error.to_string()))?;
    let scope = scopes.join(" ");
    info!(client.id = %client.id, %scope, lifetime_s = lifetime, kid = %signer.kid, "token issued");
    Ok(Granted { access_token, token_type: "DPoP", expires_in: lifetime, scope })
}

/// What HelseID's tokens say, and then what the client file says: a claim there wins, and null leaves one out.
fn claims_of(
    authority: &Authority,
    client: &Client,
    scopes: &[&str],
    thumbprint: &str,
    now: i64,
    exp: i64,
) -> Map<String, Value> {
    let usual = [
        ("iss", json!(authority.url)),
        ("aud", json!(authority.audience)),
        ("scope", json!(scopes)),
        ("client_id", json!(client.id)),
        ("client_amr", json!("private_key_jwt")),
        ("iat", json!(now)),
        ("nbf", json!(now)),
        ("exp", json!(exp)),
        ("jti", json!(Uuid::new_v4())),
        ("cnf", json!({ "jkt": thumbprint })),
    ];
    let mut claims: Map<String, Value> =
        usual.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    claims.extend(client.claims.clone());
    claims.retain(|_, value| !value.is_null());
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::SEEN_MAX;

    #[test]
    fn a_request_that_cannot_be_remembered_is_put_off() {
        let seen = Mutex::new(Seen::default());
        let now = Timestamp::UNIX_EPOCH;
        let once = |id: &str| once(&seen, "a", id, 10, now, || Refusal::client("again"));
        for id in 0..SEEN_MAX {
            once(&id.to_string()).unwrap();
        }
        let refused = once("one more").unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.error), (503, "temporarily_unavailable"));
        assert_eq!(once("0").unwrap_err().description, "again");
    }
}
