//! Where the checks of tokens stand among the others: each request here is wrong at one step and at every later one.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    guarded::{Caller, Guarded, PUBLISH, READ, Setup},
    herald::{answer, draft_with_id},
};

#[tokio::test]
async fn first_404_and_405_then_503_and_only_then_401() {
    let guarded = Guarded::starting(Setup::default()).await;
    let herald = &guarded.herald;
    let status = async |method: Method, path: &str| {
        answer(herald.bare(method, path).header("accept", "image/png")).await.status
    };
    let all = async |service: StatusCode| {
        assert_eq!(status(Method::GET, "/notifications/").await, StatusCode::NOT_FOUND);
        assert_eq!(status(Method::PUT, "/notifications").await, StatusCode::METHOD_NOT_ALLOWED);
        for path in ["/notifications", "/notifications/stream"] {
            assert_eq!(status(Method::GET, path).await, service, "{path}");
        }
        assert_eq!(status(Method::POST, "/notifications").await, service);
    };
    all(StatusCode::SERVICE_UNAVAILABLE).await;
    herald.open_log();
    all(StatusCode::UNAUTHORIZED).await;
    herald.lifecycle.stop();
    all(StatusCode::SERVICE_UNAVAILABLE).await;
}

#[tokio::test]
async fn then_403_for_the_scope_before_anything_else_of_the_call_is_looked_at() {
    let guarded = Guarded::start().await;
    let (reader, publisher) = (guarded.reader(), guarded.publisher());
    let bare = |caller: &Caller, method: Method, path: &str| {
        let proof = caller.proof(method.as_str(), &guarded.url(path));
        let request = guarded.herald.bare(method, path).header("accept", "image/png");
        request.header("authorization", caller.authorization()).header("dpop", proof)
    };
    for (caller, method, path, scope) in [
        (&publisher, Method::GET, "/notifications", READ),
        (&publisher, Method::GET, "/notifications/stream", READ),
        (&reader, Method::POST, "/notifications", PUBLISH),
    ] {
        let refused = answer(bare(caller, method.clone(), path)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
        let problem = refused.json();
        assert_eq!(problem["type"], "urn:herald:problem:insufficient-scope");
        assert_eq!(problem["errorCode"], 0);
        let challenge = refused.header("www-authenticate");
        let expected = format!(r#"DPoP error="insufficient_scope", scope="{scope}", algs=""#);
        assert!(challenge.starts_with(&expected), "{challenge}");
    }
    // 406 comes next, before the headers of the page and the query.
    for path in ["/notifications", "/notifications/stream"] {
        let refused = answer(bare(&reader, Method::GET, path)).await;
        assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE, "{path}");
    }
    let refused = answer(bare(&publisher, Method::POST, "/notifications")).await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn then_415_413_400_and_409_of_whoever_may_append() {
    let guarded = Guarded::start().await;
    let publisher = guarded.publisher();
    let refused = guarded.post(&publisher, "text/plain", "x".repeat((16 << 20) + 1)).await;
    assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let refused = guarded.post(&publisher, "application/json", "x".repeat((16 << 20) + 1)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    let refused = guarded.post(&publisher, "application/json", "{}".to_owned()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    guarded.append(&[draft_with_id(100, 7)]).await;
    let body = json!({ "notifications": [draft_with_id(200, 7)] }).to_string();
    let refused = guarded.post(&publisher, "application/json", body).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn then_400_before_the_her_ids_are_held_against_the_grant() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    for query in ["HerIds=400", "HerIds=400&Offset=x", "HerIds=0&HerIds=400&Offset=0"] {
        let refused = guarded.poll(&reader, query).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(refused.json()["errorCode"], 1001);
    }
    let refused = guarded.poll(&reader, "HerIds=400&Offset=0").await;
    assert_eq!(
        (refused.status, &refused.json()["errorCode"]),
        (StatusCode::FORBIDDEN, &json!(1202))
    );
}
