//! What a peer may have of the server's connections and of their time, just below each limit and just above it.

use std::time::Duration;

use herald_http::server::ServerLimits;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::serving::{Config, Serving, ask, read_to_end, read_until, send};

fn limited(limits: ServerLimits) -> Serving {
    Serving::start(&Config { limits, ..Config::default() })
}

/// A connection on which `/silent` is answered for ever.
async fn busy(serving: &Serving) -> TcpStream {
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    send(&mut stream, "/silent").await;
    read_until(&mut stream, "hello\r\n").await;
    stream
}

/// The value of a metric's line, as the server tells it.
pub(crate) async fn metric(serving: &Serving, line: &str) -> f64 {
    let text = ask(serving.ops, "/metrics").await;
    let value = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
}

pub(crate) async fn limited_by(serving: &Serving, limit: &str) -> f64 {
    metric(serving, &format!("herald_limited_total{{limit=\"{limit}\"}}")).await
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_given_up_and_one_that_does_is_answered() {
    let head_timeout = Duration::from_millis(300);
    let serving = limited(ServerLimits { head_timeout, ..ServerLimits::default() });
    let before = limited_by(&serving, "head-time").await;
    // Nothing, a part, a part byte by byte, a part of a second one; a part of HTTP/2's greeting.
    let mut silent = TcpStream::connect(serving.api).await.unwrap();
    let mut part = TcpStream::connect(serving.api).await.unwrap();
    part.write_all(b"GET /ping HTTP/1.1\r\n").await.unwrap();
    let mut second = TcpStream::connect(serving.api).await.unwrap();
    send(&mut second, "/ping").await;
    read_until(&mut second, "pong").await;
    second.write_all(b"GET /ping HTTP/1.1\r\n").await.unwrap();
    let mut preface = TcpStream::connect(serving.api).await.unwrap();
    preface.write_all(b"PRI * HT").await.unwrap();
    let mut greeting = TcpStream::connect(serving.api).await.unwrap();
    greeting.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut trickle = TcpStream::connect(serving.api).await.unwrap();
    let mut taken = 0;
    // The same byte for ever: a header without end.
    while trickle.write_all(b"G").await.is_ok() {
        taken += 1;
        assert!(taken < 10_000, "it reads for ever");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for stream in [&mut silent, &mut part, &mut second, &mut preface] {
        assert_eq!(read_to_end(stream).await, "");
    }
    read_to_end(&mut greeting).await;
    assert!(limited_by(&serving, "head-time").await >= before + 6.0);
    assert!(ask(serving.api, "/ping").await.ends_with("pong"));
}

#[tokio::test]
async fn the_last_place_is_given_and_beyond_it_silent_connections_make_room() {
    const MAX: usize = 3;
    let serving = limited(ServerLimits { connections_max: MAX, ..ServerLimits::default() });
    let mut first = TcpStream::connect(serving.api).await.unwrap();
    let others = [busy(&serving).await, busy(&serving).await];
    assert!(ask(serving.api, "/ping").await.ends_with("pong"));
    assert_eq!(read_to_end(&mut first).await, "", "it has never asked anything");
    drop(others);
}

#[tokio::test]
async fn when_all_are_busy_a_new_connection_is_answered_503_at_once() {
    const MAX: usize = 3;
    let serving = limited(ServerLimits { connections_max: MAX, ..ServerLimits::default() });
    let before = limited_by(&serving, "connections").await;
    let mut open = Vec::new();
    for _ in 0..MAX {
        open.push(busy(&serving).await);
    }
    for _ in 0..3 {
        let answer = ask(serving.api, "/ping").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: 1\r\n") && answer.contains("connection: close\r\n"));
    }
    assert!(limited_by(&serving, "connections").await >= before + 3.0);
    // A reader that goes makes room.
    drop(open.pop());
    while !ask(serving.api, "/ping").await.ends_with("pong") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_does_not_read_its_answers_makes_room_long_before_it_is_cut() {
    const MAX: usize = 3;
    let limits = ServerLimits { connections_max: MAX, ..ServerLimits::default() };
    let stall_timeout = Duration::from_secs(3600);
    let serving = Serving::start(&Config { limits, stall_timeout, ..Config::default() });
    let before = limited_by(&serving, "connections-idle").await;
    let stream = busy(&serving).await;
    let mut unread = Vec::new();
    while unread.len() < MAX - 1 {
        let mut socket = TcpStream::connect(serving.api).await.unwrap();
        send(&mut socket, "/large").await;
        read_until(&mut socket, "\r\n\r\n").await;
        unread.push(socket);
    }
    while !ask(serving.api, "/ping").await.ends_with("pong") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(limited_by(&serving, "connections-idle").await > before);
    // The stream goes on.
    let read = stream.try_read(&mut [0; 8]).map_err(|error| error.kind());
    assert_eq!(read, Err(std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn an_address_has_as_many_connections_as_it_may_and_the_ops_port_does_not_count() {
    let limits = ServerLimits { connections_per_address_max: Some(2), ..ServerLimits::default() };
    let serving = limited(limits);
    let before = limited_by(&serving, "connections-per-address").await;
    let _first = busy(&serving).await;
    assert!(ask(serving.api, "/ping").await.ends_with("pong"));
    let second = loop {
        // The connection before may not have left yet.
        let mut second = TcpStream::connect(serving.api).await.unwrap();
        send(&mut second, "/silent").await;
        if read_until(&mut second, "\r\n").await.starts_with("HTTP/1.1 200 ") {
            break second;
        }
    };
    assert!(ask(serving.api, "/ping").await.starts_with("HTTP/1.1 503 "));
    assert!(limited_by(&serving, "connections-per-address").await > before);
    drop(second);
}
