//! Two readings of one connection: what a proxy before the server might take for something else is refused, or means one
//! thing only, and nothing behind a refusal is read as a request.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    herald::{Herald, draft},
    serving::{read_to_end, read_until},
};

/// What would be answered with 404 if it were taken for a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
const PAGE: &str = "api-version: 3\r\nnhn-source-system: x\r\ncontent-type: application/json\r\n";

/// All that the server says to these bytes, until it closes.
async fn said(herald: &Herald, bytes: &str) -> String {
    let mut stream = TcpStream::connect(herald.address).await.unwrap();
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes.as_bytes()).await;
    read_to_end(&mut stream).await
}

/// A POST with these headers and this body, and a request behind it.
fn post(headers: &str, body: &str) -> String {
    format!("POST /notifications HTTP/1.1\r\nhost: test\r\n{PAGE}{headers}\r\n{body}{SMUGGLED}")
}

fn answers(said: &str) -> usize {
    said.matches("HTTP/1.1 ").count()
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_400_and_ends_the_connection() {
    let herald = Herald::start();
    for headers in [
        // Two lengths, of which either could be taken.
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: 2, 3\r\n",
        "content-length: +2\r\n",
        "content-length: 0x2\r\n",
        "content-length: 2 2\r\n",
        "content-length: -1\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length:\r\n",
        // A coding that does not end with chunks.
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        // A line folded, a space before the colon, a line without one, control characters.
        "x-folded: one\r\n two\r\ncontent-length: 2\r\n",
        "content-length : 2\r\n",
        "content-length\r\n",
        " content-length: 2\r\n",
        "x-nul: a\0b\r\ncontent-length: 2\r\n",
        "x-cr: a\rb\r\ncontent-length: 2\r\n",
    ] {
        let said = said(&herald, &post(headers, "{}")).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{headers:?}: {said}");
        assert_eq!(answers(&said), 1, "{headers:?}: {said}");
        // Not a problem of the API: it was never a request.
        assert!(!said.contains("problem+json"), "{headers:?}: {said}");
    }
}

#[tokio::test]
async fn chunks_win_over_a_length_and_the_connection_ends_with_their_request() {
    let herald = Herald::start();
    let body = format!("{{\"notifications\":[{}]}}", draft(1));
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (headers, goes_on) in [
        ("Transfer-Encoding: Chunked\r\n", true),
        ("content-length: 4\r\ntransfer-encoding: chunked\r\n", false),
        ("transfer-encoding: chunked\r\ncontent-length: 4\r\n", false),
        ("transfer-encoding: chunked\r\ncontent-length: 1000000\r\n", false),
    ] {
        let mut stream = TcpStream::connect(herald.address).await.unwrap();
        let head =
            format!("POST /notifications HTTP/1.1\r\nhost: test\r\n{PAGE}{headers}\r\n{chunks}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "]}").await;
        assert!(answer.starts_with("HTTP/1.1 201 "), "{headers:?}: {answer}");
        // What follows the last chunk, and nothing before it, would be the next request.
        let next = "GET /ping HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(next.as_bytes()).await;
        let said = read_to_end(&mut stream).await;
        assert_eq!(said.starts_with("HTTP/1.1 200 "), goes_on, "{headers:?}: {said}");
        assert_eq!(answers(&said), usize::from(goes_on), "{headers:?}: {said}");
    }
}

#[tokio::test]
async fn chunks_that_are_none_end_the_request_and_the_connection() {
    let herald = Herald::start();
    for chunks in [
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "10000000000000002\r\n{}\r\n0\r\n\r\n",
        "2;a=\nb\r\n{}\r\n0\r\n\r\n",
    ] {
        let said = said(&herald, &post("transfer-encoding: chunked\r\n", chunks)).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{chunks:?}: {said}");
        assert_eq!(answers(&said), 1, "{chunks:?}: {said}");
    }
}

#[tokio::test]
async fn an_extension_of_a_chunk_is_skipped_and_bounded() {
    let herald = Herald::start();
    let of = |len: usize| {
        let chunks = format!("2;a={}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(len));
        let close = "transfer-encoding: chunked\r\nconnection: close\r\n";
        post(close, &chunks)
    };
    // `{}` lacks its drafts: it was read.
    let answer = said(&herald, &of(1000)).await;
    assert!(answer.contains("notifications: required"), "{answer}");
    let answer = said(&herald, &of(100_000)).await;
    assert!(answer.contains("the body broke off") && answers(&answer) == 1, "{answer}");
}

#[tokio::test]
async fn a_bare_line_feed_ends_a_line_and_nothing_else() {
    let herald = Herald::start();
    // RFC 9112, section 2.2, allows a server to take it for a line's end; both readings see the same request.
    let bytes = "GET /ping HTTP/1.1\nhost: test\nconnection: close\n\n";
    let answer = said(&herald, bytes).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answers(&answer) == 1, "{answer}");
}

#[tokio::test]
async fn a_head_of_http_1_has_at_most_100_fields() {
    let herald = Herald::start();
    for (count, status) in [(100, "200"), (101, "431")] {
        let fields: String = (1..count).map(|number| format!("x-{number}: y\r\n")).collect();
        let bytes = format!("GET /ping HTTP/1.1\r\nconnection: close\r\n{fields}\r\n{SMUGGLED}");
        let answer = said(&herald, &bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{count}: {answer}");
        assert_eq!(answers(&answer), 1, "{answer}");
    }
}

#[tokio::test]
async fn an_upload_that_is_compressed_is_refused_whatever_it_would_become() {
    let herald = Herald::start();
    // The beginning of a gzip bomb; nothing is decompressed, so there is no more of it than its bytes.
    let bomb = "\u{1f}\u{8}\0".repeat(100_000);
    for encoding in ["gzip", "br", "deflate", "zstd", "identity, gzip", "x-gzip"] {
        let headers = format!("content-encoding: {encoding}\r\ncontent-length: {}\r\n", bomb.len());
        let said = said(&herald, &post(&headers, &bomb)).await;
        assert!(said.starts_with("HTTP/1.1 415 "), "{encoding}: {said}");
        assert!(said.contains("connection: close\r\n") && answers(&said) == 1, "{said}");
    }
}
