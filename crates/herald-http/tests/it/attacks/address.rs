//! A proof is for one address: what the call says of itself, or the public one.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use super::Raw;
use crate::guarded::{Guarded, Setup};

const TARGET: &str = "/notifications?HerIds=100&Offset=0";
const HTU: &str = "http://api.example.no/notifications";
const OK: StatusCode = StatusCode::OK;
const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;
const INVALID: StatusCode = StatusCode::BAD_REQUEST;

#[tokio::test]
async fn the_htu_is_held_against_the_host_that_the_call_names() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    for (lines, htu, status) in [
        (&["host: api.example.no"][..], HTU, OK),
        (&["host: API.Example.NO"], HTU, OK),
        (&["host: api.example.no"], "HTTP://API.EXAMPLE.NO:80/notifications", OK),
        (&["host: api.example.no:80"], HTU, OK),
        (&["host: api.example.no:"], HTU, OK),
        (&["host: api.example.no:080"], HTU, OK),
        (&["host: api.example.no:8443"], "http://api.example.no:8443/notifications", OK),
        (&["host: api.example.no:8443"], HTU, REFUSED),
        (&["host: api.example.no:443"], HTU, REFUSED),
        (&["host: api.example.no."], HTU, REFUSED),
        (&["host: api.example.no."], "http://api.example.no./notifications", OK),
        (&["host: [::1]:8080"], "http://[::1]:8080/notifications", OK),
        (&["host: evil.example.no"], HTU, REFUSED),
        (&["host: api.example.no.evil.example.no"], HTU, REFUSED),
        (&["host: evil@api.example.no"], HTU, INVALID),
        (&["host: api.example.no/notifications?"], HTU, INVALID),
        (&["host: api.example.no/x"], "http://api.example.no/x/notifications", INVALID),
        (&["host: "], HTU, REFUSED),
        (&[], HTU, REFUSED),
        (&["host: api.example.no", "host: evil.example.no"], HTU, INVALID),
        (&["host: evil.example.no", "host: api.example.no"], HTU, INVALID),
        (&["host: api.example.no", "host: api.example.no"], HTU, INVALID),
        (&["host: api.example.no, evil.example.no"], HTU, INVALID),
        (&["host: api.example.no"], "https://api.example.no/notifications", REFUSED),
    ] {
        let given = Raw::poll(&reader, TARGET, htu, lines).status(&guarded).await;
        assert_eq!(given, status, "{lines:?} {htu}");
    }
}

#[tokio::test]
async fn an_absolute_target_comes_before_the_host_header() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let target = "http://api.example.no/notifications?HerIds=100&Offset=0";
    for (lines, htu, status) in [
        (&["host: api.example.no"][..], HTU, OK),
        (&["host: evil.example.no"], HTU, OK),
        (&["host: evil.example.no"], "http://evil.example.no/notifications", REFUSED),
        (&[], HTU, OK),
    ] {
        let given = Raw::poll(&reader, target, htu, lines).status(&guarded).await;
        assert_eq!(given, status, "{lines:?} {htu}");
    }
    // The scheme is the connection's, whatever the target says.
    let target = "https://api.example.no/notifications?HerIds=100&Offset=0";
    let htu = "https://api.example.no/notifications";
    assert_eq!(Raw::poll(&reader, target, htu, &[]).status(&guarded).await, REFUSED);
}

#[tokio::test]
async fn http_1_0_without_a_host_names_no_address() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let own = guarded.url("/notifications");
    for (target, lines, htu, status) in [
        (TARGET, &[][..], own.as_str(), REFUSED),
        (TARGET, &[], "http:///notifications", REFUSED),
        (TARGET, &["host: api.example.no"], HTU, OK),
        ("http://api.example.no/notifications?HerIds=100&Offset=0", &[], HTU, OK),
    ] {
        let raw = Raw { version: "HTTP/1.0", ..Raw::poll(&reader, target, htu, lines) };
        assert_eq!(raw.status(&guarded).await, status, "{target} {htu}");
    }
}

#[tokio::test]
async fn forwarding_headers_are_never_read() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    for line in [
        "x-forwarded-host: evil.example.no",
        "x-forwarded-proto: https",
        "x-forwarded-port: 443",
        "x-forwarded-prefix: /evil",
        "forwarded: host=evil.example.no;proto=https",
        "x-original-host: evil.example.no",
        "x-original-url: /ping",
        "x-rewrite-url: /ping",
        "x-host: evil.example.no",
    ] {
        let lines = ["host: api.example.no", line];
        assert_eq!(Raw::poll(&reader, TARGET, HTU, &lines).status(&guarded).await, OK, "{line}");
        for htu in [
            "http://evil.example.no/notifications",
            "https://evil.example.no/notifications",
            "https://api.example.no/notifications",
            "http://api.example.no:443/notifications",
            "http://api.example.no/evil/notifications",
            "http://api.example.no/ping",
        ] {
            let given = Raw::poll(&reader, TARGET, htu, &lines).status(&guarded).await;
            assert_eq!(given, REFUSED, "{line} {htu}");
        }
    }
}

#[tokio::test]
async fn an_htu_that_could_mean_the_path_by_another_way_is_refused() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    for path in [
        "/notifications?HerIds=100&Offset=0",
        "/notifications?",
        "/notifications#",
        "/notifications/",
        "//notifications",
        "/./notifications",
        "/x/../notifications",
        "/%6eotifications",
        "/%6Eotifications",
        "/notifications%3F",
        "/notifications%00",
        "/notifications;x",
        "/Notifications",
        "/notifications/stream",
        "/notifications ",
        "/notifications\n",
        "\\notifications",
        "",
        "/",
    ] {
        let htu = format!("http://api.example.no{path}");
        let raw = Raw::poll(&reader, TARGET, &htu, &["host: api.example.no"]);
        assert_eq!(raw.status(&guarded).await, REFUSED, "{path:?}");
    }
    for htu in [
        "api.example.no/notifications",
        "//api.example.no/notifications",
        "/notifications",
        "http:/api.example.no/notifications",
        "http://x@api.example.no/notifications",
        "http://api.example.no@evil.example.no/notifications",
        "http://api.example.no:65616/notifications",
        "http://api.example.no:+80/notifications",
        "http://api.example.no%2fnotifications",
        "http://ａpi.example.no/notifications",
        " http://api.example.no/notifications",
        "ws://api.example.no/notifications",
    ] {
        let raw = Raw::poll(&reader, TARGET, htu, &["host: api.example.no"]);
        assert_eq!(raw.status(&guarded).await, REFUSED, "{htu:?}");
    }
}

#[tokio::test]
async fn behind_a_proxy_the_public_url_counts_and_the_host_does_not() {
    for public_url in ["https://Api.Example.no:443/msh", "https://api.example.no/msh/"] {
        let setup = Setup { public_url: Some(public_url), ..Setup::default() };
        let guarded = Guarded::start_with(setup).await;
        let reader = guarded.reader();
        for lines in [&["host: 10.0.0.7:8080"][..], &["host: a"], &[]] {
            for (htu, status) in [
                ("https://api.example.no/msh/notifications", OK),
                ("HTTPS://API.EXAMPLE.NO:443/msh/notifications", OK),
                ("https://api.example.no/msh//notifications", REFUSED),
                ("https://api.example.no/MSH/notifications", REFUSED),
                ("https://api.example.no/notifications", REFUSED),
                ("http://api.example.no/msh/notifications", REFUSED),
                ("http://10.0.0.7:8080/notifications", REFUSED),
                ("https://api.example.no/msh/notifications?HerIds=100", REFUSED),
            ] {
                let given = Raw::poll(&reader, TARGET, htu, lines).status(&guarded).await;
                assert_eq!(given, status, "{public_url} {lines:?} {htu}");
            }
        }
    }
}

#[tokio::test]
async fn over_http_2_the_authority_stands_for_the_host() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let stream = TcpStream::connect(guarded.herald.address).await.unwrap();
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (scheme, host, htu, status) in [
        ("http", None, HTU, OK),
        ("http", Some("evil.example.no"), HTU, OK),
        ("http", Some("evil.example.no"), "http://evil.example.no/notifications", REFUSED),
        // The scheme is the connection's, whatever the call says.
        ("https", None, HTU, OK),
        ("https", None, "https://api.example.no/notifications", REFUSED),
        ("http", None, "http://api.example.no/notifications?HerIds=100", REFUSED),
    ] {
        let proof = reader.proof_with("GET", htu, json!({}), json!({}));
        let mut call = Request::get(format!("{scheme}://api.example.no{TARGET}"))
            .header("api-version", "3")
            .header("nhn-source-system", "Tests, v1")
            .header("authorization", reader.authorization())
            .header("dpop", proof);
        if let Some(host) = host {
            call = call.header("host", host);
        }
        let answer = sender.send_request(call.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{scheme} {host:?} {htu}");
    }
}
