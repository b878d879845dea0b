//! Streaming: the seam between stored and live, resuming, heartbeats, ends, slow readers.

use std::time::Duration;

use herald_http::api::ApiSettings;
use http::{Method, StatusCode};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use crate::{
    herald::{EVENT_STREAM, Events, Herald, answer, draft, offsets, quiet},
    serving::{PATIENCE, read_to_end},
};

/// The bodies of everything for `query`, page by page, as they stand in polls' answers.
async fn polled(herald: &Herald, her_ids: &str) -> Vec<String> {
    let (mut after, mut bodies) = (0, Vec::new());
    loop {
        let page = herald.poll(&format!("{her_ids}&Offset={after}&NotificationsToFetch=97")).await;
        let notifications = page.notifications();
        let Some(last) = offsets(&notifications).last().copied() else { return bodies };
        let inside = page.text().strip_prefix(r#"{"notifications":["#).unwrap();
        let inside = inside.strip_suffix("]}").unwrap();
        bodies.extend(
            inside.split_inclusive('}').map(|body| body.trim_start_matches(',').to_owned()),
        );
        after = last;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_then_live_comes_without_gap_or_repeat_and_as_in_polls() {
    const WRITERS: u32 = 4;
    const BATCHES: u32 = 25;
    const BATCH: usize = 8;
    let herald = std::sync::Arc::new(Herald::start());
    herald.append(&vec![draft(1); 150]).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let herald = std::sync::Arc::clone(&herald);
            tokio::spawn(async move {
                for _ in 0..BATCHES {
                    herald.append(&vec![draft(1 + writer % 2); BATCH]).await;
                }
            })
        })
        .collect();
    let total = 150 + (WRITERS * BATCHES) as usize * BATCH;
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut events = herald.stream("HerIds=1&HerIds=2&Offset=0").await.connected().await;
        readers.push(tokio::spawn(async move { events.notifications(total).await }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let expected = polled(&herald, "HerIds=1&HerIds=2").await;
    assert_eq!(expected.len(), total);
    for reader in readers {
        let streamed = timeout(PATIENCE, reader).await.expect("all of it").unwrap();
        assert_eq!(streamed, expected);
    }
}

#[tokio::test]
async fn a_live_notification_is_sent_to_every_stream_of_its_receiver_and_no_other() {
    let herald = Herald::start();
    let mut first = herald.stream("HerIds=1&Offset=0").await.connected().await;
    let mut both = herald.stream("HerIds=1&HerIds=2&Offset=0").await.connected().await;
    let mut other = herald.stream("HerIds=2&Offset=0").await.connected().await;
    herald.append(&[draft(1)]).await;
    herald.append(&[draft(2)]).await;
    assert!(first.notification().await.ends_with("\"offset\":1}"));
    assert!(both.notification().await.ends_with("\"offset\":1}"));
    assert!(both.notification().await.ends_with("\"offset\":2}"));
    assert!(other.notification().await.ends_with("\"offset\":2}"));
}

#[tokio::test]
async fn fifteen_hundred_receivers_stream_and_1501_are_refused_over_both_versions() {
    for herald in [Herald::start(), Herald::start().over_http2()] {
        herald.append(&[draft(1), draft(1500), draft(1501)]).await;
        let query =
            |count| (1..=count).map(|number| format!("HerIds={number}&")).collect::<String>();
        let mut events = herald.stream(&format!("{}Offset=0", query(1500))).await.connected().await;
        let bodies = events.notifications(2).await;
        assert!(bodies[1].ends_with("\"offset\":2}"), "{bodies:?}");
        herald.append(&[draft(777)]).await;
        assert!(events.notification().await.ends_with("\"offset\":4}"));
        let refused = herald.refused_stream(&format!("{}Offset=0", query(1501))).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn last_event_id_replaces_the_offset_and_is_checked_like_it() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(1), draft(1)]).await;
    let request = |query: &str, id: &str| {
        let request = herald.request(Method::GET, &format!("/notifications/stream?{query}"));
        request.header("accept", EVENT_STREAM).header("last-event-id", id)
    };
    for query in ["HerIds=1&Offset=0", "HerIds=1"] {
        let mut events = Events::open(request(query, "2")).await.connected().await;
        assert!(events.notification().await.ends_with("\"offset\":3}"), "{query}");
    }
    for bad in ["x", "-1", "9223372036854775808"] {
        let refused = answer(request("HerIds=1&Offset=0", bad)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    // An empty one says nothing, so the offset counts again.
    Events::open(request("HerIds=1&Offset=0", "")).await.connected().await;
    assert_eq!(answer(request("HerIds=1", "")).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_silent_stream_says_how_far_it_has_looked_and_never_below_its_offset() {
    let heartbeat = Duration::from_millis(20);
    let herald = Herald::start_with(ApiSettings { heartbeat, ..quiet() });
    herald.append(&[draft(1), draft(2)]).await;
    let mut behind = herald.stream("HerIds=3&Offset=0").await.connected().await;
    assert_eq!(behind.next().await.as_deref(), Some(": until 2"));
    herald.append(&[draft(2)]).await;
    let mut beat = behind.next().await;
    while beat.as_deref() == Some(": until 2") {
        beat = behind.next().await;
    }
    assert_eq!(beat.as_deref(), Some(": until 3"));
    let mut ahead = herald.stream("HerIds=3&Offset=9").await.connected().await;
    assert_eq!(ahead.next().await.as_deref(), Some(": until 9"));
}

#[tokio::test]
async fn a_stream_ends_at_its_age_with_a_hint_when_to_come_back() {
    let stream_max_age = Duration::from_millis(100);
    let herald = Herald::start_with(ApiSettings { stream_max_age, ..quiet() });
    herald.append(&[draft(1)]).await;
    let mut events = herald.stream("HerIds=1&Offset=0").await.connected().await;
    events.notification().await;
    assert_retry(&events.next().await.unwrap());
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn over_http_1_the_connection_ends_with_its_stream() {
    let stream_max_age = Duration::from_millis(100);
    let herald = Herald::start_with(ApiSettings { stream_max_age, ..quiet() });
    let mut socket = TcpStream::connect(herald.address).await.unwrap();
    let request = "GET /notifications/stream?HerIds=1&Offset=0 HTTP/1.1\r\nhost: herald\r\napi-version: 3\r\n\
                   nhn-source-system: Tests, v1\r\naccept: text/event-stream\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut socket).await;
    assert!(answer.contains("event: connected\ndata:\n\n"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "cleanly, behind the last chunk: {answer}");
}

#[track_caller]
fn assert_retry(event: &str) {
    let wait_ms: u64 = event.strip_prefix("retry: ").expect("a hint").parse().unwrap();
    assert!((500..=3000).contains(&wait_ms), "{wait_ms}");
}

#[tokio::test]
async fn a_stop_ends_every_stream_cleanly_with_hints_that_differ() {
    let herald = Herald::start();
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(herald.stream("HerIds=1&Offset=0").await.connected().await);
    }
    assert_eq!(herald.streams.count(), 20);
    herald.lifecycle.stop();
    let mut hints = Vec::new();
    for mut events in open {
        let hint = events.next().await.unwrap();
        assert_retry(&hint);
        hints.push(hint);
        assert_eq!(events.next().await, None);
    }
    hints.sort_unstable();
    hints.dedup();
    assert!(hints.len() > 10, "{hints:?}");
}

#[tokio::test]
async fn a_stream_that_its_reader_closes_is_forgotten() {
    for herald in [Herald::start(), Herald::start().over_http2()] {
        let events = herald.stream("HerIds=1&Offset=0").await.connected().await;
        assert_eq!(herald.streams.count(), 1);
        drop(events);
        let gone = async {
            while herald.streams.count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, gone).await.expect("the stream is forgotten");
    }
}

#[tokio::test]
async fn head_of_a_stream_opens_none() {
    let herald = Herald::start();
    let request = herald.request(Method::HEAD, "/notifications/stream?HerIds=1&Offset=0");
    let head = answer(request.header("accept", EVENT_STREAM)).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-type"), EVENT_STREAM);
    assert_eq!(head.header("herald-tail"), "0");
    assert_eq!(herald.streams.count(), 0);
    let refused = herald.request(Method::HEAD, "/notifications/stream?HerIds=1");
    let refused = answer(refused.header("accept", EVENT_STREAM)).await;
    assert_eq!((refused.status, refused.body.len()), (StatusCode::BAD_REQUEST, 0));
}

#[tokio::test]
async fn a_stream_is_never_compressed() {
    let herald = Herald::start();
    herald.append(&vec![draft(1); 50]).await;
    let request = herald.request(Method::GET, "/notifications/stream?HerIds=1&Offset=0");
    let request = request.header("accept", EVENT_STREAM).header("accept-encoding", "gzip, zstd");
    let mut events = Events::open(request).await.connected().await;
    assert!(events.response.headers().get("content-encoding").is_none());
    assert_eq!(events.notifications(50).await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_only_itself_and_loses_nothing() {
    const BATCHES: usize = 20;
    for herald in [Herald::start(), Herald::start().over_http2()] {
        let mut slow = herald.stream("HerIds=1&Offset=0").await.connected().await;
        let mut fast = herald.stream("HerIds=1&Offset=0").await.connected().await;
        let mut large = draft(1);
        large["description"] = "x".repeat(1024).into();
        for _ in 0..BATCHES {
            herald.append(&vec![large.clone(); 500]).await;
            // Nothing of it is taken by the other one, which has its own connection or its own window.
            fast.notifications(500).await;
        }
        let bodies = slow.notifications(BATCHES * 500).await;
        for (number, body) in (1..).zip(&bodies) {
            assert!(body.ends_with(&format!("\"offset\":{number}}}")), "{number}: {body}");
        }
    }
}
