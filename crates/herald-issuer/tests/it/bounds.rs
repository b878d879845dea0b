//! What a hostile peer cannot do.

use herald_issuer::{
    BODY_BYTES_MAX, CONNECTION_TIME_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, KEYS_PATH, TOKEN_PATH,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::support::Laptop;

async fn connect(laptop: &Laptop) -> TcpStream {
    TcpStream::connect(laptop.issuer.address()).await.unwrap()
}

/// Sends `request` and reads to the end of the connection.
async fn exchange(laptop: &Laptop, request: &str) -> String {
    let mut stream = connect(laptop).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // What was read before a reset counts as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn a_head_may_be_so_long_and_no_longer() {
    let laptop = Laptop::start().await;
    let head = |len: usize| {
        let head = format!("GET {KEYS_PATH} HTTP/1.1\r\nhost: a\r\nx: ");
        let padding = "x".repeat(len - head.len() - 4);
        format!("{head}{padding}\r\n\r\n")
    };
    assert_eq!(status(&exchange(&laptop, &head(HEAD_BYTES_MAX)).await), "200");
    assert_eq!(status(&exchange(&laptop, &head(HEAD_BYTES_MAX + 1)).await), "431");
}

#[tokio::test]
async fn a_body_may_be_so_long_and_no_longer() {
    let laptop = Laptop::start().await;
    let post = |len: usize| {
        let kind = "content-type: application/x-www-form-urlencoded";
        let head = format!("POST {TOKEN_PATH} HTTP/1.1\r\nhost: a\r\n{kind}");
        format!("{head}\r\ncontent-length: {len}\r\n\r\n{}", "x".repeat(len))
    };
    let taken = exchange(&laptop, &post(BODY_BYTES_MAX)).await;
    assert_eq!(status(&taken), "400");
    assert!(taken.contains("grant_type is missing"), "{taken}");
    let refused = exchange(&laptop, &post(BODY_BYTES_MAX + 1)).await;
    assert_eq!(status(&refused), "413");
    assert!(refused.contains("the body is too large"), "{refused}");
}

#[tokio::test]
async fn a_connection_is_for_one_request() {
    let laptop = Laptop::start().await;
    let get = format!("GET {KEYS_PATH} HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = exchange(&laptop, &format!("{get}{get}")).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_and_other_methods_are_refused() {
    let laptop = Laptop::start().await;
    for (line, expected) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /connect/token/ HTTP/1.1", "404"),
        ("GET /.well-known/../connect/token HTTP/1.1", "404"),
        ("GET /connect/token HTTP/1.1", "405"),
        ("DELETE /connect/token HTTP/1.1", "405"),
        ("POST /.well-known/openid-configuration HTTP/1.1", "405"),
        ("HEAD /.well-known/openid-configuration HTTP/1.1", "200"),
        ("GET /.well-known/openid-configuration?x=y HTTP/1.1", "200"),
        ("nonsense", "400"),
    ] {
        let answer = exchange(&laptop, &format!("{line}\r\nhost: a\r\n\r\n")).await;
        assert_eq!(status(&answer), expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slow_is_cut() {
    let laptop = Laptop::start().await;
    for sent in [
        String::new(),
        "GET ".to_owned(),
        format!("POST {TOKEN_PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nx"),
    ] {
        let begun = Instant::now();
        assert_eq!(exchange(&laptop, &sent).await, "");
        assert!(begun.elapsed() >= CONNECTION_TIME_MAX, "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_connections_wait_until_one_ends() {
    let laptop = Laptop::start().await;
    let get = format!("GET {KEYS_PATH} HTTP/1.1\r\nhost: a\r\n\r\n");
    for (silent, waits) in [(CONNECTIONS_MAX - 1, false), (CONNECTIONS_MAX, true)] {
        let mut open = Vec::new();
        for _ in 0..silent {
            open.push(connect(&laptop).await);
        }
        let begun = Instant::now();
        assert_eq!(status(&exchange(&laptop, &get).await), "200");
        assert_eq!(begun.elapsed() >= CONNECTION_TIME_MAX, waits);
        for stream in &mut open {
            rest(stream).await;
        }
    }
}
