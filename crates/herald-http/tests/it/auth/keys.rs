//! The issuer's keys: known ones, unknown ones, and none.

use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;

use crate::{
    auth::assert_refused,
    guarded::{Guarded, Setup},
    serving::{PATIENCE, ask},
};

#[tokio::test]
async fn while_the_issuer_is_away_known_keys_are_good_and_an_unknown_one_is_refused() {
    let guarded = Guarded::start().await;
    let before = guarded.reader();
    guarded.issuer.set_away(true);
    guarded.issuer.rotate();
    let refused = guarded.poll(&guarded.reader(), "HerIds=100&Offset=0").await;
    assert_refused(&refused, "invalid_token", "the issuer has no such key");
    assert_eq!(guarded.poll(&before, "HerIds=100&Offset=0").await.status, StatusCode::OK);
    guarded.issuer.set_away(false);
    let after = guarded.reader();
    assert_eq!(guarded.poll(&after, "HerIds=100&Offset=0").await.status, StatusCode::OK);
    assert_eq!(guarded.poll(&before, "HerIds=100&Offset=0").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_and_not_again_within_the_pause() {
    let refresh_pause = Duration::from_secs(3600);
    let guarded = Guarded::start_with(Setup { refresh_pause, ..Setup::default() }).await;
    assert_eq!(guarded.issuer.fetches(), 1);
    guarded.issuer.hide_key();
    let strangers: Vec<_> = (0..20).map(|_| guarded.reader()).collect();
    let calls = strangers.iter().map(|caller| guarded.poll(caller, "HerIds=100&Offset=0"));
    for refused in futures_util::future::join_all(calls).await {
        assert_refused(&refused, "invalid_token", "the issuer has no such key");
    }
    let refused = guarded.poll(&guarded.reader(), "HerIds=100&Offset=0").await;
    assert_refused(&refused, "invalid_token", "the issuer has no such key");
    assert_eq!(guarded.issuer.fetches(), 2);
}

#[tokio::test]
async fn a_key_that_is_withdrawn_is_not_believed_once_that_is_known() {
    let guarded = Guarded::start().await;
    let before = guarded.reader();
    let withdrawn = guarded.issuer.published();
    guarded.issuer.rotate();
    let published = guarded.issuer.published();
    let left = published.into_iter().filter(|key| !withdrawn.contains(key)).collect();
    guarded.issuer.publish(left);
    // Whoever comes with the new key makes the server look.
    let after = guarded.reader();
    assert_eq!(guarded.poll(&after, "HerIds=100&Offset=0").await.status, StatusCode::OK);
    let refused = guarded.poll(&before, "HerIds=100&Offset=0").await;
    assert_refused(&refused, "invalid_token", "the issuer has no such key");
}

#[tokio::test]
async fn without_any_key_a_token_gets_503_and_no_token_401_and_balancers_are_told() {
    let guarded = Guarded::starting(Setup::default()).await;
    let herald = &guarded.herald;
    guarded.issuer.set_away(true);
    herald.open_log();
    // As `herald serve` does it.
    herald.lifecycle.lacks_keys(true);
    let reader = guarded.reader();
    let refused = guarded.poll(&reader, "HerIds=100&Offset=0").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.json()["type"], "urn:herald:problem:not-ready");
    let refused = herald.poll("HerIds=100&Offset=0").await;
    assert_refused(&refused, "invalid_token", "one header Authorization");
    let ready = ask(herald.ops, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("issuer-keys"), "{ready}");

    guarded.issuer.set_away(false);
    let keys = guarded.keys.clone();
    tokio::spawn(async move { keys.keep_fresh().await });
    timeout(PATIENCE, guarded.keys.known()).await.unwrap();
    herald.lifecycle.lacks_keys(false);
    assert_eq!(guarded.poll(&reader, "HerIds=100&Offset=0").await.status, StatusCode::OK);
    assert!(ask(herald.ops, "/health/ready").await.starts_with("HTTP/1.1 200 "));
}
