//! Who is let in: tokens and proofs, one check after the other.

mod keys;
mod order;

use std::sync::Arc;

use herald_auth::{Algorithm, KeyKind, PrivateKey, encode};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    guarded::{Caller, Guarded, PUBLISH, READ, Setup, next_id, secret, signed, unsigned},
    herald::{Answer, EVENT_STREAM, answer, draft},
};

const POLL: &str = "/notifications?HerIds=100&Offset=0";

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[track_caller]
pub(crate) fn assert_refused(refused: &Answer, error: &str, detail: &str) {
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{}", refused.text());
    let challenge = refused.header("www-authenticate");
    assert!(challenge.starts_with(&format!(r#"DPoP error="{error}", "#)), "{challenge}");
    let algorithms = r#", algs="ES256 ES384 ES512 PS256 PS384 PS512 RS256 RS384 RS512""#;
    assert!(challenge.ends_with(algorithms), "{challenge}");
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:herald:problem:unauthenticated");
    assert_eq!((&problem["status"], &problem["errorCode"]), (&json!(401), &json!(0)));
    let said = problem["detail"].as_str().unwrap();
    assert!(said.contains(detail), "{said:?} has no {detail:?}");
    assert_eq!(refused.headers.get_all("www-authenticate").iter().count(), 1);
}

#[tokio::test]
async fn every_call_needs_a_token_but_those_that_say_nothing_of_anybody() {
    let guarded = Guarded::start().await;
    let herald = &guarded.herald;
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let refused = answer(herald.request(method.clone(), POLL)).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method}");
        assert!(refused.header("www-authenticate").starts_with("DPoP "));
        assert_eq!(refused.body.is_empty(), method == Method::HEAD);
    }
    for method in [Method::GET, Method::HEAD] {
        let path = "/notifications/stream?HerIds=100&Offset=0";
        let request = herald.request(method.clone(), path).header("accept", EVENT_STREAM);
        assert_eq!(answer(request).await.status, StatusCode::UNAUTHORIZED, "{method}");
        for path in ["/ping", "/openapi.json", "/swagger", "/swagger/swagger-ui.css"] {
            let free = answer(herald.bare(method.clone(), path)).await;
            assert_eq!(free.status, StatusCode::OK, "{method} {path}");
        }
    }
    assert_eq!(herald.streams.count(), 0);
}

/// What OPTIONS says, a 405 would say too, and that comes before the token.
#[tokio::test]
async fn options_tell_the_methods_and_nothing_else_without_a_token() {
    let guarded = Guarded::start().await;
    for path in [POLL, "/notifications/stream"] {
        let told = answer(guarded.herald.bare(Method::OPTIONS, path)).await;
        assert_eq!((told.status, told.body.len()), (StatusCode::NO_CONTENT, 0));
        let refused = answer(guarded.herald.bare(Method::DELETE, path)).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(told.header("allow"), refused.header("allow"));
    }
}

#[tokio::test]
async fn a_token_and_a_proof_let_in_over_both_versions() {
    for guarded in [Guarded::start().await, Guarded::start().await.over_http2()] {
        guarded.append(&[draft(100), draft(400), draft(300)]).await;
        let reader = guarded.reader();
        let page = guarded.poll(&reader, "HerIds=100&HerIds=300&Offset=0").await;
        assert_eq!(page.offsets(), [1, 3]);
        let mut events = guarded.stream(&reader, "HerIds=100&HerIds=300&Offset=1").await;
        assert!(events.notification().await.ends_with("\"offset\":3}"));
        let head = answer(guarded.call(&reader, Method::HEAD, POLL)).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    }
}

#[tokio::test]
async fn the_schemes_name_has_no_case_and_no_other_scheme_is_taken() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let ask = async |authorization: String| {
        let proof = reader.proof("GET", &guarded.url(POLL));
        let request = guarded.herald.request(Method::GET, POLL).header("dpop", proof);
        answer(request.header("authorization", authorization)).await
    };
    let token = &reader.token;
    for scheme in ["DPoP", "dpop", "DPOP", "dPoP"] {
        assert_eq!(ask(format!("{scheme} {token}")).await.status, StatusCode::OK, "{scheme}");
    }
    assert_eq!(ask(format!("DPoP   {token}")).await.status, StatusCode::OK);
    for wrong in [
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("Basic {token}"),
        format!("DPoP, {token}"),
        format!("DPoP\t{token}"),
        format!("DPoPP {token}"),
        token.clone(),
        "DPoP".to_owned(),
        String::new(),
    ] {
        assert_refused(&ask(wrong).await, "invalid_token", "with the scheme DPoP");
    }
    let refused = ask(format!("DPoP token={token}")).await;
    assert_refused(&refused, "invalid_token", "no signed token");
}

#[tokio::test]
async fn two_headers_of_a_kind_are_refused_even_when_they_are_the_same() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let twice = guarded.call(&reader, Method::GET, POLL);
    let twice = answer(twice.header("authorization", reader.authorization())).await;
    assert_refused(&twice, "invalid_token", "one header Authorization");
    let bearer = guarded.call(&reader, Method::GET, POLL);
    let bearer = answer(bearer.header("authorization", "Bearer x")).await;
    assert_refused(&bearer, "invalid_token", "one header Authorization");

    let proof = reader.proof("GET", &guarded.url(POLL));
    let twice = guarded.presenting(&reader, &proof, Method::GET, POLL).header("dpop", &proof);
    assert_refused(&answer(twice).await, "invalid_dpop_proof", "one header DPoP");
    let both = format!("{proof}, {}", reader.proof("GET", &guarded.url(POLL)));
    assert_refused(&guarded.poll_with(&reader, &both).await, "invalid_dpop_proof", "signed proof");
    // It was not used up by all this.
    assert_eq!(guarded.poll_with(&reader, &proof).await.status, StatusCode::OK);
}

/// A reader's token with these claims; the answer to a call with it.
async fn with_claims(guarded: &Guarded, claims: Value) -> Answer {
    guarded.poll(&guarded.caller(claims), "HerIds=100&Offset=0").await
}

#[tokio::test]
async fn each_check_of_a_token_refuses_by_its_name() {
    let guarded = Guarded::start().await;
    let refused = async |claims: Value, detail: &str| {
        let shown = claims.to_string();
        let refused = with_claims(&guarded, claims).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{shown}");
        assert_refused(&refused, "invalid_token", detail);
    };
    for iss in
        [json!("https://other.example.no"), json!(null), json!(guarded.issuer.url.clone() + "x")]
    {
        refused(json!({ "iss": iss }), "another issuer's").await;
    }
    for aud in
        [json!("nhn:other"), json!(["a", "nhn:msh2"]), json!(null), json!([]), json!("NHN:MSH")]
    {
        refused(json!({ "aud": aud }), "another audience").await;
    }
    for times in [
        json!({ "exp": now() - 10 }),
        json!({ "exp": null }),
        json!({ "nbf": now() + 60 }),
        json!({ "exp": 0 }),
        json!({ "exp": -1e300 }),
    ] {
        refused(times, "expired, or is not valid yet").await;
    }
    for cnf in [json!(null), json!({}), json!({ "x5t#S256": "x" })] {
        refused(json!({ "cnf": cnf }), "bound to no key").await;
    }
    for malformed in [json!({ "exp": "never" }), json!({ "aud": 7 }), json!({ "cnf": "x" })] {
        refused(malformed, "no signed token").await;
    }
}

#[tokio::test]
async fn what_a_token_may_say_in_other_ways_is_taken() {
    let guarded = Guarded::start().await;
    for claims in [
        json!({ "aud": ["nhn:other", "nhn:msh"] }),
        json!({ "scope": format!("openid {READ}") }),
        json!({ "scope": READ }),
        json!({ "iss": guarded.issuer.url.clone() + "/" }),
        // Within the skew.
        json!({ "exp": now() - 2 }),
        json!({ "nbf": now() + 2, "iat": now() + 2 }),
        json!({ "nbf": null, "iat": null, "client_id": null, "jti": null }),
        json!({ "exp": 1e300 }),
        json!({ "exp": now() as f64 + 0.5 }),
    ] {
        let shown = claims.to_string();
        let taken = with_claims(&guarded, claims).await;
        assert_eq!(taken.status, StatusCode::OK, "{shown}: {}", taken.text());
    }
}

#[tokio::test]
async fn each_check_of_a_proof_refuses_by_its_name() {
    let guarded = Guarded::start().await;
    let (reader, other) = (guarded.reader(), guarded.reader());
    let url = guarded.url("/notifications");
    let other_key: Value = serde_json::from_str(&other.key.public().to_jwk()).unwrap();
    let long = "x".repeat(513);
    for (header, claims, detail) in [
        (json!({ "typ": "JWT" }), json!({}), "its typ"),
        (json!({ "typ": null }), json!({}), "its typ"),
        (json!({ "typ": "DPOP+JWT" }), json!({}), "its typ"),
        (json!({ "jwk": null }), json!({}), "its key"),
        (json!({ "jwk": other_key }), json!({}), "its key"),
        (json!({ "alg": "HS256" }), json!({}), "its algorithm"),
        (json!({ "alg": "none" }), json!({}), "its algorithm"),
        (json!({ "alg": "RS256" }), json!({}), "its algorithm"),
        (json!({ "alg": "EdDSA" }), json!({}), "its algorithm"),
        (json!({ "crit": ["exp"] }), json!({}), "signed proof"),
        (json!({}), json!({ "ath": null }), "another token"),
        (json!({}), json!({ "ath": "x" }), "another token"),
        (json!({}), json!({ "jti": null }), "no name"),
        (json!({}), json!({ "jti": "" }), "no name"),
        (json!({}), json!({ "jti": long }), "no name"),
        (json!({}), json!({ "htm": "POST" }), "another method"),
        (json!({}), json!({ "htm": "get" }), "another method"),
        (json!({}), json!({ "htm": null }), "another method"),
        (json!({}), json!({ "htu": null }), "its htu"),
        (json!({}), json!({ "htu": guarded.url("/ping") }), "its htu"),
        (json!({}), json!({ "iat": null }), "its time"),
        (json!({}), json!({ "iat": now() - 60 }), "its time"),
        (json!({}), json!({ "iat": now() + 60 }), "its time"),
        (json!({}), json!({ "iat": "now" }), "signed proof"),
    ] {
        let proof = reader.proof_with("GET", &url, header, claims);
        let refused = guarded.poll_with(&reader, &proof).await;
        assert_refused(&refused, "invalid_dpop_proof", detail);
    }
    // Another's proof, for another's token.
    let refused = guarded.poll_with(&reader, &other.proof("GET", &url)).await;
    assert_refused(&refused, "invalid_dpop_proof", "its key");
    let request = guarded.herald.request(Method::GET, POLL);
    let missing = answer(request.header("authorization", reader.authorization())).await;
    assert_refused(&missing, "invalid_dpop_proof", "one header DPoP");
    let mut forged = reader.proof("GET", &url);
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    assert_refused(&guarded.poll_with(&reader, &forged).await, "invalid_dpop_proof", "signature");
}

#[tokio::test]
async fn a_name_of_512_characters_is_still_one() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let claims = json!({ "jti": "å".repeat(512) });
    let proof = reader.proof_with("GET", &guarded.url("/notifications"), json!({}), claims);
    assert_eq!(guarded.poll_with(&reader, &proof).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_refusal_says_which_check_failed_and_only_explains_when_it_is_told_to() {
    for explains in [false, true] {
        let guarded = Guarded::start_with(Setup { explains, ..Setup::default() }).await;
        let reader = guarded.reader();
        let shown = async |name: &str, refused: Answer| {
            let mut problem = refused.json();
            let challenge = refused.header("www-authenticate").to_owned();
            problem["WWW-Authenticate"] = challenge.into();
            let text = problem.to_string().replace(&guarded.url(""), "[url]");
            let text = text.replace(&guarded.issuer.url, "[issuer]");
            let problem: Value = serde_json::from_str(&text).unwrap();
            let name = format!("{name}_{}", if explains { "explained" } else { "alone" });
            insta::assert_json_snapshot!(name, problem, {
                ".requestId" => "[id]",
                ".timestamp" => "[time]",
            });
        };
        shown("nothing", guarded.herald.poll("HerIds=100&Offset=0").await).await;
        shown("audience", with_claims(&guarded, json!({ "aud": "nhn:other" })).await).await;
        shown("expired", with_claims(&guarded, json!({ "exp": 1_700_000_000 })).await.away()).await;
        shown("scope", with_claims(&guarded, json!({ "scope": ["openid"] })).await).await;
        let url = guarded.url("/notifications");
        let elsewhere = reader.proof("GET", "https://elsewhere.example.no/notifications");
        shown("htu", guarded.poll_with(&reader, &elsewhere).await).await;
        let proof = reader.proof("GET", &url);
        assert_eq!(guarded.poll_with(&reader, &proof).await.status, StatusCode::OK);
        shown("replay", guarded.poll_with(&reader, &proof).await).await;
    }
}

impl Answer {
    /// Without how long ago that was.
    fn away(mut self) -> Self {
        let text = self.text();
        if let Some((before, rest)) = text.split_once("it expired ") {
            let (_, after) = rest.split_once(' ').unwrap();
            self.body = format!("{before}it expired [long] {after}").into();
        }
        self
    }
}

#[tokio::test]
async fn whoever_publishes_needs_that_scope_alone_and_appends_as_json_and_line_by_line() {
    let guarded = Guarded::start().await;
    let (reader, publisher) = (guarded.reader(), guarded.publisher());
    let json = json!({ "notifications": [draft(100), draft(400)] }).to_string();
    let lines = format!("{}\n{}\n", draft(100), draft(999));
    for (content_type, body) in [("application/json", json), ("application/x-ndjson", lines)] {
        let refused = guarded.post(&reader, content_type, body.clone()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{content_type}");
        assert_eq!(refused.json()["errorCode"], 0);
        let appended = guarded.post(&publisher, content_type, body).await;
        assert_eq!(appended.status, StatusCode::CREATED, "{}", appended.text());
    }
    let page = guarded.poll(&reader, "HerIds=100&Offset=0").await;
    assert_eq!(page.offsets(), [1, 3]);
    // It does not make a reader of it.
    let both = guarded.caller(json!({ "scope": format!("{READ} {PUBLISH}") }));
    assert_eq!(guarded.poll(&publisher, "HerIds=100&Offset=0").await.status, StatusCode::FORBIDDEN);
    assert_eq!(guarded.poll(&both, "HerIds=100&Offset=0").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_proof_is_for_one_method_and_a_get_is_no_head() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    for (signed, used) in [(Method::GET, Method::HEAD), (Method::HEAD, Method::GET)] {
        let proof = reader.proof(signed.as_str(), &guarded.url(POLL));
        let request = guarded.presenting(&reader, &proof, used, POLL);
        assert_eq!(answer(request).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn over_the_bound_of_proofs_a_call_is_put_off_and_none_is_forgotten() {
    let guarded = Guarded::start_with(Setup { replays_max: 2, ..Setup::default() }).await;
    let reader = guarded.reader();
    let url = guarded.url("/notifications");
    let proofs = [reader.proof("GET", &url), reader.proof("GET", &url)];
    for proof in &proofs {
        assert_eq!(guarded.poll_with(&reader, proof).await.status, StatusCode::OK);
    }
    let busy = guarded.poll(&reader, "HerIds=100&Offset=0").await;
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE, "{}", busy.text());
    assert!(busy.header("retry-after").parse::<u64>().unwrap() >= 1);
    for proof in &proofs {
        let refused = guarded.poll_with(&reader, proof).await;
        assert_refused(&refused, "invalid_dpop_proof", "used before");
    }
}

/// A signature by another key, over what the issuer would say.
#[tokio::test]
async fn a_token_that_another_key_has_signed_is_refused_whatever_it_calls_itself() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let published = guarded.issuer.published();
    let stranger = PrivateKey::generate(KeyKind::P256).unwrap();
    let claims = guarded.claims(&reader.key);
    let ask = async |token: String| {
        let caller = Caller { key: Arc::clone(&reader.key), token };
        guarded.poll(&caller, "HerIds=100&Offset=0").await
    };
    let header = json!({ "typ": "JWT", "alg": "ES256", "kid": published[0]["kid"] });
    let refused = ask(signed(&stranger, &header, &claims)).await;
    assert_refused(&refused, "invalid_token", "its signature");
    let header = json!({ "typ": "JWT", "alg": "ES256" });
    assert_eq!(ask(signed(&stranger, &header, &claims)).await.status, StatusCode::UNAUTHORIZED);
    let header = json!({ "alg": "none", "kid": published[0]["kid"] });
    let refused = ask(secret(format!("{}.", unsigned(&header, &claims)))).await;
    assert_refused(&refused, "invalid_token", "its algorithm");
    for text in ["a.b", "a.b.c", "..", "a.b.c.d", "eyJhbGciOiJFUzI1NiJ9", "é.é.é"] {
        let refused = ask(text.to_owned()).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{text}");
    }
}

#[tokio::test]
async fn every_algorithm_of_the_list_signs_proofs() {
    let guarded = Guarded::start().await;
    let rsa: PrivateKey =
        include_str!("../../../herald-auth/tests/keys/rsa.pkcs8.pem").parse().unwrap();
    let mut keys = vec![(
        rsa,
        Algorithm::ALL
            .into_iter()
            .filter(|algorithm| !algorithm.name().starts_with("ES"))
            .collect::<Vec<_>>(),
    )];
    for (kind, algorithm) in [
        (KeyKind::P256, Algorithm::Es256),
        (KeyKind::P384, Algorithm::Es384),
        (KeyKind::P521, Algorithm::Es512),
    ] {
        keys.push((PrivateKey::generate(kind).unwrap(), vec![algorithm]));
    }
    for (key, algorithms) in keys {
        let token = guarded.issuer.sign(&json!({}), &guarded.claims(&key));
        let jwk: Value = serde_json::from_str(&key.public().to_jwk()).unwrap();
        let caller = Caller { key: Arc::new(key), token };
        for algorithm in algorithms {
            let header = json!({ "typ": "dpop+jwt", "alg": algorithm.name(), "jwk": jwk });
            let claims = json!({
                "jti": next_id(), "htm": "GET", "htu": guarded.url("/notifications"), "iat": now(),
                "ath": crate::guarded::token_hash(&caller.token),
            });
            let text = unsigned(&header, &claims);
            let signature = caller.key.sign(algorithm, text.as_bytes()).unwrap();
            let proof = secret(format!("{text}.{}", encode(&signature)));
            let taken = guarded.poll_with(&caller, &proof).await;
            assert_eq!(taken.status, StatusCode::OK, "{algorithm}: {}", taken.text());
        }
    }
}
