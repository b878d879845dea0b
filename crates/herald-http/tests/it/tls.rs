//! TLS on the API's port: versions, files that change, and what ends a connection.

use std::time::Duration;

use bytes::Bytes;
use herald_http::{
    metrics::Metrics,
    server::{ServerLimits, TLS_FILE_BYTES_MAX, Tls, TlsSettings},
};
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    certificates::{Ca, Files, Hello, der, shown},
    herald::{Herald, draft, quiet},
    serving::{Config, PATIENCE, Serving, ask, read_to_end, read_until, send},
};

const PEER: &str = "Peer { address: 127.0.0.1, is_tls: true, has_client_certificate: false }";

fn often(settings: TlsSettings) -> TlsSettings {
    TlsSettings { watch_interval: Duration::from_millis(5), ..settings }
}

/// The value of a metric of this process, which has one server.
fn metric(serving: &Serving, name: &str) -> f64 {
    let text = Metrics::install().render(&serving.lifecycle);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

async fn until(condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, met).await.expect("it comes to this");
}

#[tokio::test]
async fn alpn_says_which_http_over_both_versions_of_tls() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let serving = Serving::start_over_tls(&Config::default(), &files.settings()).await;
    for (version, protocol) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        let versions = [version];
        for alpn in [&[][..], &["http/1.1"], &["http/1.1", "h2"], &["h2"]] {
            let hello = Hello { versions: &versions, alpn, ..Hello::new(&ca) };
            let mut stream = hello.connect(serving.api).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(format!("{:?}", session.protocol_version().unwrap()), protocol);
            if session.alpn_protocol() == Some(b"h2") {
                let io = TokioIo::new(stream);
                let (mut sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(connection);
                let request = Request::get("https://localhost/peer").body(Empty::<Bytes>::new());
                let answer = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(answer.version(), Version::HTTP_2);
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), PEER);
            } else {
                send(&mut stream, "/peer").await;
                let answer = read_until(&mut stream, PEER).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            }
        }
    }
    // Whoever speaks another protocol than both is refused in the handshake.
    let hello = Hello { alpn: &["spdy/3"], ..Hello::new(&ca) };
    hello.connect(serving.api).await.unwrap_err();
    assert!(ask(serving.ops, "/health/ready").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn what_is_no_tls_of_today_is_refused_without_harm() {
    // A ClientHello of TLS 1.1, without extensions.
    let mut old = vec![22, 3, 1, 0, 47, 1, 0, 0, 43, 3, 2];
    old.extend([7; 32]);
    old.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    let plain = b"GET /ping HTTP/1.1\r\nhost: test\r\n\r\n".to_vec();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let huge = [&[22, 3, 3, 0xff, 0xff][..], &[0; 65_535]].concat();

    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let serving = Serving::start_over_tls(&Config::default(), &files.settings()).await;
    let mut refused = 0.0;
    for noise in [&old, &plain, &preface, &huge, &vec![0; 100]] {
        let mut stream = TcpStream::connect(serving.api).await.unwrap();
        // The server may have closed before it has all.
        let _ = stream.write_all(noise).await;
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("HTTP"), "{answer}");
        if noise == &old {
            // An alert, fatal: handshake_failure.
            assert_eq!(answer.as_bytes(), [21, 3, 3, 0, 2, 2, 40]);
        }
        refused += 1.0;
        assert_eq!(metric(&serving, "herald_tls_handshakes_total{outcome=\"failed\"}"), refused);
    }
    drop(TcpStream::connect(serving.api).await.unwrap());
    until(async || metric(&serving, "herald_tls_handshakes_total{outcome=\"gone\"}") == 1.0).await;
    Hello::new(&ca).connect(serving.api).await.unwrap();
    until(async || metric(&serving, "herald_tls_handshakes_total{outcome=\"done\"}") == 1.0).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_ended() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let limits =
        ServerLimits { head_timeout: Duration::from_millis(100), ..ServerLimits::default() };
    let config = Config { limits, ..Config::default() };
    let serving = Serving::start_over_tls(&config, &files.settings()).await;
    for half in [&b""[..], &[22, 3, 1, 0, 47, 1]] {
        let mut stream = TcpStream::connect(serving.api).await.unwrap();
        stream.write_all(half).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "");
    }
    assert_eq!(metric(&serving, "herald_tls_handshakes_total{outcome=\"slow\"}"), 2.0);
    assert_eq!(metric(&serving, "herald_limited_total{limit=\"head-time\"}"), 2.0);
    // The head of the first request has what the handshake has left of the time.
    let mut stream = Hello::new(&ca).connect(serving.api).await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0; 16])).await.unwrap().unwrap(), 0);
    assert_eq!(metric(&serving, "herald_limited_total{limit=\"head-time\"}"), 3.0);
}

#[tokio::test]
async fn who_finds_no_place_over_tls_gets_no_plain_answer() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let limits = ServerLimits { connections_max: 1, ..ServerLimits::default() };
    let config = Config { limits, ..Config::default() };
    let serving = Serving::start_over_tls(&config, &files.settings()).await;
    let mut busy = Hello::new(&ca).connect(serving.api).await.unwrap();
    send(&mut busy, "/silent").await;
    read_until(&mut busy, "hello").await;
    let mut turned_away = TcpStream::connect(serving.api).await.unwrap();
    assert_eq!(read_to_end(&mut turned_away).await, "");
}

#[tokio::test]
async fn a_stream_goes_on_under_a_new_certificate_that_new_connections_see() {
    let ca = Ca::new("Tests");
    let (old, new) = (ca.server(2998), ca.server(2999));
    let files = Files::of(&old);
    let herald = Herald::start_over_tls(quiet(), &often(files.settings())).await;
    let hello = Hello::new(&ca);
    let mut stream = hello.connect(herald.address).await.unwrap();
    assert_eq!(shown(&stream), &der(&old));
    stream.write_all(stream_request(0).as_bytes()).await.unwrap();
    read_until(&mut stream, "event: connected\ndata:\n\n\r\n").await;

    files.write(&new);
    until(async || shown(&hello.connect(herald.address).await.unwrap()) == &der(&new)).await;

    herald.store(&[draft(1)]).await;
    read_until(&mut stream, "\"offset\":1}\n\n\r\n").await;
    // The end of a stream is one of TLS too: nothing was cut off.
    herald.lifecycle.stop();
    read_until(&mut stream, "\r\n0\r\n\r\n").await;
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn broken_files_leave_the_last_good_certificate_in_force() {
    let ca = Ca::new("Tests");
    let (old, new, other) = (ca.server(2998), ca.server(2999), ca.server(2999));
    let files = Files::of(&old);
    let serving = Serving::start_over_tls(&Config::default(), &often(files.settings())).await;
    let refused = || metric(&serving, "herald_tls_reloads_total{outcome=\"refused\"}");
    let expiry = || metric(&serving, "herald_tls_certificate_expiry_timestamp_seconds");
    let hello = Hello::new(&ca);
    assert_eq!(expiry(), 32_472_057_600.0);

    let half = &new.certificate[..new.certificate.len() / 2];
    let broken: [(&str, &str); 4] = [
        ("cert.pem", half),
        ("cert.pem", &new.certificate),
        ("key.pem", &other.key),
        ("key.pem", ""),
    ];
    for (times, (name, text)) in (1_u8..).zip(broken) {
        files.put(name, text);
        // Each is said once, however often it is looked at.
        until(async || refused() >= f64::from(times)).await;
        let seen = hello.connect(serving.api).await.unwrap();
        assert_eq!(shown(&seen), &der(&old), "{name}");
        assert_eq!(refused(), f64::from(times), "{name}");
    }
    std::fs::remove_file(files.path("key.pem")).unwrap();
    until(async || refused() >= 5.0).await;
    assert_eq!(shown(&hello.connect(serving.api).await.unwrap()), &der(&old));
    assert_eq!(refused(), 5.0);

    files.put("key.pem", &new.key);
    until(async || shown(&hello.connect(serving.api).await.unwrap()) == &der(&new)).await;
    assert_eq!(metric(&serving, "herald_tls_reloads_total{outcome=\"loaded\"}"), 1.0);
    assert_eq!(expiry(), 32_503_593_600.0);
}

#[tokio::test]
async fn at_start_broken_files_are_an_error_that_names_them_and_not_their_content() {
    let ca = Ca::new("Tests");
    let (one, other) = (ca.server(2999), ca.server(2999));
    let half = &one.certificate[..one.certificate.len() / 2];
    let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let cut = format!("-----BEGIN PRIVATE KEY-----\n{}", &one.key[40..80]);
    for (name, text, why) in [
        ("cert.pem", "", "cert.pem: there is no certificate in it"),
        ("cert.pem", &one.key, "cert.pem: there is no certificate in it"),
        ("cert.pem", half, "cert.pem: it ends in the middle of a PEM section"),
        ("cert.pem", der, "cert.pem: its first certificate is not one of X.509"),
        ("cert.pem", &other.certificate, "cert.pem"),
        ("key.pem", "", "key.pem: there is no private key in it"),
        ("key.pem", &one.certificate, "key.pem: there is no private key in it"),
        ("key.pem", key, "key.pem: its key is of no kind that can be used, or broken"),
        ("key.pem", &cut, "key.pem: it ends in the middle of a PEM section"),
        ("key.pem", &other.key, "key.pem is not the key of the certificate in "),
        ("clients.pem", "", "clients.pem: there is no certificate in it"),
        ("clients.pem", der, "clients.pem: a certificate in it is broken"),
    ] {
        let files = Files::of(&one);
        let settings = files.settings_with_clients(&ca);
        files.put(name, text);
        let error = Tls::open(&settings).await.unwrap_err().to_string();
        assert!(error.contains(why), "{name} {text}: {error}");
        assert!(!error.contains(&one.key[40..80]), "{error}");
    }
    for name in ["cert.pem", "key.pem", "clients.pem"] {
        let files = Files::of(&one);
        let settings = files.settings_with_clients(&ca);
        std::fs::remove_file(files.path(name)).unwrap();
        let error = Tls::open(&settings).await.unwrap_err().to_string();
        assert!(error.starts_with("could not read ") && error.ends_with(name), "{error}");
    }
}

#[tokio::test]
async fn a_file_may_have_a_mebibyte_and_not_a_byte_more() {
    let ca = Ca::new("Tests");
    let pair = ca.server(2999);
    let files = Files::of(&pair);
    let mut large = format!("{}\n", pair.certificate);
    large.push_str(&"#".repeat(TLS_FILE_BYTES_MAX - large.len()));
    files.put("cert.pem", &large);
    Tls::open(&files.settings()).await.unwrap();
    files.put("cert.pem", &format!("{large}#"));
    Tls::open(&files.settings()).await.unwrap_err();
}

#[tokio::test]
async fn a_reader_over_tls_that_takes_nothing_is_cut() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let config = Config { stall_timeout: Duration::from_millis(300), ..Config::default() };
    for alpn in ["http/1.1", "h2"] {
        let mut serving = Serving::start_over_tls(&config, &files.settings()).await;
        let alpn = [alpn];
        let hello = Hello { alpn: &alpn, ..Hello::new(&ca) };
        let mut stream = hello.connect(serving.api).await.unwrap();
        if alpn == ["h2"] {
            let io = TokioIo::new(stream);
            let (mut sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://localhost/endless").body(Empty::<Bytes>::new());
            let _body = sender.send_request(request.unwrap()).await.unwrap().into_body();
            timeout(PATIENCE, serving.ended.recv()).await.expect("the answer is given up");
        } else {
            send(&mut stream, "/endless").await;
            timeout(PATIENCE, serving.ended.recv()).await.expect("the answer is given up");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_over_tls_that_nobody_reads_is_cut() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let herald = Herald::start_stalling_over_tls(&files.settings()).await;
    let mut large = draft(1);
    large["description"] = "x".repeat(1024).into();
    for _ in 0..12 {
        herald.store(&vec![large.clone(); 1000]).await;
    }
    let mut stream = Hello::new(&ca).connect(herald.address).await.unwrap();
    stream.write_all(stream_request(0).as_bytes()).await.unwrap();
    read_until(&mut stream, "event: connected\ndata:\n\n\r\n").await;
    assert_eq!(herald.streams.count(), 1);
    until(async || herald.streams.count() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_over_tls_that_comes_late_gets_all_of_it_and_waits_for_no_heartbeat() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let herald = Herald::start_over_tls(quiet(), &files.settings()).await;
    let mut large = draft(1);
    large["description"] = "x".repeat(1024).into();
    for _ in 0..4 {
        herald.store(&vec![large.clone(); 1000]).await;
    }
    // Streams are read for only as far as their sockets take it: some end in what TLS keeps for them.
    let mut streams = Vec::new();
    for offset in (0..4000).step_by(200) {
        let mut stream = Hello::new(&ca).connect(herald.address).await.unwrap();
        stream.write_all(stream_request(offset).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        let all = async {
            let mut all = Vec::new();
            while !all.ends_with(b"\"offset\":4000}\n\n\r\n") {
                assert!(stream.read_buf(&mut all).await.unwrap() > 0);
            }
        };
        timeout(PATIENCE, all).await.expect("all of it comes");
    }
}

#[tokio::test]
async fn a_reader_over_tls_that_goes_away_is_noticed_however_it_goes() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let herald = Herald::start_over_tls(quiet(), &files.settings()).await;
    for says_so in [true, false] {
        let mut stream = Hello::new(&ca).connect(herald.address).await.unwrap();
        stream.write_all(stream_request(0).as_bytes()).await.unwrap();
        read_until(&mut stream, "event: connected\ndata:\n\n\r\n").await;
        assert_eq!(herald.streams.count(), 1);
        if says_so {
            stream.shutdown().await.unwrap();
        } else {
            drop(stream.into_inner().0);
        }
        until(async || herald.streams.count() == 0).await;
    }
}

#[tokio::test]
async fn an_idle_connection_over_tls_is_closed_with_an_end_of_its_own() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let config = Config { idle_timeout: Duration::from_millis(200), ..Config::default() };
    let serving = Serving::start_over_tls(&config, &files.settings()).await;
    let mut stream = Hello::new(&ca).connect(serving.api).await.unwrap();
    send(&mut stream, "/ping").await;
    read_until(&mut stream, "pong").await;
    let end = timeout(PATIENCE, stream.read(&mut [0; 16])).await.expect("the server closes");
    assert_eq!(end.unwrap(), 0);
}

fn stream_request(offset: u64) -> String {
    format!(
        "GET /notifications/stream?HerIds=1&Offset={offset} HTTP/1.1\r\nhost: localhost\r\n\
         api-version: 3\r\nnhn-source-system: Tests, v1\r\naccept: text/event-stream\r\n\r\n"
    )
}
