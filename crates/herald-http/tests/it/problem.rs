//! What every answer and every problem has.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::herald::{EVENT_STREAM, Herald, answer, quiet};

#[tokio::test]
async fn a_problem_has_all_of_its_members() {
    let herald = Herald::start();
    let refused = herald.poll("HerIds=1&Offset=x").await;
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let mut problem = refused.json();
    assert_eq!(problem["requestId"], refused.header("x-request-id"));
    let timestamp = problem["timestamp"].as_str().unwrap();
    assert!(timestamp.ends_with("+00:00"), "{timestamp}");
    problem["requestId"] = "(id)".into();
    problem["timestamp"] = "(time)".into();
    insta::assert_json_snapshot!(problem, @r#"
    {
      "detail": "The request is invalid; validationErrors names everything that is wrong.",
      "errorCode": 1001,
      "instance": "/notifications",
      "requestId": "(id)",
      "status": 400,
      "timestamp": "(time)",
      "title": "The request is invalid",
      "type": "urn:herald:problem:invalid-request",
      "validationErrors": [
        "Offset 'x': must be a whole number from 0 to 9223372036854775807, in plain decimal digits"
      ]
    }
    "#);
}

#[tokio::test]
async fn a_stream_without_an_offset_is_told_in_the_detail_where_to_begin() {
    let herald = Herald::start();
    for query in ["HerIds=1", ""] {
        let problem = herald.refused_stream(query).await.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("0 starts at the oldest"), "{detail}");
        assert!(detail.contains("herald-tail of a poll's answer is now"), "{detail}");
    }
}

#[tokio::test]
async fn validation_errors_are_null_where_the_request_is_not_the_problem() {
    let herald = Herald::start();
    let refused = herald.get("/nowhere?x=1").await;
    let problem = refused.json();
    assert_eq!(problem["instance"], "/nowhere");
    assert_eq!((&problem["validationErrors"], &problem["errorCode"]), (&Value::Null, &0.into()));
}

#[tokio::test]
async fn every_answer_bears_a_request_id_and_the_callers_own_if_it_may() {
    let herald = Herald::start();
    let stream = "/notifications/stream?HerIds=1&Offset=0";
    for (method, path) in [
        (Method::GET, "/notifications?HerIds=1&Offset=0"),
        (Method::GET, "/notifications"),
        (Method::HEAD, stream),
        (Method::PUT, "/ping"),
        (Method::OPTIONS, "/ping"),
        (Method::GET, "/nowhere"),
        (Method::GET, "/swagger"),
        (Method::GET, "/openapi.json"),
    ] {
        let of = async |id: &str| {
            let request = herald.request(method.clone(), path).header("accept", "*/*");
            answer(request.header("x-request-id", id)).await.header("x-request-id").to_owned()
        };
        assert_eq!(of("my-own/id:7").await, "my-own/id:7", "{method} {path}");
        let longest = "x".repeat(128);
        assert_eq!(of(&longest).await, longest);
        assert_eq!(of(&"x".repeat(129)).await.len(), 33);
        assert_eq!(of("not visible").await.len(), 33);
    }
    let events = herald.stream("HerIds=1&Offset=0").await;
    assert!(events.response.headers().contains_key("x-request-id"));
}

#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let herald = Herald::start();
    for (path, allow) in [
        ("/notifications", "GET,HEAD,POST,OPTIONS"),
        ("/notifications/stream", "GET,HEAD,OPTIONS"),
        ("/ping", "GET,HEAD,OPTIONS"),
        ("/openapi.json", "GET,HEAD,OPTIONS"),
        ("/swagger", "GET,HEAD,OPTIONS"),
        ("/swagger/", "GET,HEAD,OPTIONS"),
    ] {
        for method in ["DELETE", "PUT", "PATCH", "TRACE", "HERALD"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let refused = answer(herald.bare(method.clone(), path)).await;
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(refused.header("allow"), allow, "{method} {path}");
            assert_eq!(refused.json()["errorCode"], 0);
        }
        let options = answer(herald.bare(Method::OPTIONS, path)).await;
        assert_eq!((options.status, options.body.len()), (StatusCode::NO_CONTENT, 0));
        assert_eq!(options.header("allow"), allow, "{path}");
    }
}

#[tokio::test]
async fn a_problem_of_head_has_no_body() {
    for herald in [Herald::start(), Herald::start().over_http2()] {
        for path in ["/nowhere", "/notifications"] {
            let refused = answer(herald.bare(Method::HEAD, path)).await;
            assert!(refused.status.is_client_error());
            assert_eq!(refused.body.len(), 0, "{path}");
        }
    }
}

#[tokio::test]
async fn ping_needs_no_header() {
    let herald = Herald::start();
    let pong = answer(herald.bare(Method::GET, "/ping").header("accept", EVENT_STREAM)).await;
    assert_eq!(pong.status, StatusCode::OK);
    assert_eq!(pong.json()["response"], "pong");
    let time = pong.json()["timestampUtc"].as_str().unwrap().to_owned();
    assert!(time.ends_with("+00:00"), "{time}");
}

#[tokio::test]
async fn the_error_code_is_1001_exactly_with_400() {
    let herald = Herald::starting(quiet());
    let unready = herald.poll("").await.json();
    herald.open_log();
    for problem in [unready, herald.poll("").await.json(), herald.get("/nowhere").await.json()] {
        assert_eq!(problem["errorCode"] == 1001, problem["status"] == 400, "{problem}");
    }
}
