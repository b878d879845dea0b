//! Where a connection of HTTP/1.1 becomes a stream, over plain sockets: what stands before it, what comes behind it, and
//! how it ends.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    herald::{Herald, draft},
    serving::{PATIENCE, read_to_end, read_until},
};

const HEADERS: &str = "host: herald\r\napi-version: 3\r\nnhn-source-system: Tests, v1\r\n";

fn get(path: &str, version: &str) -> String {
    let accept = "accept: text/event-stream, application/json\r\n";
    format!("GET {path} HTTP/{version}\r\n{HEADERS}{accept}\r\n")
}

fn stream(offset: u64) -> String {
    get(&format!("/notifications/stream?HerIds=1&Offset={offset}"), "1.1")
}

async fn connect(herald: &Herald, requests: &str) -> TcpStream {
    let mut socket = TcpStream::connect(herald.address).await.unwrap();
    socket.write_all(requests.as_bytes()).await.unwrap();
    socket
}

/// Reads an answer with a length; gives its body.
async fn whole_answer(socket: &mut TcpStream) -> String {
    let head = read_until(socket, "\r\n\r\n").await;
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; len.parse().unwrap()];
    socket.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

async fn until_no_stream_is_open(herald: &Herald) {
    let gone = async {
        while herald.streams.count() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the stream is forgotten");
}

#[tokio::test]
async fn a_stream_asked_for_together_with_a_poll_comes_behind_its_answer() {
    let herald = Herald::start();
    herald.append(&[draft(1)]).await;
    let poll = get("/notifications?HerIds=1&Offset=0", "1.1");
    let mut socket = connect(&herald, &format!("{poll}{poll}{}", stream(0))).await;
    for _ in 0..2 {
        assert!(whole_answer(&mut socket).await.ends_with("\"offset\":1}]}"));
    }
    let head = read_until(&mut socket, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for header in ["content-type: text/event-stream", "transfer-encoding: chunked", "date: "] {
        assert_eq!(head.matches(header).count(), 1, "{header}: {head}");
    }
    read_until(&mut socket, "event: connected\ndata:\n\n\r\n").await;
    read_until(&mut socket, "\"offset\":1}\n\n\r\n").await;
    herald.append(&[draft(1)]).await;
    read_until(&mut socket, "\"offset\":2}\n\n\r\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_behind_a_page_that_is_not_taken_yet_cuts_nothing_of_it() {
    let herald = Herald::start();
    let mut large = draft(1);
    large["description"] = "x".repeat(1024).into();
    for _ in 0..8 {
        herald.append(&vec![large.clone(); 1000]).await;
    }
    let page = get("/notifications?HerIds=1&Offset=0&NotificationsToFetch=1000", "1.1");
    // More than the system takes for a socket that nobody reads.
    let mut socket = connect(&herald, &format!("{}{}", page.repeat(6), stream(7999))).await;
    sleep(Duration::from_millis(100)).await;
    for _ in 0..6 {
        let body = timeout(PATIENCE, whole_answer(&mut socket)).await.unwrap();
        assert!(body.ends_with("\"offset\":1000}]}"), "the page is whole");
    }
    read_until(&mut socket, "\"offset\":8000}\n\n\r\n").await;
}

#[tokio::test]
async fn a_stream_of_http_1_0_has_no_chunks() {
    let herald = Herald::start();
    herald.append(&[draft(1)]).await;
    let path = "/notifications/stream?HerIds=1&Offset=0";
    let mut socket = connect(&herald, &get(path, "1.0")).await;
    let head = read_until(&mut socket, "\r\n\r\n").await;
    assert!(!head.contains("transfer-encoding"), "{head}");
    let events = read_until(&mut socket, "\"offset\":1}\n\n").await;
    assert!(events.starts_with("event: connected\ndata:\n\nid: 1\n"), "{events}");
}

#[tokio::test]
async fn what_a_reader_says_behind_its_request_does_not_disturb_its_stream() {
    let herald = Herald::start();
    let mut socket = connect(&herald, &stream(0)).await;
    read_until(&mut socket, "event: connected\ndata:\n\n\r\n").await;
    socket.write_all(&[b'x'; 100_000]).await.unwrap();
    herald.append(&[draft(1)]).await;
    read_until(&mut socket, "\"offset\":1}\n\n\r\n").await;
}

#[tokio::test]
async fn a_reader_that_will_say_nothing_more_is_forgotten() {
    let herald = Herald::start();
    let mut socket = connect(&herald, &stream(0)).await;
    read_until(&mut socket, "event: connected\ndata:\n\n\r\n").await;
    assert_eq!(herald.streams.count(), 1);
    socket.shutdown().await.unwrap();
    until_no_stream_is_open(&herald).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_is_cut_at_the_end_of_a_stop() {
    let herald = Herald::start();
    let mut large = draft(1);
    large["description"] = "x".repeat(1024).into();
    for _ in 0..8 {
        herald.append(&vec![large.clone(); 1000]).await;
    }
    let mut socket = connect(&herald, &stream(0)).await;
    read_until(&mut socket, "event: connected\ndata:\n\n\r\n").await;
    herald.lifecycle.stop();
    until_no_stream_is_open(&herald).await;
    let rest = read_to_end(&mut socket).await;
    assert!(!rest.ends_with("0\r\n\r\n"), "what is cut has no proper end");
}
