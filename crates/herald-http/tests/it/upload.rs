//! Bodies that are too much, too slow or cut off: the answer arrives all the same.

use std::time::Duration;

use herald_http::api::{ApiSettings, JSON_BYTES_MAX};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    herald::{Herald, draft, quiet},
    serving::{PATIENCE, read_to_end, read_until},
};

/// Begins an upload and sends `start` of it.
async fn begin(herald: &Herald, headers: &str, start: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(herald.address).await.unwrap();
    let head = format!(
        "POST /notifications HTTP/1.1\r\nhost: test\r\napi-version: 3\r\nnhn-source-system: x\r\n{headers}\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(start).await.unwrap();
    socket
}

const NDJSON: &str = "content-type: application/x-ndjson\r\n";

#[tokio::test]
async fn the_answer_arrives_although_the_client_goes_on_sending() {
    let herald = Herald::start();
    // Refused for its first line, its type, its length, its path: the rest is on its way, and nobody reads the answer
    // before all of it is sent.
    let bytes = 8 * 1024 * 1024;
    for (headers, status) in [
        (NDJSON, "400"),
        ("content-type: text/plain\r\n", "415"),
        ("content-type: application/json\r\ncontent-encoding: br\r\n", "415"),
    ] {
        let headers = format!("{headers}content-length: {bytes}\r\n");
        let mut socket = begin(&herald, &headers, b"{}\n").await;
        let rest = vec![b'\n'; bytes - 3];
        timeout(PATIENCE, socket.write_all(&rest)).await.expect("it is read on").unwrap();
        let answer = read_to_end(&mut socket).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("connection: close\r\n") && answer.ends_with('}'), "{answer}");
    }
}

#[tokio::test]
async fn reading_on_ends_after_16_mib_and_the_connection_closes() {
    let herald = Herald::start();
    let headers = format!("{NDJSON}content-length: 1000000000\r\n");
    let mut socket = begin(&herald, &headers, b"{}\n").await;
    let answer = read_until(&mut socket, "\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (mut reader, mut writer) = socket.into_split();
    let draining = tokio::spawn(async move {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
    });
    let piece = vec![b'\n'; 1 << 20];
    let mut sent = 0_usize;
    // Some is still under way in the system's buffers when the server closes, but by far not all of it.
    while timeout(PATIENCE, writer.write_all(&piece)).await.expect("taken or refused").is_ok() {
        sent += piece.len();
        assert!(sent < 200_000_000, "the server reads on for ever");
    }
    assert!(sent >= 16 * 1024 * 1024, "{sent}");
    timeout(PATIENCE, draining).await.expect("closed").unwrap();
}

#[tokio::test]
async fn an_upload_still_running_when_a_stop_begins_gets_503() {
    for headers in [NDJSON, "content-type: application/json\r\n"] {
        let herald = Herald::start();
        let headers = format!("{headers}expect: 100-continue\r\ncontent-length: 100000\r\n");
        let mut socket = begin(&herald, &headers, b"").await;
        // The server asks for the body, so it is being read.
        read_until(&mut socket, "\r\n\r\n").await;
        socket.write_all(format!("{}\n", draft(1)).as_bytes()).await.unwrap();
        herald.lifecycle.stop();
        let answer = read_until(&mut socket, "}").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("retry-after: ") && answer.contains("problem:stopping"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn whoever_waits_for_100_continue_is_refused_without_sending() {
    let herald = Herald::start();
    let headers = "content-type: text/plain\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n";
    let mut socket = begin(&herald, headers, b"").await;
    let answer = timeout(PATIENCE, read_to_end(&mut socket)).await.expect("closed at once");
    assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    let headers = "content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 2\r\n";
    let mut socket = begin(&herald, headers, b"").await;
    assert!(read_until(&mut socket, "\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    socket.write_all(b"{}").await.unwrap();
    assert!(read_until(&mut socket, "\r\n").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_connection_goes_on_after_an_error_whose_body_was_read() {
    let herald = Herald::start();
    let headers = "content-type: application/json\r\ncontent-length: 2\r\n";
    let mut socket = begin(&herald, headers, b"{}").await;
    assert!(read_until(&mut socket, "}").await.starts_with("HTTP/1.1 400 "));
    socket.write_all(b"GET /ping HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    assert!(read_until(&mut socket, "}").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_body_that_does_not_come_gives_its_room_to_one_that_does() {
    let settings = ApiSettings { uploads_bytes_max: JSON_BYTES_MAX, ..quiet() };
    let herald = Herald::start_with(settings);
    // All the room there is, by a body whose last byte is missing.
    let headers = format!("content-type: application/json\r\ncontent-length: {JSON_BYTES_MAX}\r\n");
    let mut hog = begin(&herald, &headers, &vec![b' '; JSON_BYTES_MAX - 1]).await;
    // The first ones may find room that it has not taken yet.
    while timeout(Duration::from_millis(20), hog.readable()).await.is_err() {
        timeout(PATIENCE, herald.append(&[draft(1)])).await.expect("it has room");
    }
    let answer = read_until(&mut hog, "}").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 5\r\n") && answer.contains("problem:busy"), "{answer}");
}

#[tokio::test]
async fn a_body_that_trickles_ends_when_its_time_is_over() {
    let settings = ApiSettings { upload_timeout: Duration::from_millis(300), ..quiet() };
    let herald = Herald::start_with(settings);
    for headers in [NDJSON, "content-type: application/json\r\n"] {
        let headers = format!("{headers}content-length: 100000\r\n");
        let mut socket = begin(&herald, &headers, b"\n").await;
        let mut sent = 0;
        while sent < 10_000 && socket.write_all(b"\n").await.is_ok() {
            sent += 1;
            let answered = timeout(Duration::from_millis(5), socket.readable()).await;
            if answered.is_ok() {
                break;
            }
        }
        let answer = read_until(&mut socket, "}").await;
        assert!(answer.contains("the body took more than 0 s"), "{answer}");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close\r\n"));
    }
}
