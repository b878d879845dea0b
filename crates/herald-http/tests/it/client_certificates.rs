//! Certificates of clients: asked for, verified, and needed for some of what may be asked.

use std::{net::SocketAddr, time::Duration};

use herald_http::{api::ApiSettings, server::TlsSettings};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::{
    certificates::{Ca, Files, Hello, Pair},
    herald::{Herald, answer, draft, quiet},
    serving::{Config, PATIENCE, Serving, read_until, send},
};

const WITHOUT: &str = "Peer { address: 127.0.0.1, is_tls: true, has_client_certificate: false }";
const WITH: &str = "Peer { address: 127.0.0.1, is_tls: true, has_client_certificate: true }";

/// What a server says of a client that shows `pair`, or nothing if it refuses it.
async fn peer(ca: &Ca, pair: Option<&Pair>, address: SocketAddr) -> Option<String> {
    let hello = Hello { pair, ..Hello::new(ca) };
    // In TLS 1.3 a client has ended its handshake before the server has looked at its certificate.
    let mut stream = hello.connect(address).await.ok()?;
    send(&mut stream, "/peer").await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, async {
        while !answer.ends_with(b"}") {
            if stream.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    });
    read.await.expect("an answer or an end").ok()?;
    let text = String::from_utf8(answer).unwrap();
    Some(text.split_once("\r\n\r\n")?.1.to_owned())
}

#[tokio::test]
async fn a_client_may_show_a_certificate_and_a_wrong_one_is_refused() {
    let (ca, clients, others) = (Ca::new("Tests"), Ca::new("Clients"), Ca::new("Others"));
    let files = Files::of(&ca.server(2999));
    let settings = files.settings_with_clients(&clients);
    let serving = Serving::start_over_tls(&Config::default(), &settings).await;
    let peer = async |pair: Option<&Pair>| peer(&ca, pair, serving.api).await;
    assert_eq!(peer(None).await.as_deref(), Some(WITHOUT));
    assert_eq!(peer(Some(&clients.client(2999))).await.as_deref(), Some(WITH));
    // Of another issuer, of another issuer with the same name, expired, and one of a server.
    assert_eq!(peer(Some(&others.client(2999))).await, None);
    assert_eq!(peer(Some(&Ca::new("Clients").client(2999))).await, None);
    assert_eq!(peer(Some(&clients.client(2001))).await, None);
    assert_eq!(peer(Some(&clients.server(2999))).await, None);
    assert_eq!(peer(None).await.as_deref(), Some(WITHOUT));
}

#[tokio::test]
async fn a_server_that_asks_for_none_takes_none_for_verified() {
    let (ca, clients) = (Ca::new("Tests"), Ca::new("Clients"));
    let files = Files::of(&ca.server(2999));
    let serving = Serving::start_over_tls(&Config::default(), &files.settings()).await;
    let peer = peer(&ca, Some(&clients.client(2999)), serving.api).await;
    assert_eq!(peer.as_deref(), Some(WITHOUT));
}

#[tokio::test]
async fn new_issuers_are_taken_and_no_connection_is_resumed_under_the_old_ones() {
    let (ca, old, new) = (Ca::new("Tests"), Ca::new("Clients, old"), Ca::new("Clients, new"));
    let files = Files::of(&ca.server(2999));
    let settings = files.settings_with_clients(&old);
    let settings = TlsSettings { watch_interval: Duration::from_millis(5), ..settings };
    let serving = Serving::start_over_tls(&Config::default(), &settings).await;
    let (old_client, new_client) = (old.client(2999), new.client(2999));
    // One configuration for all its connections, so that it would resume what it may.
    let hello = Hello { pair: Some(&old_client), ..Hello::new(&ca) };
    let connector = hello.connector();
    for _ in 0..2 {
        let mut stream = connector.connect(serving.api).await.unwrap();
        send(&mut stream, "/peer").await;
        read_until(&mut stream, WITH).await;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind, rustls::HandshakeKind::Full);
    }
    files.put("clients.pem", &new.pem);
    while peer(&ca, Some(&new_client), serving.api).await.as_deref() != Some(WITH) {}
    assert_eq!(peer(&ca, Some(&old_client), serving.api).await, None);
    files.put("clients.pem", &format!("{}{}", old.pem, new.pem));
    while peer(&ca, Some(&old_client), serving.api).await.as_deref() != Some(WITH) {}
    assert_eq!(peer(&ca, Some(&new_client), serving.api).await.as_deref(), Some(WITH));
}

#[tokio::test]
async fn without_clients_certificates_a_client_that_comes_back_resumes() {
    let ca = Ca::new("Tests");
    let files = Files::of(&ca.server(2999));
    let serving = Serving::start_over_tls(&Config::default(), &files.settings()).await;
    let connector = Hello::new(&ca).connector();
    for kind in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let mut stream = connector.connect(serving.api).await.unwrap();
        send(&mut stream, "/peer").await;
        read_until(&mut stream, WITHOUT).await;
        assert_eq!(stream.get_ref().1.handshake_kind().unwrap(), kind);
    }
}

#[tokio::test]
async fn an_append_needs_a_certificate_and_nothing_else_does() {
    let (ca, clients) = (Ca::new("Tests"), Ca::new("Clients"));
    let files = Files::of(&ca.server(2999));
    let settings = ApiSettings { append_needs_certificate: true, ..quiet() };
    let tls = files.settings_with_clients(&clients);
    let mut herald = Herald::start_over_tls(settings, &tls).await;
    let body = json!({ "notifications": [draft(1)] }).to_string();

    let client = clients.client(2999);
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        herald.trust(&ca, Some(&client), version);
        let appended = herald.post("application/json", body.clone()).await;
        assert_eq!(appended.status, StatusCode::CREATED, "{}", appended.text());

        herald.trust(&ca, None, version);
        let refused = herald.post("application/json", body.clone()).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let problem = refused.json();
        assert_eq!(problem["type"], "urn:herald:problem:client-certificate-required");
        assert_eq!(problem["errorCode"], 0);
        // Before 406 and 415 are looked at, and the headers of the page.
        let request = herald.bare(Method::POST, "/notifications").header("accept", "image/png");
        let refused = answer(request.header("content-type", "text/plain").body("x")).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);

        assert_eq!(herald.poll("HerIds=1&Offset=0").await.status, StatusCode::OK);
        herald.stream("HerIds=1&Offset=0").await.connected().await;
        for path in ["/ping", "/openapi.json", "/swagger/"] {
            assert_eq!(herald.get(path).await.status, StatusCode::OK, "{path}");
        }
    }
    // But 503 comes first.
    herald.lifecycle.stop();
    let stopping = herald.post("application/json", body).await;
    assert_eq!(stopping.status, StatusCode::SERVICE_UNAVAILABLE);
}
