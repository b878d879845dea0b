//! The order of checks: each request here is wrong at one step and at every later one.

use std::sync::Arc;

use herald_http::{
    admission::Admission,
    api::{ApiSettings, JSON_BYTES_MAX},
};
use herald_types::{Grant, HerId};
use http::{Method, StatusCode};

use crate::{
    herald::{Herald, answer, draft_with_id, quiet},
    serving::ask,
};

fn granting(her_id: u32) -> ApiSettings {
    let her_ids = HerId::new(her_id).into_iter().collect();
    ApiSettings { admission: Arc::new(Admission::Everybody(Grant::of(her_ids))), ..quiet() }
}

#[tokio::test]
async fn first_404_even_before_the_server_is_ready() {
    let herald = Herald::starting(quiet());
    for path in ["/", "/notification", "/notifications/", "/Notifications", "/notifications/7"] {
        let refused = answer(herald.bare(Method::DELETE, path)).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn then_405_even_before_the_server_is_ready() {
    let herald = Herald::starting(quiet());
    let refused = answer(herald.bare(Method::PUT, "/notifications")).await;
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn then_503_whatever_else_is_wrong() {
    let herald = Herald::starting(quiet());
    let refuse = async |kind: &str| {
        for path in
            ["/notifications", "/notifications/stream", "/ping", "/openapi.json", "/swagger"]
        {
            let request = herald.bare(Method::GET, path).header("accept", "image/png");
            let refused = answer(request).await;
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
            assert_eq!(refused.json()["type"], format!("urn:herald:problem:{kind}"));
        }
        let request = herald.bare(Method::POST, "/notifications").body("x");
        assert_eq!(answer(request).await.status, StatusCode::SERVICE_UNAVAILABLE);
    };
    refuse("not-ready").await;
    herald.open_log();
    assert_eq!(herald.poll("HerIds=1&Offset=0").await.status, StatusCode::OK);
    herald.lifecycle.stop();
    refuse("stopping").await;
}

#[tokio::test]
async fn then_406_before_the_headers_and_the_query_are_looked_at() {
    let herald = Herald::start();
    for path in ["/notifications", "/notifications/stream"] {
        let request = herald.bare(Method::GET, path).header("accept", "image/png");
        assert_eq!(answer(request).await.status, StatusCode::NOT_ACCEPTABLE, "{path}");
    }
    // Saying nothing is enough for a page, but not for a stream.
    assert!(ask(herald.address, "/notifications").await.starts_with("HTTP/1.1 400 "));
    assert!(ask(herald.address, "/notifications/stream").await.starts_with("HTTP/1.1 406 "));
}

#[tokio::test]
async fn then_415_before_the_size_of_the_body() {
    let herald = Herald::start();
    let request = herald.bare(Method::POST, "/notifications").header("content-type", "text/plain");
    let refused = answer(request.body(vec![b'x'; JSON_BYTES_MAX + 1])).await;
    assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let request = herald.bare(Method::POST, "/notifications").header("accept", "image/png");
    assert_eq!(answer(request.body("x")).await.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn then_413_before_the_headers_are_looked_at() {
    let herald = Herald::start();
    for (content_type, body) in [
        ("application/json", vec![b'x'; JSON_BYTES_MAX + 1]),
        ("application/x-ndjson", vec![b'x'; 1 << 20]),
    ] {
        let request = herald.bare(Method::POST, "/notifications");
        let refused = answer(request.header("content-type", content_type).body(body)).await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE, "{content_type}");
    }
}

#[tokio::test]
async fn then_400_before_the_her_ids_are_held_against_the_grant() {
    let herald = Herald::start_with(granting(1));
    let request = herald.bare(Method::GET, "/notifications?HerIds=2&Offset=0");
    let refused = answer(request.header("api-version", "3")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn then_403_with_1202_for_a_her_id_that_is_not_granted() {
    let herald = Herald::start_with(granting(1));
    assert_eq!(herald.poll("HerIds=1&Offset=0").await.status, StatusCode::OK);
    let refusals = [
        herald.poll("HerIds=1&HerIds=2&Offset=0").await,
        herald.refused_stream("HerIds=1&HerIds=2&Offset=0").await,
    ];
    for refused in refusals {
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let problem = refused.json();
        assert_eq!(problem["errorCode"], 1202);
        assert_eq!(problem["detail"], "No access to HER-id 2.");
    }
}

#[tokio::test]
async fn last_409_when_all_else_is_right() {
    let herald = Herald::start();
    herald.append(&[draft_with_id(1, 7)]).await;
    let body = format!(r#"{{"notifications":[{}]}}"#, draft_with_id(2, 7));
    let refused = herald.post("application/json", body.clone()).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let request = herald.bare(Method::POST, "/notifications").header("api-version", "3");
    let refused = answer(request.header("content-type", "application/json").body(body)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}
