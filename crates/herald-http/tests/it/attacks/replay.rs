//! A proof counts once.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    auth::assert_refused,
    guarded::{Caller, Guarded, Setup},
    herald::{EVENT_STREAM, Herald, answer},
};

#[tokio::test]
async fn a_proof_is_refused_the_second_time_on_its_own_path_and_any_other() {
    for guarded in [Guarded::start().await, Guarded::start().await.over_http2()] {
        let reader = guarded.reader();
        let proof = reader.proof("GET", &guarded.url("/notifications"));
        assert_eq!(guarded.poll_with(&reader, &proof).await.status, StatusCode::OK);
        for _ in 0..2 {
            let refused = guarded.poll_with(&reader, &proof).await;
            assert_refused(&refused, "invalid_dpop_proof", "used before");
        }
        let path = "/notifications/stream?HerIds=100&Offset=0";
        let stream = guarded.presenting(&reader, &proof, Method::GET, path);
        let refused = answer(stream.header("accept", EVENT_STREAM)).await;
        assert_refused(&refused, "invalid_dpop_proof", "its htu");
        // The other way round: a stream's proof is no poll's.
        let proof = reader.proof("GET", &guarded.url(path));
        let refused = guarded.poll_with(&reader, &proof).await;
        assert_refused(&refused, "invalid_dpop_proof", "its htu");
    }
}

#[tokio::test]
async fn a_name_counts_once_for_its_key_whatever_the_path_and_the_token() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let named = |caller: &Caller, path: &str| {
        let htu = guarded.url(path);
        caller.proof_with("GET", &htu, json!({}), json!({ "jti": "the same" }))
    };
    let first = guarded.poll_with(&reader, &named(&reader, "/notifications")).await;
    assert_eq!(first.status, StatusCode::OK);
    let path = "/notifications/stream?HerIds=100&Offset=0";
    let proof = named(&reader, "/notifications/stream");
    let stream = guarded.presenting(&reader, &proof, Method::GET, path);
    let refused = answer(stream.header("accept", EVENT_STREAM)).await;
    assert_refused(&refused, "invalid_dpop_proof", "used before");

    let token = guarded.issuer.sign(&json!({}), &guarded.claims(&reader.key));
    let renewed = Caller { key: Arc::clone(&reader.key), token };
    let refused = guarded.poll_with(&renewed, &named(&renewed, "/notifications")).await;
    assert_refused(&refused, "invalid_dpop_proof", "used before");
    let other = guarded.reader();
    let taken = guarded.poll_with(&other, &named(&other, "/notifications")).await;
    assert_eq!(taken.status, StatusCode::OK);
}

#[tokio::test]
async fn a_refused_call_for_a_her_id_uses_its_proof_up() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let proof = reader.proof("GET", &guarded.url("/notifications"));
    let path = "/notifications?HerIds=400&Offset=0";
    let refused = answer(guarded.presenting(&reader, &proof, Method::GET, path)).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_refused(&guarded.poll_with(&reader, &proof).await, "invalid_dpop_proof", "used before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_who_send_the_same_proof_at_once_one_is_let_in() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    for round in 0..6 {
        let proof = reader.proof("GET", &guarded.url("/notifications"));
        // Each has a connection of its own, or all have one of HTTP/2.
        let clients: Vec<_> = if round % 2 == 0 {
            (0..50).map(|_| Herald::http1_client()).collect()
        } else {
            vec![Herald::http2_client(); 50]
        };
        let sent = clients.iter().map(|client| {
            let request = client.get(guarded.url("/notifications?HerIds=100&Offset=0"));
            let request = request.header("api-version", "3").header("nhn-source-system", "Tests");
            let request = request.header("authorization", reader.authorization());
            tokio::spawn(request.header("dpop", &proof).send())
        });
        let answers = join_all(sent.collect::<Vec<_>>()).await;
        let statuses: Vec<_> =
            answers.into_iter().map(|answer| answer.unwrap().unwrap().status()).collect();
        let count = |status| statuses.iter().filter(|given| **given == status).count();
        assert_eq!(count(StatusCode::OK), 1, "{statuses:?}");
        assert_eq!(count(StatusCode::UNAUTHORIZED), 49, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_recorded_call_sent_again_and_again_uses_up_nothing_of_its_clients_limit() {
    // Two at once, and then one a second: the burst of this limit.
    let setup = Setup { client_requests_per_second: 1, ..Setup::default() };
    let guarded = Guarded::start_with(setup).await;
    let reader = guarded.reader();
    let proof = reader.proof("GET", &guarded.url("/notifications"));
    assert_eq!(guarded.poll_with(&reader, &proof).await.status, StatusCode::OK);
    for _ in 0..20 {
        let again = guarded.poll_with(&reader, &proof).await;
        assert_refused(&again, "invalid_dpop_proof", "used before");
    }
    assert_eq!(guarded.poll(&reader, "HerIds=100&Offset=0").await.status, StatusCode::OK);
    let too_many = guarded.poll(&reader, "HerIds=100&Offset=0").await;
    assert_eq!(too_many.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(too_many.header("retry-after").parse::<u64>().unwrap() >= 1);
}
