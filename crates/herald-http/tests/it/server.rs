use std::time::Duration;

use bytes::Bytes;
use herald_http::server::{HEAD_BYTES_MAX, HTTP2_STREAMS_MAX, ServerLimits};
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::serving::{Config, LARGE_BYTES, PATIENCE, Serving, ask, read_to_end, read_until, send};

async fn connect_h2(serving: &Serving) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(serving.api).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://test{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn both_versions_are_served_on_one_port() {
    let serving = Serving::start(&Config::default());
    assert!(ask(serving.api, "/ping").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let answer = connect_h2(&serving).await.send_request(get("/ping")).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "pong");
}

#[tokio::test]
async fn a_request_comes_with_the_facts_of_its_connection_over_both_versions() {
    let serving = Serving::start(&Config::default());
    let peer = "Peer { address: 127.0.0.1, is_tls: false, has_client_certificate: false }";
    assert!(ask(serving.api, "/peer").await.ends_with(peer));
    let answer = connect_h2(&serving).await.send_request(get("/peer")).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), peer);
}

#[tokio::test]
async fn a_query_of_1500_her_ids_fits_into_a_head_over_both_versions() {
    let serving = Serving::start(&Config::default());
    let path = format!("/ping?{}Offset=0", "HerIds=2147483647&".repeat(1500));
    assert!(ask(serving.api, &path).await.starts_with("HTTP/1.1 200 "));
    let answer = connect_h2(&serving).await.send_request(get(&path)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

/// The least, the usual and the most that the settings of `herald serve` allow.
const HEADS_BYTES_MAX: [usize; 3] = [32 << 10, HEAD_BYTES_MAX, 1 << 20];

#[tokio::test]
async fn an_http_1_head_may_have_64_kib_or_as_much_as_is_set_and_not_a_byte_more() {
    for head_bytes_max in HEADS_BYTES_MAX {
        let serving = Serving::start(&Config { head_bytes_max, ..Config::default() });
        for (bytes, status) in [(head_bytes_max, "200"), (head_bytes_max + 1, "431")] {
            let (start, end) = ("GET /ping HTTP/1.1\r\nconnection: close\r\nx-long: ", "\r\n\r\n");
            let filling = "x".repeat(bytes - start.len() - end.len());
            let mut stream = TcpStream::connect(serving.api).await.unwrap();
            stream.write_all(format!("{start}{filling}{end}").as_bytes()).await.unwrap();
            let answer = read_until(&mut stream, "\r\n").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes}: {answer}");
        }
    }
}

#[tokio::test]
async fn an_http_2_header_list_may_have_64_kib_or_as_much_as_is_set_and_not_a_byte_more() {
    // A field counts with its name, its value and 32 bytes.
    let pseudo =
        [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/ping")];
    let others: usize = pseudo.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    for head_bytes_max in HEADS_BYTES_MAX {
        let serving = Serving::start(&Config { head_bytes_max, ..Config::default() });
        let room = head_bytes_max - others - ("x-long".len() + 32);
        for (bytes, status) in
            [(room, StatusCode::OK), (room + 1, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)]
        {
            let mut request = get("/ping");
            request.headers_mut().insert("x-long", "x".repeat(bytes).parse().unwrap());
            let answer = connect_h2(&serving).await.send_request(request).await.unwrap();
            assert_eq!(answer.status(), status, "{bytes}");
        }
    }
}

#[tokio::test]
async fn an_http_2_connection_may_have_200_requests_at_once_and_the_next_one_waits() {
    let serving = Serving::start(&Config::default());
    let mut sender = connect_h2(&serving).await;
    let mut open = Vec::new();
    for _ in 0..HTTP2_STREAMS_MAX {
        sender.ready().await.unwrap();
        open.push(sender.send_request(get("/silent")).await.unwrap());
    }
    let next = sender.send_request(get("/ping"));
    tokio::pin!(next);
    assert!(timeout(Duration::from_millis(100), &mut next).await.is_err());
    open.pop();
    let answer = timeout(PATIENCE, next).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_may_come_again() {
    let config = Config { stall_timeout: Duration::from_millis(300), ..Config::default() };
    let mut serving = Serving::start(&config);
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    send(&mut stream, "/endless").await;
    timeout(PATIENCE, serving.ended.recv()).await.expect("the answer is given up");
    // What was on the way arrives, and no proper end behind it.
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("0\r\n\r\n"));
    assert!(ask(serving.api, "/ping").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn an_http_2_stream_that_is_not_read_is_cut_and_its_neighbour_goes_on() {
    let config = Config { stall_timeout: Duration::from_millis(300), ..Config::default() };
    let mut serving = Serving::start(&config);
    let mut sender = connect_h2(&serving).await;
    let mut silent = sender.send_request(get("/silent")).await.unwrap().into_body();
    silent.frame().await.unwrap().unwrap();
    let mut stalled = sender.send_request(get("/endless")).await.unwrap().into_body();
    timeout(PATIENCE, serving.ended.recv()).await.expect("the answer is given up");
    let error = loop {
        match stalled.frame().await.expect("a stream that is cut has no proper end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(!error.is_timeout());
    // `silent` has handed over all it had long ago: that its reader waits is no stall.
    let answer = sender.send_request(get("/ping")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(timeout(Duration::from_millis(600), silent.frame()).await.is_err());
}

#[tokio::test]
async fn a_client_that_closes_is_noticed_while_its_stream_is_silent() {
    let mut serving = Serving::start(&Config::default());
    for reset in [false, true] {
        let mut stream = TcpStream::connect(serving.api).await.unwrap();
        send(&mut stream, "/silent").await;
        read_until(&mut stream, "hello\r\n").await;
        if reset {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        timeout(PATIENCE, serving.ended.recv()).await.expect("the answer is given up");
    }
    let mut sender = connect_h2(&serving).await;
    let body = sender.send_request(get("/silent")).await.unwrap().into_body();
    drop(body);
    timeout(PATIENCE, serving.ended.recv()).await.expect("the answer is given up");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_with_a_stream_is_not() {
    let soon = Duration::from_millis(200);
    let limits = ServerLimits { head_timeout: soon, ..ServerLimits::default() };
    let config = Config { idle_timeout: soon, limits, ..Config::default() };
    let mut serving = Serving::start(&config);
    let mut streaming = TcpStream::connect(serving.api).await.unwrap();
    send(&mut streaming, "/silent").await;
    read_until(&mut streaming, "hello\r\n").await;

    let mut said_nothing = TcpStream::connect(serving.api).await.unwrap();
    assert_eq!(read_to_end(&mut said_nothing).await, "");
    let mut half_a_head = TcpStream::connect(serving.api).await.unwrap();
    half_a_head.write_all(b"GET /ping HTTP/1.1\r\n").await.unwrap();
    read_to_end(&mut half_a_head).await;
    let mut kept_alive = TcpStream::connect(serving.api).await.unwrap();
    send(&mut kept_alive, "/ping").await;
    assert!(read_to_end(&mut kept_alive).await.ends_with("pong"));
    let mut sender = connect_h2(&serving).await;
    sender.send_request(get("/ping")).await.unwrap();
    timeout(PATIENCE, async {
        while sender.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the server closes");

    assert!(serving.ended.try_recv().is_err(), "the stream goes on");
}

#[tokio::test]
async fn an_answer_that_is_still_being_taken_is_not_an_idle_connection() {
    let idle_timeout = Duration::from_millis(100);
    let serving = Serving::start(&Config { idle_timeout, ..Config::default() });
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    send(&mut stream, "/large").await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    tokio::time::sleep(idle_timeout * 5).await;
    let body = read_to_end(&mut stream).await;
    assert_eq!(body.len(), LARGE_BYTES, "{head}");
}

#[tokio::test]
async fn a_request_whose_bytes_come_one_by_one_is_answered_and_half_a_preface_is_closed() {
    let serving = Serving::start(&Config::default());
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    for byte in b"PUT /ping HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(read_to_end(&mut stream).await.ends_with("pong"));
    // One that goes, and one that stays and says nothing more.
    for goes in [true, false] {
        let head_timeout = Duration::from_secs(3);
        let limits = ServerLimits { head_timeout, ..ServerLimits::default() };
        let serving = Serving::start(&Config { limits, ..Config::default() });
        let mut stream = TcpStream::connect(serving.api).await.unwrap();
        stream.write_all(b"PRI * HT").await.unwrap();
        if goes {
            stream.shutdown().await.unwrap();
        }
        read_to_end(&mut stream).await;
    }
}
