//! The server as its operators meet it: what it logs, how it stops, how it refuses to start.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::support::{
    http::{self, Events, identified},
    server::{Server, herald},
};

/// The fields of the line that says `message`.
fn line(log: &[String], message: &str) -> Value {
    let lines = log.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut found = lines.filter(|line| line["message"] == message);
    let line = found.next().unwrap_or_else(|| panic!("no line says {message}: {log:#?}"));
    assert!(found.next().is_none(), "{message} is said twice: {log:#?}");
    line
}

#[tokio::test]
async fn sigterm_ends_with_0_within_the_drain_and_each_phase_is_one_line() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(dir.path(), &["--drain", "6s"]).await;
        let (api, ops) = (server.api.to_string(), server.ops.to_string());
        let began = Instant::now();
        server.signal(signal);
        let (status, log) = server.ended();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        assert!(began.elapsed() < Duration::from_secs(6));
        let listening = line(&log, "listening");
        assert_eq!((&listening["api"], &listening["ops"]), (&api.into(), &ops.into()));
        let ready = line(&log, "ready");
        assert_eq!((&ready["tail"], &ready["trim"]), (&0.into(), &0.into()));
        for message in ["starting", "stopping", "draining", "stopped"] {
            assert_eq!(line(&log, message)["level"], "INFO");
        }
    }
}

#[tokio::test]
async fn a_stop_refuses_requests_and_is_not_ready_while_a_stream_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--drain", "8s"]).await;
    let client = http::client();
    let mut events = Events::open(&client, &server.url(), &[7], 0).await.expect("a stream");
    let (url, ready) = (server.url(), format!("http://{}/health/ready", server.ops));
    assert_eq!(client.get(&ready).send().await.expect("an answer").status(), 200);
    server.signal("-TERM");
    // The signal is on its way: the first refusal is waited for, everything after it must be refused too.
    let poll = || identified(client.get(format!("{url}/notifications?HerIds=7&Offset=0")));
    while poll().send().await.expect("an answer").status() == 200 {}
    let refused = poll().send().await.expect("an answer");
    assert_eq!(refused.status(), 503);
    let seconds = refused.headers()["retry-after"].to_str().expect("ASCII");
    assert!((1..=8).contains(&seconds.parse::<u64>().expect("seconds")), "{seconds}");
    let problem: Value =
        serde_json::from_str(&refused.text().await.expect("a body")).expect("JSON");
    assert_eq!(problem["type"], "urn:herald:problem:stopping");
    let health = client.get(&ready).send().await.expect("an answer");
    assert_eq!(health.status(), 503);
    assert!(health.text().await.expect("a body").contains("stopping"));
    assert!(Events::open(&client, &url, &[7], 0).await.is_none(), "no new stream");
    assert!(events.next().await.is_none(), "the open one ends");
    let (status, log) = server.ended();
    assert_eq!((status.code(), &line(&log, "stopped")["cut"]), (Some(0), &0.into()));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--drain", "1h"]).await;
    let client = http::client();
    let _events = Events::open(&client, &server.url(), &[7], 0).await.expect("a stream");
    server.signal("-TERM");
    let ready = format!("http://{}/health/ready", server.ops);
    while client.get(&ready).send().await.expect("an answer").status() == 200 {}
    server.signal("-TERM");
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1));
    line(&log, "ending at once");
}

#[tokio::test]
async fn streams_end_one_by_one_with_differing_retry_hints() {
    const STREAMS: usize = 40;
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--drain", "4s"]).await;
    let client = http::client();
    let mut texts = Vec::new();
    for _ in 0..STREAMS {
        let request =
            client.get(format!("{}/notifications/stream?HerIds=7&Offset=0", server.url()));
        let request = identified(request).header("accept", "text/event-stream");
        let mut answer = request.send().await.expect("a stream").bytes_stream();
        texts.push(tokio::spawn(async move {
            let mut text = Vec::new();
            while let Some(bytes) = answer.next().await {
                text.extend_from_slice(&bytes.expect("a clean end"));
            }
            (Instant::now(), String::from_utf8(text).expect("a stream is UTF-8"))
        }));
    }
    let began = Instant::now();
    server.signal("-TERM");
    let mut hints = Vec::new();
    let mut ends = Vec::new();
    for text in texts {
        let (ended, text) = text.await.expect("a reader");
        assert!(text.ends_with("\n\n"), "{text:?} ends at an event boundary");
        let hint = text.rsplit_once("retry: ").expect("a hint").1.trim_end();
        hints.push(hint.parse::<u64>().expect("milliseconds"));
        ends.push(ended - began);
    }
    assert_eq!(server.ended().0.code(), Some(0));
    assert!(hints.iter().all(|hint| (500..=3000).contains(hint)), "{hints:?}");
    hints.sort_unstable();
    hints.dedup();
    assert!(hints.len() > STREAMS / 2, "{hints:?}");
    ends.sort_unstable();
    // The window is 1 s to 3.2 s. A slow machine only makes ends later, never earlier.
    assert!(ends[0] >= Duration::from_secs(1), "{ends:?}");
    let middle = ends[STREAMS / 2] - ends[0];
    assert!(middle > Duration::from_millis(400), "half of them end at once: {ends:?}");
}

#[tokio::test]
async fn a_second_server_on_a_data_directory_exits_1_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let _first = Server::start(dir.path(), &[]).await;
    let (status, log) = Server::launch(dir.path(), &[]).listening().ended();
    assert_eq!(status.code(), Some(1));
    let failed = line(&log, "failed");
    assert!(failed["error"].as_str().expect("text").contains("in use"), "{failed}");
}

#[tokio::test]
async fn an_address_in_use_exits_1_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let output = herald()
        .args(["serve", "--ops-listen", "127.0.0.1:0", "--listen", &address, "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("the binary starts");
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("could not listen on {address}")), "{log}");
}

#[tokio::test]
async fn the_log_has_a_request_id_and_never_a_query_a_body_or_a_description() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--drain", "0s", "--log-level", "trace"]).await;
    let client = http::client();
    let url = format!("{}/notifications", server.url());
    let draft = r#"{"relatedMessageId":"ce27f4f2-6a1f-4b43-9e54-4b0ac4b3e1f5","type":"NewMessage",
        "notificationReceiverHerId":8139764,"description":"a secret"}"#;
    for body in [format!(r#"{{"notifications":[{draft}]}}"#), draft.replace('}', ",\"x\":1}")] {
        let request = identified(client.post(&url)).header("content-type", "application/json");
        request.header("x-request-id", "mine-17").body(body).send().await.expect("an answer");
    }
    let query = "HerIds=8139764&Offset=0";
    identified(client.get(format!("{url}?{query}"))).send().await.expect("an answer");
    client.get(format!("{url}?{query}")).send().await.expect("an answer");
    let _events = Events::open(&client, &server.url(), &[8_139_764], 0).await.expect("a stream");
    server.signal("-TERM");
    let (_, log) = server.ended();
    assert!(log.iter().any(|line| line.contains("mine-17")), "{log:#?}");
    for line in log {
        for secret in ["8139764", "a secret", "ce27f4f2", "HerIds"] {
            assert!(!line.contains(secret), "{secret}: {line}");
        }
    }
}
