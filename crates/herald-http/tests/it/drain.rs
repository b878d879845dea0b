use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};

use crate::serving::{Config, PATIENCE, Serving, ask, read_to_end, read_until, send};

#[tokio::test]
async fn a_request_under_way_is_finished() {
    let config = Config { drain: Duration::from_secs(2), ..Config::default() };
    let serving = Serving::start(&config);
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    send(&mut stream, "/slow").await;
    serving.hooks.entered.notified().await;
    serving.lifecycle.stop();
    assert!(ask(serving.api, "/ping").await.starts_with("HTTP/1.1 200 "));
    serving.hooks.go_on.notify_one();
    assert!(read_to_end(&mut stream).await.ends_with("done"));
    let stopped = timeout(PATIENCE, serving.running).await.unwrap().unwrap();
    assert_eq!(stopped.cut, 0);
}

#[tokio::test]
async fn what_has_not_ended_is_cut_before_the_drain_is_over() {
    let config = Config { drain: Duration::from_millis(400), ..Config::default() };
    let serving = Serving::start(&config);
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    send(&mut stream, "/silent").await;
    read_until(&mut stream, "hello\r\n").await;
    serving.lifecycle.stop();
    let stopped = timeout(PATIENCE, serving.running).await.unwrap().unwrap();
    assert_eq!(stopped.cut, 1);
    assert!(!read_to_end(&mut stream).await.contains("0\r\n\r\n"));
}

#[tokio::test]
async fn a_kept_alive_connection_is_answered_once_more_and_closed() {
    let serving = Serving::start(&Config::default());
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    send(&mut stream, "/ping").await;
    read_until(&mut stream, "pong").await;
    serving.lifecycle.stop();
    send(&mut stream, "/ping").await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("pong"), "{answer}");
}

#[tokio::test]
async fn an_idle_server_is_there_for_a_quarter_of_the_drain_and_then_gone() {
    let config = Config { drain: Duration::from_millis(800), ..Config::default() };
    let serving = Serving::start(&config);
    // A connection that says nothing must not hold the stop up.
    let mut silent = TcpStream::connect(serving.api).await.unwrap();
    let drain = serving.lifecycle.stop();
    assert!(ask(serving.api, "/ping").await.starts_with("HTTP/1.1 200 "));
    let stopped = timeout(PATIENCE, serving.running).await.unwrap().unwrap();
    assert_eq!(stopped.cut, 0);
    assert!(tokio::time::Instant::now() >= drain.stream_end_window().start);
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(TcpStream::connect(serving.api).await.is_err());
}
