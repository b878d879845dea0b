//! Text that would be something else where it ends up: a field of an event stream, a header, a line of the log.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::status_of;
use crate::{
    guarded::{Guarded, Setup},
    herald::{answer, draft},
    leaks,
    serving::read_to_end,
};

/// What an event stream, a header or a log might take for an end.
const DESCRIPTIONS: [&str; 12] = [
    "\n\ndata: forged",
    "x\ndata: forged",
    "x\r\ndata: forged\r\n\r\n",
    "x\rdata: forged\r\r",
    "\nid: 9999",
    "\nevent: connected\ndata:\n\n",
    "\nretry: 1\n\n",
    "nul \0 in it",
    "separators \u{2028}data: forged\u{2029}id: 9999\u{85}event: x",
    "\u{feff}bom, \u{b}\u{c}\u{1c}\u{1d}\u{1e} and \u{1b}[31m",
    "\"},\"offset\":1}\n\n",
    "</script><img src=x onerror=alert(1)>",
];

/// An event stream as the standard reads it: a line ends at CR LF, LF or CR, an event at an empty line.
fn events_of(stream: &str) -> Vec<Vec<(String, String)>> {
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let events = lines.split("\n\n").filter(|event| !event.is_empty());
    events
        .map(|event| {
            let fields = event.split('\n').filter(|line| !line.starts_with(':'));
            let fields = fields.map(|line| line.split_once(':').unwrap_or((line, "")));
            fields.map(|(name, value)| (name.to_owned(), value.trim_start().to_owned())).collect()
        })
        .collect()
}

/// The chunks' bytes of an answer of HTTP/1.1.
fn body_of(answer: &str) -> String {
    let (_, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    let mut body = String::new();
    while let Some((len, behind)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap();
        body.push_str(&behind[..len]);
        rest = behind[len..].strip_prefix("\r\n").unwrap();
    }
    body
}

#[tokio::test]
async fn no_description_makes_a_field_of_the_event_stream() {
    let stream_max_age = std::time::Duration::from_millis(500);
    let guarded = Guarded::start_with(Setup { stream_max_age, ..Setup::default() }).await;
    let drafts: Vec<_> = DESCRIPTIONS
        .iter()
        .map(|description| {
            let mut draft = draft(100);
            draft["description"] = (*description).into();
            draft
        })
        .collect();
    guarded.append(&drafts).await;
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
    let events = events_of(&body_of(&read_to_end(&mut socket).await));
    let names = |event: &[(String, String)]| -> Vec<String> {
        event.iter().map(|(name, _)| name.clone()).collect()
    };
    let [connected, notifications @ .., hint] = &*events else { panic!("{events:?}") };
    assert_eq!(names(connected), ["event", "data"]);
    assert_eq!(names(hint), ["retry"]);
    assert_eq!(notifications.len(), DESCRIPTIONS.len(), "{events:?}");
    for ((event, description), offset) in notifications.iter().zip(DESCRIPTIONS).zip(1..) {
        assert_eq!(names(event), ["id", "event", "data"], "{description:?}");
        assert_eq!(
            (event[0].1.as_str(), event[1].1.as_str()),
            (&*offset.to_string(), "notification")
        );
        let data: Value = serde_json::from_str(&event[2].1).unwrap();
        assert_eq!(data["description"], description);
        assert_eq!(
            (&data["offset"], &data["notificationReceiverHerId"]),
            (&json!(offset), &json!(100))
        );
    }
}

/// The only headers that answers have; a problem's and a page's together.
const HEADERS: [&str; 17] = [
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "herald-history",
    "herald-tail",
    "herald-trim",
    "herald-until",
    "retry-after",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
];

#[track_caller]
fn assert_headers(answer: &str) {
    let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{head:?}");
    for line in head.split("\r\n").skip(1) {
        let (name, _) = line.split_once(": ").expect("a header");
        assert!(HEADERS.contains(&name), "{line}");
    }
}

#[tokio::test]
async fn nothing_that_a_caller_sends_becomes_a_header() {
    let guarded = Guarded::start().await;
    let reader = guarded.reader();
    let forged = "\r\nset-cookie: forged=1\r\n\r\n<script>";
    for (target, lines) in [
        ("/notifications%0d%0aset-cookie:%20forged=1", String::new()),
        ("/notifications?HerIds=100%0d%0aset-cookie:forged&Offset=0", String::new()),
        ("/notifications?HerIds=100&Offset=0", format!("x-request-id: a{forged}")),
        ("/notifications?HerIds=100&Offset=0", "x-request-id: a\rset-cookie: forged=1\r\n".into()),
        ("/notifications?HerIds=100&Offset=0", "x-request-id: a\nset-cookie: forged=1\r\n".into()),
        (
            "/notifications?HerIds=100&Offset=0",
            "x-request-id: a\r\n set-cookie: forged=1\r\n".into(),
        ),
        ("/notifications?HerIds=100&Offset=0", "x-request-id: a%0d%0aset-cookie:forged\r\n".into()),
        ("/notifications?HerIds=100&Offset=0", "x-request-id: å\u{85}\u{2028}\r\n".into()),
        (
            "/notifications?HerIds=100&Offset=0",
            "nhn-source-system: a\rset-cookie: forged=1\r\n".into(),
        ),
        ("/notifications/stream?HerIds=100", "last-event-id: 1\rset-cookie: forged=1\r\n".into()),
        ("/notifications/stream?HerIds=100", "last-event-id: %0aset-cookie:forged\r\n".into()),
    ] {
        let path = target.split('?').next().unwrap();
        let host = guarded.herald.address;
        let proof = reader.proof("GET", &guarded.url(path));
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: {host}\r\napi-version: 3\r\nnhn-source-system: Tests\r\n\
             accept: */*, text/event-stream\r\nauthorization: {}\r\ndpop: {proof}\r\n\
             connection: close\r\n{lines}\r\n",
            reader.authorization(),
        );
        let answer = guarded.raw(&request).await;
        assert_headers(&answer);
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("\nset-cookie"), "{target} {lines:?}: {head}");
    }
}

#[tokio::test]
async fn whatever_is_asked_for_one_event_is_one_line_of_the_log_without_control_characters() {
    let guarded = Guarded::start().await;
    let forged = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR","message":"forged"}"#;
    for path in [
        "/%0a{forged}".to_owned(),
        "/%0d%0aERROR%20forged".to_owned(),
        "/\u{85}ERROR forged".replace(' ', "%20"),
        "/\u{2028}ERROR\u{2029}forged".to_owned(),
        "/\u{9b}31mred".to_owned(),
        "/\u{7f}\u{7f}".to_owned(),
        "/\u{1b}[31mred".to_owned(),
        format!("/\n{forged}"),
        "/\u{202e}derever".to_owned(),
        "/\"},{\"message\":\"forged\"}".to_owned(),
    ] {
        let line = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = guarded.raw(&line).await;
        assert!(matches!(status_of(&answer).as_u16(), 400 | 404), "{path:?}: {answer}");
    }
    let source_system = guarded.herald.bare(Method::GET, "/notifications?HerIds=1&Offset=0");
    let bytes = http::HeaderValue::from_bytes(b"x\xc2\x85\xe2\x80\xa8forged").unwrap();
    let refused = answer(
        source_system.header("nhn-source-system", bytes.clone()).header("x-request-id", bytes),
    )
    .await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let [json, text] = leaks::logs();
    assert!(text.contains("refused"), "there is something to look at: {text}");
    for line in json.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no event: {line}"));
        assert!(event["message"] != "forged", "{line}");
    }
    assert_eq!(json.lines().count(), text.lines().count());
    for line in json.split('\n').chain(text.split('\n')) {
        assert!(!line.contains(is_unsafe), "{line:?}");
    }
}

/// What a terminal or a viewer takes for more than a character.
fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[tokio::test]
async fn a_compressed_body_is_refused_before_it_is_read() {
    let guarded = Guarded::start().await;
    let publisher = guarded.publisher();
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"] {
        let call = guarded.call(&publisher, Method::POST, "/notifications");
        let call =
            call.header("content-type", "application/json").header("content-encoding", coding);
        let refused = answer(call.body(vec![0x1f; 4096])).await;
        assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{coding}");
    }
}
