//! Paths that are nearly a route, and pages of other origins.

use http::{Method, StatusCode};

use super::{Raw, status_of};
use crate::{
    guarded::Guarded,
    herald::{EVENT_STREAM, answer, draft},
    serving::ask,
};

const PATHS: [&str; 34] = [
    "//notifications",
    "/./notifications",
    "/../notifications",
    "/x/../notifications",
    "/notifications/",
    "/notifications//",
    "/notifications/.",
    "/notifications/..",
    "/notifications//stream",
    "/notifications/./stream",
    "/notifications/stream/",
    "/notifications%2Fstream",
    "/notifications%2fstream",
    "/notifications%5Cstream",
    "/notifications\\stream",
    "/%6eotifications",
    "/notification%73",
    "/notifications%00",
    "/notifications%20",
    "/notifications%3FHerIds=100",
    "/notifications;x",
    "/notifications;x=y/stream",
    "/notifications.json",
    "/NOTIFICATIONS",
    "/Notifications/Stream",
    "/swagger/../notifications",
    "/swagger/%2e%2e/notifications",
    "/swagger/..%2fnotifications",
    "/swagger/%2e%2e%2fnotifications",
    "/swagger/..;/notifications",
    "/ping/../notifications",
    "/openapi.json/../notifications",
    "/metrics",
    "/health/ready",
];

#[tokio::test]
async fn a_path_that_is_nearly_a_route_is_none_with_a_token_and_without() {
    let guarded = Guarded::start().await;
    guarded.append(&[draft(100)]).await;
    let reader = guarded.reader();
    let host = format!("host: {}", guarded.herald.address);
    for path in PATHS {
        let target = format!("{path}?HerIds=100&Offset=0");
        let with = Raw::poll(
            &reader,
            &target,
            &guarded.url(path),
            &[&host, "accept: */*, text/event-stream"],
        );
        let with = with.ask(&guarded).await;
        let without = ask(guarded.herald.address, &target).await;
        for answer in [with, without] {
            assert_eq!(status_of(&answer), StatusCode::NOT_FOUND, "{path}: {answer}");
            assert!(!answer.contains("notificationId") && !answer.contains("event:"), "{path}");
        }
    }
    assert_eq!(guarded.herald.streams.count(), 0);
}

#[tokio::test]
async fn a_target_in_another_form_is_no_way_around_the_token() {
    let guarded = Guarded::start().await;
    guarded.append(&[draft(100)]).await;
    let address = guarded.herald.address;
    for line in [
        format!("GET http://{address}/notifications?HerIds=100&Offset=0 HTTP/1.1"),
        "GET http://x/notifications?HerIds=100&Offset=0 HTTP/1.1".to_owned(),
        "GET http://x/swagger/../notifications?HerIds=100&Offset=0 HTTP/1.1".to_owned(),
        "GET /notifications?HerIds=100&Offset=0 HTTP/1.0".to_owned(),
        "GET /notifications?HerIds=100&Offset=0#/ping HTTP/1.1".to_owned(),
        "GET /ping#/../notifications?HerIds=100 HTTP/1.1".to_owned(),
        "OPTIONS * HTTP/1.1".to_owned(),
        format!("CONNECT {address} HTTP/1.1"),
        "TRACE /notifications?HerIds=100&Offset=0 HTTP/1.1".to_owned(),
        "get /notifications?HerIds=100&Offset=0 HTTP/1.1".to_owned(),
        "GET notifications HTTP/1.1".to_owned(),
    ] {
        let request = format!("{line}\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let answer = guarded.raw(&request).await;
        assert!(!answer.contains("notificationId"), "{line}: {answer}");
        let status = status_of(&answer).as_u16();
        // What is behind a hash is no part of a target.
        let is_ping = line.contains("/ping#");
        assert!(matches!(status, 400 | 401 | 404 | 405) || is_ping, "{line}: {answer}");
    }
}

#[tokio::test]
async fn no_answer_lets_another_origin_read_it() {
    let guarded = Guarded::start().await;
    guarded.append(&[draft(100)]).await;
    let reader = guarded.reader();
    let paths = [
        "/notifications?HerIds=100&Offset=0",
        "/notifications/stream?HerIds=100&Offset=0",
        "/ping",
        "/openapi.json",
        "/swagger",
        "/swagger/swagger-ui.css",
        "/nowhere",
    ];
    for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE] {
        for path in paths {
            for origin in ["https://evil.example.no", "null", "http://127.0.0.1"] {
                for with_token in [true, false] {
                    let request = if with_token {
                        guarded.call(&reader, method.clone(), path)
                    } else {
                        guarded.herald.request(method.clone(), path)
                    };
                    let request = request
                        .header("origin", origin)
                        .header("access-control-request-method", "GET")
                        .header(
                            "access-control-request-headers",
                            "authorization, dpop, api-version",
                        )
                        .header("access-control-request-private-network", "true");
                    // A stream is opened elsewhere: it does not end.
                    let request =
                        match path.contains("/stream") && method == Method::GET && with_token {
                            true => request.header("accept", "application/json"),
                            false => request.header("accept", EVENT_STREAM).header("accept", "*/*"),
                        };
                    let given = answer(request).await;
                    let shared = given.headers.keys().find(|name| {
                        name.as_str().starts_with("access-control") || *name == "set-cookie"
                    });
                    assert_eq!(shared, None, "{method} {path} {origin}");
                    assert_eq!(
                        given.header("x-content-type-options"),
                        "nosniff",
                        "{method} {path}"
                    );
                }
            }
        }
    }
    let events = guarded.stream_call(&reader, "HerIds=100&Offset=0");
    let events = events.header("origin", "https://evil.example.no").send().await.unwrap();
    assert_eq!(events.status(), StatusCode::OK);
    assert!(events.headers().keys().all(|name| !name.as_str().starts_with("access-control")));
    assert_eq!(events.headers()["x-content-type-options"], "nosniff");
    for path in ["/metrics", "/health/live", "/health/ready"] {
        let told = ask(guarded.herald.ops, path).await.to_lowercase();
        assert!(!told.contains("access-control"), "{told}");
    }
}
