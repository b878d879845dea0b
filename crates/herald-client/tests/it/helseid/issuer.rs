//! Asking the issuer: what is asked, what is taken, what is tried again.

use std::{
    error::Error as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use herald_auth::encode;
use herald_client::{
    Client, DISCOVERY_AGE_MAX, Error, HelseId, ISSUER_ANSWER_BYTES_MAX, NONCE_RETRIES_MAX,
    SignInFailure, types::PageLimit,
};

use super::{
    Issuer, JSON, KEYS, answer, calls, discovery, json, pass, refusal, token, tokens_of, usual,
    write,
};
use crate::{
    her_ids, offset,
    script::{Script, object, page},
};

fn server() -> Script {
    Script::start(|_, _, stream| write(stream, page("200 OK", "", &[object(8)])))
}

async fn poll(client: &Client) -> Result<(), Error> {
    client.poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await.map(drop)
}

/// The error that a poll ends with, and all its causes.
async fn error_of(issuer: &Issuer) -> (Error, String) {
    let server = server();
    let error = poll(&issuer.client(&server)).await.unwrap_err();
    assert_eq!(server.requests().len(), 0, "nothing is asked without a token");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    (error, text)
}

#[tokio::test]
async fn a_token_is_asked_for_once_with_an_assertion_and_goes_on_each_call_with_a_proof_of_its_own()
{
    let (issuer, server) = (Issuer::start(usual), server());
    let client = issuer.client(&server);
    for _ in 0..3 {
        poll(&client).await.unwrap();
    }
    assert_eq!(issuer.counts(), (1, 1));

    let asked = &issuer.asked.lock().unwrap()[0];
    assert_eq!(asked.field("grant_type"), "client_credentials");
    assert_eq!(asked.field("scope"), "nhn:msh/api");
    assert_eq!(asked.field("client_id"), "journal");
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(asked.field("client_assertion_type"), kind);
    let header = r#"{"alg":"ES256","typ":"client-authentication+jwt","kid":"p256"}"#;
    assert!(asked.field("client_assertion").starts_with(&(encode(header.as_bytes()) + ".")));
    let claims = &asked.assertion;
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("journal"), &json!("journal")));
    assert_eq!(claims["aud"], json!(issuer.script.url));
    let seconds = |claim: &str| claims[claim].as_i64().unwrap();
    assert_eq!((seconds("exp") - seconds("iat"), seconds("nbf")), (60, seconds("iat")));

    let calls = calls(&server);
    assert!(calls.iter().all(|(token, _)| token == "token-0"));
    assert!(calls.iter().all(|(_, proof)| proof.thumbprint == asked.proof.thumbprint));
    let mut ids: Vec<_> =
        calls.iter().map(|(_, proof)| &proof.id).chain([&asked.proof.id]).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn every_form_of_a_key_signs_and_scopes_are_as_asked_for() {
    for key in KEYS {
        let (issuer, server) = (Issuer::start(usual), server());
        let helseid = HelseId::new(&issuer.script.url, "journal", key).unwrap();
        let helseid = helseid.scope("nhn:msh/api nhn:msh/notifications-publish");
        let client = Client::builder(&server.url, "test").credentials(helseid).build().unwrap();
        poll(&client).await.unwrap();
        let asked = &issuer.asked.lock().unwrap()[0];
        assert_eq!(asked.field("scope"), "nhn:msh/api nhn:msh/notifications-publish");
    }
}

#[tokio::test]
async fn an_issuer_is_known_with_and_without_a_slash_and_named_as_it_names_itself() {
    for slash in ["", "/"] {
        let issuer =
            Issuer::with(move |url| discovery(&format!("{url}{slash}"), "/connect/token"), usual);
        let server = server();
        for url in [issuer.script.url.clone(), format!("{}/", issuer.script.url)] {
            let helseid = HelseId::new(&url, "journal", KEYS[0]).unwrap();
            let client = Client::builder(&server.url, "test").credentials(helseid).build().unwrap();
            poll(&client).await.unwrap();
        }
        let name = format!("{}{slash}", issuer.script.url);
        assert!(issuer.asked.lock().unwrap().iter().all(|asked| asked.assertion["aud"] == name));
        assert_eq!(issuer.counts(), (2, 2));
    }
}

#[tokio::test]
async fn a_nonce_that_the_issuer_asks_for_goes_into_the_next_proof_and_the_newest_is_kept() {
    let issuer = Issuer::start(|asked| match asked.number {
        0 => refusal("400 Bad Request", "DPoP-Nonce: n1\r\n", "use_dpop_nonce", ""),
        1 => token("token-1", 0, "DPoP-Nonce: n2\r\n"),
        _ => usual(asked),
    });
    let server = server();
    let client = issuer.client(&server);
    poll(&client).await.unwrap();
    poll(&client).await.unwrap();
    assert_eq!(tokens_of(&server), ["token-1", "token-2"]);
    let asked = issuer.asked.lock().unwrap();
    let nonces: Vec<_> = asked.iter().map(super::Asked::nonce).collect();
    assert_eq!(nonces, [None, Some("n1"), Some("n2")]);
    assert_ne!(asked[0].assertion["jti"], asked[1].assertion["jti"]);
}

#[tokio::test]
async fn a_nonce_is_asked_for_up_to_twice_and_not_without_naming_it() {
    let challenge = |asked: &super::Asked| {
        let nonce = format!("DPoP-Nonce: n{}\r\n", asked.number);
        refusal("400 Bad Request", &nonce, "use_dpop_nonce", "")
    };
    let issuer = Issuer::start(move |asked| {
        if asked.number < NONCE_RETRIES_MAX as usize { challenge(asked) } else { usual(asked) }
    });
    poll(&issuer.client(&server())).await.unwrap();
    assert_eq!(issuer.counts(), (1, 3));

    let issuer = Issuer::start(challenge);
    let (error, text) = error_of(&issuer).await;
    assert!(text.ends_with("400 Bad Request: use_dpop_nonce") && !error.is_retryable(), "{text}");
    assert_eq!(issuer.counts(), (1, 3));

    let issuer = Issuer::start(|_| refusal("400 Bad Request", "", "use_dpop_nonce", ""));
    assert!(!error_of(&issuer).await.0.is_retryable());
    assert_eq!(issuer.counts(), (1, 1));
}

#[tokio::test]
async fn a_failure_of_the_issuer_that_may_pass_is_waited_out() {
    let issuer = Issuer::start(|asked| match asked.number {
        0 => answer("503 Service Unavailable", "content-type: text/html\r\n", "<html>"),
        1 => refusal("429 Too Many Requests", "retry-after: 1\r\n", "slow_down", ""),
        2 => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(),
        _ => usual(asked),
    });
    let server = server();
    poll(&issuer.client(&server)).await.unwrap();
    // After an answer that was not the token endpoint's, it is looked for again.
    assert_eq!((issuer.counts(), tokens_of(&server)), ((3, 4), vec!["token-3".into()]));

    for (status, error) in [("400 Bad Request", "temporarily_unavailable"), ("502 Bad Gateway", "")]
    {
        let issuer = Issuer::start(move |_| refusal(status, "", error, ""));
        assert!(error_of(&issuer).await.0.is_retryable(), "{error}");
        assert_eq!(issuer.counts().1, 4);
    }
}

#[tokio::test]
async fn what_the_issuer_refuses_for_good_is_told_and_not_tried_again() {
    for (status, headers, error, told) in [
        (
            "401 Unauthorized",
            "",
            "invalid_client",
            "401 Unauthorized: invalid_client: no\\n such thing",
        ),
        (
            "400 Bad Request",
            "",
            "invalid_scope",
            "400 Bad Request: invalid_scope: no\\n such thing",
        ),
        ("400 Bad Request", "", "unauthorized_client", "unauthorized_client: no\\n such thing"),
        (
            "400 Bad Request",
            "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            "invalid_dpop_proof",
            "s ahead of the one there",
        ),
    ] {
        let issuer =
            Issuer::start(move |_| refusal(status, headers, error, "no\n such\u{1b} thing"));
        let (error, text) = error_of(&issuer).await;
        let Error::SignIn(error) = error else { panic!("{error}") };
        assert!(!error.is_retryable() && matches!(error.failure(), SignInFailure::Refused { .. }));
        let begin = format!("no token from {}: the issuer answered ", issuer.script.url);
        let told = told.replace("\\n", "");
        assert!(text.starts_with(&begin) && text.ends_with(&told), "{text}");
        assert_eq!(issuer.counts(), (1, 1));
    }
    for (body, told) in [
        (json!({}).to_string(), "no JSON object with a token"),
        ("[]".into(), "no JSON object with a token"),
        ("<html>".into(), "no JSON object with a token"),
        (
            json!({"access_token": "x", "token_type": "Bearer"}).to_string(),
            "\"Bearer\" and not DPoP",
        ),
        (json!({"access_token": "", "token_type": "DPoP"}).to_string(), "not 1 to 16384"),
        (json!({"access_token": "a b", "token_type": "DPoP"}).to_string(), "not 1 to 16384"),
        (json!({"access_token": "a\r\nb: c", "token_type": "DPoP"}).to_string(), "not 1 to 16384"),
        (
            json!({"access_token": "x".repeat(16_385), "token_type": "DPoP"}).to_string(),
            "not 1 to 16384",
        ),
    ] {
        let issuer = Issuer::start(move |_| answer("200 OK", JSON, &body));
        let (error, text) = error_of(&issuer).await;
        assert!(text.contains(told) && !error.is_retryable(), "{text}");
        assert_eq!(issuer.counts(), (1, 1));
    }
    for status in ["204 No Content", "302 Found", "404 Not Found"] {
        let issuer = Issuer::start(move |_| answer(status, "location: /\r\n", ""));
        let (error, text) = error_of(&issuer).await;
        assert!(text.ends_with(status) && !error.is_retryable(), "{text}");
    }
}

#[tokio::test]
async fn the_longest_token_is_taken() {
    let issuer = Issuer::start(|_| token(&"x".repeat(16_384), 600, ""));
    let server = server();
    poll(&issuer.client(&server)).await.unwrap();
    assert_eq!(tokens_of(&server)[0].len(), 16_384);
}

#[tokio::test]
async fn answers_of_the_issuer_are_read_up_to_64_kib() {
    for (bytes, is_read) in [(ISSUER_ANSWER_BYTES_MAX, true), (ISSUER_ANSWER_BYTES_MAX + 1, false)]
    {
        let fill = move |answer: Vec<u8>| {
            let (head, body) =
                answer.split_at(answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4);
            let body =
                format!("{}{}", " ".repeat(bytes - body.len()), str::from_utf8(body).unwrap());
            assert!(head.starts_with(b"HTTP/1.1 200 OK"));
            super::answer("200 OK", JSON, body)
        };
        for issuer in [
            Issuer::with(move |url| fill(discovery(url, "/connect/token")), usual),
            Issuer::start(move |asked| fill(usual(asked))),
        ] {
            let outcome = poll(&issuer.client(&server())).await;
            assert_eq!(outcome.is_ok(), is_read, "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_discovery_document_that_cannot_be_trusted_is_refused() {
    let of = |document: serde_json::Value| {
        Issuer::with(move |_| answer("200 OK", JSON, document.to_string()), usual)
    };
    let here = "http://127.0.0.1/connect/token";
    for (document, told) in [
        (
            json!({"issuer": "http://127.0.0.1:1", "token_endpoint": here}),
            "of another issuer, \"http://127.0.0.1:1\", and not of \"http://127.0.0.1:",
        ),
        (json!({"issuer": "", "token_endpoint": here}), "of another issuer, \"\""),
        (json!({"token_endpoint": here}), "missing field `issuer`"),
        (json!([]), "array"),
    ] {
        let issuer = of(document);
        let (error, text) = error_of(&issuer).await;
        assert!(
            text.contains("discovery document cannot be used") && text.contains(told),
            "{text}"
        );
        assert!(!error.is_retryable());
    }
    for endpoint in
        ["http://10.0.0.1/token", "http://issuer.example/token", "ftp://127.0.0.1/", "/token", ""]
    {
        let issuer = Issuer::with(
            move |url| {
                answer(
                    "200 OK",
                    JSON,
                    json!({"issuer": url, "token_endpoint": endpoint}).to_string(),
                )
            },
            usual,
        );
        let (error, text) = error_of(&issuer).await;
        assert!(text.contains("is neither https nor") && !error.is_retryable(), "{text}");
        assert_eq!(issuer.counts(), (1, 0));
    }
}

#[tokio::test]
async fn an_address_that_is_no_issuers_is_named_and_doubted() {
    let of =
        |status: &'static str| Issuer::with(move |_| refusal(status, "", "not_found", ""), usual);
    let issuer = of("404 Not Found");
    let (error, text) = error_of(&issuer).await;
    let asked = format!("{}/.well-known/openid-configuration", issuer.script.url);
    let told = format!("404 Not Found: not_found to GET {asked}; is that the issuer's address?");
    assert!(text.ends_with(&told) && !error.is_retryable(), "{text}");

    let issuer = of("503 Service Unavailable");
    let (error, text) = error_of(&issuer).await;
    assert!(text.ends_with("/.well-known/openid-configuration"), "{text}");
    assert!(error.is_retryable(), "it may be the one, and away");
}

#[tokio::test]
async fn the_token_endpoint_is_known_for_an_hour_and_through_an_outage_of_discovery() {
    let asked = AtomicUsize::new(0);
    let discovery = move |url: &str| match asked.fetch_add(1, Ordering::Relaxed) {
        1 => answer("503 Service Unavailable", "", ""),
        2 => Vec::new(),
        3 => answer("404 Not Found", "", ""),
        _ => discovery(url, "/connect/token"),
    };
    let (issuer, server) = (Issuer::with(discovery, usual), server());
    let client = issuer.client(&server);
    poll(&client).await.unwrap();
    pass(DISCOVERY_AGE_MAX - Duration::from_secs(60)).await;
    poll(&client).await.unwrap();
    assert_eq!(issuer.counts(), (1, 2));
    for counts in [(2, 3), (3, 4)] {
        pass(DISCOVERY_AGE_MAX).await;
        poll(&client).await.unwrap();
        assert_eq!(issuer.counts(), counts);
    }
    pass(DISCOVERY_AGE_MAX).await;
    let error = poll(&client).await.unwrap_err();
    assert!(matches!(error, Error::SignIn(_)) && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn an_issuer_that_is_away_is_a_failure_that_may_pass() {
    let gone = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    let helseid = HelseId::new(&gone, "journal", KEYS[0]).unwrap();
    let server = server();
    let client = Client::builder(&server.url, "test").credentials(helseid).build().unwrap();
    let error = poll(&client).await.unwrap_err();
    assert!(matches!(error, Error::SignIn(_)) && error.is_retryable(), "{error}");
    assert!(error.retry_after().is_some_and(|wait| wait <= Duration::from_secs(4)));
}
