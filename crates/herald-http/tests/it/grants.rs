//! Which HER-ids a token is good for, what happens to a stream when that changes, and when a stream ends by itself.

use std::{sync::Arc, time::Duration};

use herald_auth::{KeyKind, PrivateKey, assertion};
use herald_issuer::{Client, Issuer, IssuerSettings, TOKEN_PATH};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    guarded::{
        Caller, Guarded, HER_ID_CLAIM, ORGANISATION_CLAIM, ORGANISATIONS, PUBLISH, READ, Setup,
        TestIssuer, secret,
    },
    herald::{Answer, EVENT_STREAM, Events, answer, draft},
    serving::{ask, read_to_end},
};

fn query(her_ids: &[u32]) -> String {
    her_ids.iter().map(|her_id| format!("HerIds={her_id}&")).collect::<String>() + "Offset=0"
}

#[track_caller]
fn assert_not_granted(refused: &Answer, named: &str) {
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:herald:problem:her-id-not-granted");
    assert_eq!((&problem["errorCode"], &problem["validationErrors"]), (&json!(1202), &json!(null)));
    assert_eq!(problem["detail"], format!("No access to HER-id {named}."));
}

#[tokio::test]
async fn zero_claims_all_of_the_organisation_and_numbers_only_those() {
    let guarded = Guarded::start().await;
    for (claim, granted, refused) in [
        ("0", &[100, 200, 300][..], &[400, 1][..]),
        ("100-200", &[100, 200], &[300, 400]),
        ("300", &[300], &[100, 200]),
        // What the organisation does not have, no claim gives.
        ("100-400", &[100], &[400, 200]),
        ("400", &[], &[400, 100]),
    ] {
        let reader = guarded.caller(json!({ HER_ID_CLAIM: claim }));
        if !granted.is_empty() {
            let page = guarded.poll(&reader, &query(granted)).await;
            assert_eq!(page.status, StatusCode::OK, "{claim}");
            guarded.stream(&reader, &query(granted)).await;
        }
        for her_id in refused {
            assert_not_granted(
                &guarded.poll(&reader, &query(&[*her_id])).await,
                &her_id.to_string(),
            );
        }
    }
}

#[tokio::test]
async fn one_her_id_outside_the_grant_refuses_the_whole_call_and_is_named() {
    for guarded in [Guarded::start().await, Guarded::start().await.over_http2()] {
        guarded.append(&[draft(100), draft(400)]).await;
        let reader = guarded.reader();
        let asked = query(&[100, 400, 200, 7]);
        assert_not_granted(&guarded.poll(&reader, &asked).await, "7, 400");
        assert_not_granted(&answer(guarded.stream_call(&reader, &asked)).await, "7, 400");
        let path = format!("/notifications/stream?{asked}");
        let head = guarded.call(&reader, Method::HEAD, &path).header("accept", EVENT_STREAM);
        assert_eq!(answer(head).await.status, StatusCode::FORBIDDEN);
        assert_eq!(guarded.herald.streams.count(), 0);
    }
}

#[tokio::test]
async fn a_claim_that_is_missing_or_malformed_grants_nothing() {
    let guarded = Guarded::start().await;
    for claim in [
        json!(null),
        json!(""),
        json!("00"),
        json!(" 0"),
        json!("0-100"),
        json!("100-"),
        json!("-100"),
        json!("100--200"),
        json!("100,200"),
        json!("100 200"),
        json!("100-x"),
        json!("+100"),
        json!("0x64"),
        json!("１００"),
        json!("4294967396"),
        json!("*"),
        json!(0),
        json!(100),
        json!(["0"]),
        json!(["100"]),
        json!({ "0": "0" }),
        json!(true),
    ] {
        let shown = claim.to_string();
        let reader = guarded.caller(json!({ HER_ID_CLAIM: claim }));
        let refused = guarded.poll(&reader, &query(&[100])).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{shown}");
        assert_not_granted(&refused, "100");
    }
}

#[tokio::test]
async fn an_organisation_that_is_not_known_has_no_her_ids() {
    let guarded = Guarded::start().await;
    for organisation in [
        json!("999999999"),
        json!(null),
        json!(""),
        json!("310000000 "),
        json!("NO310000000"),
        json!(310_000_000),
        json!(["310000000"]),
    ] {
        let shown = organisation.to_string();
        let reader = guarded.caller(json!({ ORGANISATION_CLAIM: organisation }));
        let refused = guarded.poll(&reader, &query(&[100])).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{shown}");
    }
}

#[tokio::test]
async fn until_the_organisations_are_known_a_reader_is_put_off_and_not_refused() {
    let setup = Setup { knows_organisations: false, ..Setup::default() };
    let guarded = Guarded::start_with(setup).await;
    // As `herald serve` does it.
    guarded.herald.lifecycle.lacks_documents(true);
    let reader = guarded.reader();
    let refused = guarded.poll(&reader, &query(&[100])).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["type"], "urn:herald:problem:not-ready");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    let ready = ask(guarded.herald.ops, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("documents"), "{ready}");
    guarded.organisations.replace(ORGANISATIONS.as_bytes()).unwrap();
    guarded.organisations.known().await;
    assert_eq!(guarded.poll(&reader, &query(&[100])).await.status, StatusCode::OK);
}

#[tokio::test]
async fn only_a_server_that_explains_says_what_is_wrong_with_a_token_that_grants_nothing() {
    for explains in [false, true] {
        let guarded = Guarded::start_with(Setup { explains, ..Setup::default() }).await;
        for (claims, doubt) in [
            (json!({ ORGANISATION_CLAIM: null }), "the token names no organisation"),
            (json!({ ORGANISATION_CLAIM: "9" }), "the token's organisation is not known"),
            (json!({ HER_ID_CLAIM: "a" }), "the token's HER-id claim is missing or malformed"),
        ] {
            let refused = guarded.poll(&guarded.caller(claims), &query(&[100])).await;
            let detail = refused.json()["detail"].as_str().unwrap().to_owned();
            let explained = format!("No access to HER-id 100. Explanation: {doubt}.");
            assert_eq!(detail, if explains { &*explained } else { "No access to HER-id 100." });
        }
        // What is another's, or nobody's, is no fault of the token.
        let refused = guarded.poll(&guarded.reader(), &query(&[400])).await;
        assert_eq!(refused.json()["detail"], "No access to HER-id 400.");
    }
}

#[tokio::test]
async fn anothers_her_id_and_one_that_does_not_exist_are_answered_the_same_to_the_byte() {
    let guarded = Guarded::start().await;
    guarded.append(&[draft(400)]).await;
    let reader = guarded.reader();
    let said = async |her_id: u32, path: &str| {
        let call = guarded.call(&reader, Method::GET, &format!("{path}?HerIds={her_id}&Offset=0"));
        let call = call.header("x-request-id", "same").header("accept", "*/*, text/event-stream");
        let refused = answer(call).await;
        let mut headers = refused.headers.clone();
        headers.remove("date");
        // The time of day has as many digits as it needs.
        headers.remove("content-length");
        let mut problem = refused.json();
        let text = refused.text().replace(problem["timestamp"].take().as_str().unwrap(), "[time]");
        (refused.status, headers, text.replace(&format!("HER-id {her_id}."), "HER-id [number]."))
    };
    for path in ["/notifications", "/notifications/stream"] {
        let anothers = said(400, path).await;
        assert_eq!(anothers.0, StatusCode::FORBIDDEN);
        assert_eq!(anothers, said(999, path).await);
        assert!(!anothers.1.contains_key("herald-tail"));
    }
}

#[tokio::test]
async fn several_pages_and_streams_of_one_http_2_connection_are_each_held_against_the_grant() {
    let guarded = Guarded::start().await.over_http2();
    guarded.append(&[draft(100), draft(200), draft(400), draft(300)]).await;
    let one = guarded.caller(json!({ HER_ID_CLAIM: "100" }));
    let two = guarded.caller(json!({ HER_ID_CLAIM: "200-300" }));
    let (mut first, mut second) = tokio::join!(
        guarded.stream(&one, "HerIds=100&Offset=0"),
        guarded.stream(&two, "HerIds=200&HerIds=300&Offset=0"),
    );
    assert!(first.notification().await.ends_with("\"offset\":1}"));
    assert!(second.notification().await.ends_with("\"offset\":2}"));
    assert!(second.notification().await.ends_with("\"offset\":4}"));
    let asked = query(&[100]);
    for _ in 0..20 {
        let (mine, theirs) = tokio::join!(guarded.poll(&one, &asked), guarded.poll(&two, &asked));
        assert_eq!(mine.offsets(), [1]);
        assert_not_granted(&theirs, "100");
    }
    guarded.append(&[draft(100)]).await;
    assert!(first.notification().await.ends_with("\"offset\":5}"));
}

/// Reads a stream to its end, which must be a hint and nothing else.
async fn assert_ends(mut events: Events) {
    let hint = events.next().await.expect("a hint when to come back");
    assert!(hint.starts_with("retry: "), "{hint}");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_stream_that_has_lost_a_her_id_ends_cleanly_and_others_go_on() {
    for guarded in [Guarded::start().await, Guarded::start().await.over_http2()] {
        let reader = guarded.reader();
        let lost = guarded.stream(&reader, &query(&[100, 200])).await;
        let mut kept = guarded.stream(&reader, &query(&[200])).await;
        let narrow = guarded.caller(json!({ HER_ID_CLAIM: "200-300" }));
        let mut other = guarded.stream(&narrow, &query(&[200])).await;
        guarded.organisations.replace(br#"{"310000000":[200,300,500]}"#).unwrap();
        // In the very moment of the change, before anybody has looked at the streams.
        guarded.append(&[draft(100), draft(200)]).await;
        assert_ends(lost).await;
        for events in [&mut kept, &mut other] {
            assert!(events.notification().await.ends_with("\"offset\":2}"));
        }
        assert_not_granted(&guarded.poll(&reader, &query(&[100])).await, "100");
        assert_eq!(guarded.poll(&reader, &query(&[500])).await.status, StatusCode::OK);
        guarded.organisations.replace(b"{}").unwrap();
        assert_ends(kept).await;
        assert_ends(other).await;
        assert_eq!(guarded.herald.streams.count(), 0);
    }
}

#[tokio::test]
async fn a_broken_document_leaves_grants_and_streams_as_they_are() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let mut events = guarded.stream(&reader, &query(&[100])).await;
    for broken in [&b"{"[..], b"[]", br#"{"310000000":[0]}"#, br#"{"1":[1],"1":[2]}"#, b""] {
        guarded.organisations.replace(broken).unwrap_err();
    }
    guarded.append(&[draft(100)]).await;
    assert!(events.notification().await.ends_with("\"offset\":1}"));
}

/// Streams open and appends land while the grant goes away: whatever was appended behind the change is sent to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_a_byte_for_a_lost_her_id_is_sent_behind_the_change() {
    const ROUNDS: usize = 25;
    const STREAMS: usize = 8;
    let guarded = Arc::new(Guarded::start().await);
    for round in 0..ROUNDS {
        guarded.organisations.replace(br#"{"310000000":[100,200]}"#).unwrap();
        let mut opening = Vec::new();
        for number in 0..STREAMS {
            let guarded = Arc::clone(&guarded);
            opening.push(tokio::spawn(async move {
                let reader = guarded.reader();
                // All of them are behind what was appended in the rounds before.
                let tail = guarded.herald.lifecycle.log().unwrap().tail().get();
                let query = format!("HerIds=100&HerIds=200&Offset={tail}");
                for _ in 0..number {
                    tokio::task::yield_now().await;
                }
                let sent = guarded.stream_call(&reader, &query).send().await.unwrap();
                if sent.status() == StatusCode::FORBIDDEN {
                    String::new()
                } else {
                    sent.text().await.unwrap()
                }
            }));
        }
        // Some are open by now, some opening, some have not begun.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        guarded.organisations.replace(br#"{"310000000":[200]}"#).unwrap();
        guarded.append(&[draft(100), draft(200)]).await;
        for stream in opening {
            let sent = stream.await.unwrap();
            assert!(!sent.contains("event: notification"), "{sent}");
            assert!(sent.is_empty() || sent.contains("retry: "), "{sent}");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires_and_cleanly() {
    for guarded in [Guarded::start().await, Guarded::start().await.over_http2()] {
        guarded.append(&[draft(100)]).await;
        let exp = Timestamp::now().as_second() + 2;
        let reader = guarded.caller(json!({ "exp": exp }));
        let mut events = guarded.stream(&reader, &query(&[100])).await;
        assert!(events.notification().await.ends_with("\"offset\":1}"));
        assert_ends(events).await;
        assert!(Timestamp::now().as_second() >= exp, "not before");
        // Within the skew a poll is still answered, but a stream would have ended: it says so at once.
        let late = guarded.caller(json!({ "exp": exp }));
        assert_ends(guarded.stream(&late, &query(&[100])).await).await;
    }
}

#[tokio::test]
async fn a_stream_whose_token_lives_longer_ends_at_its_age() {
    let stream_max_age = Duration::from_millis(200);
    for guarded in [
        Guarded::start_with(Setup { stream_max_age, ..Setup::default() }).await,
        Guarded::start_with(Setup { stream_max_age, ..Setup::default() }).await.over_http2(),
    ] {
        let reader = guarded.reader();
        assert_ends(guarded.stream(&reader, &query(&[100])).await).await;
    }
}

#[tokio::test]
async fn over_http_1_a_stream_that_lost_its_grant_ends_behind_the_last_chunk() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let proof = reader.proof("GET", &guarded.url("/notifications/stream"));
    let mut socket = TcpStream::connect(guarded.herald.address).await.unwrap();
    let request = format!(
        "GET /notifications/stream?HerIds=100&Offset=0 HTTP/1.1\r\nhost: {}\r\napi-version: 3\r\n\
         nhn-source-system: Tests, v1\r\naccept: text/event-stream\r\nauthorization: {}\r\ndpop: {proof}\r\n\r\n",
        guarded.herald.address,
        reader.authorization(),
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    crate::serving::read_until(&mut socket, "data:\n\n\r\n").await;
    guarded.organisations.replace(b"{}").unwrap();
    let rest = read_to_end(&mut socket).await;
    assert!(rest.contains("retry: ") && rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    assert!(!rest.contains("event:"), "{rest}");
}

/// The whole way with the issuer that `herald dev issuer` is.
#[tokio::test]
async fn a_token_of_the_real_issuer_lets_in_and_is_good_for_what_its_client_may() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    let client = Client::new("laptop", key.public().clone())
        .with_scope(READ)
        .with_scope(PUBLISH)
        .with_claim(HER_ID_CLAIM, "100-200")
        .with_claim(ORGANISATION_CLAIM, "310000000");
    let issuer = Issuer::start(IssuerSettings::new(vec![client])).await.unwrap();
    let guarded = Guarded::starting_at(TestIssuer::named(issuer.url()), Setup::default());
    guarded.herald.open_log();
    guarded.has_keys().await;

    let bound = Arc::new(PrivateKey::generate(KeyKind::P256).unwrap());
    let token = token_of(&issuer, &key, &bound).await;
    let caller = Caller { key: bound, token };
    let body = json!({ "notifications": [draft(100), draft(300)] }).to_string();
    let appended = guarded.post(&caller, "application/json", body).await;
    assert_eq!(appended.status, StatusCode::CREATED, "{}", appended.text());
    assert_eq!(guarded.poll(&caller, &query(&[100, 200])).await.offsets(), [1]);
    assert_not_granted(&guarded.poll(&caller, &query(&[300])).await, "300");
}

/// Asks for a token twice: the first time there is a nonce instead.
async fn token_of(issuer: &Issuer, key: &PrivateKey, bound: &Arc<PrivateKey>) -> String {
    let url = format!("{}{TOKEN_PATH}", issuer.url());
    let caller = Caller { key: Arc::clone(bound), token: String::new() };
    let mut nonce = Value::Null;
    for _ in 0..2 {
        let assertion = assertion(key, "laptop", issuer.url(), Timestamp::now());
        let assertion = secret(assertion.unwrap());
        let more = json!({ "ath": null, "nonce": nonce });
        let proof = caller.proof_with("POST", &url, json!({}), more);
        let form = format!(
            "grant_type=client_credentials&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer\
             &client_assertion={assertion}"
        );
        let request = reqwest::Client::builder().no_proxy().build().unwrap().post(&url).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let sent = request.header("dpop", proof).send().await.unwrap();
        if sent.status() == StatusCode::OK {
            let said: Value = serde_json::from_str(&sent.text().await.unwrap()).unwrap();
            return secret(said["access_token"].as_str().unwrap().to_owned());
        }
        let asked = sent.headers().get("dpop-nonce").expect("a nonce").to_str().unwrap().to_owned();
        nonce = asked.into();
    }
    panic!("no token");
}
