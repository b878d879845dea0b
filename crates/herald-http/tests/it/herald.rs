//! A Herald on a fresh log, and a client that asks it over a real socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use herald_feed::OpenStreams;
use herald_http::{
    api::{Api, ApiSettings},
    lifecycle::Lifecycle,
    metrics::Metrics,
    ops::Ops,
    server::{
        HEAD_BYTES_MAX, IDLE_TIMEOUT, Server, ServerLimits, ServerSettings, Tls, TlsSettings,
    },
};

use herald_types::Draft;
use http::{HeaderMap, Method, StatusCode, Version};
use jiff::Timestamp;
use reqwest::{Body, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    certificates::{Ca, Hello, Pair},
    leaks,
    log::open_log,
    serving::PATIENCE,
};

pub(crate) const MESSAGE: &str = "0f84d750-8ce3-4471-a1ac-ab7a55e609c0";
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server with the API on a fresh log.
pub(crate) struct Herald {
    pub(crate) address: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) streams: OpenStreams,
    pub(crate) client: reqwest::Client,
    scheme: &'static str,
    _dir: tempfile::TempDir,
}

/// Settings of a server whose streams neither beat nor end by themselves while a test runs. The first beat comes at any moment
/// of its interval: of an hour, one test in ten thousand would hit it.
pub(crate) fn quiet() -> ApiSettings {
    let day = Duration::from_secs(86_400);
    ApiSettings { heartbeat: day * 365, stream_max_age: day, ..ApiSettings::default() }
}

impl Herald {
    /// A server that is ready, asked over HTTP/1.1.
    pub(crate) fn start() -> Self {
        Self::start_with(quiet())
    }

    pub(crate) fn start_with(settings: ApiSettings) -> Self {
        let herald = Self::starting(settings);
        herald.open_log();
        herald
    }

    /// The same server asked over cleartext HTTP/2.
    pub(crate) fn over_http2(mut self) -> Self {
        self.client = Self::http2_client();
        self
    }

    pub(crate) fn http1_client() -> reqwest::Client {
        client().build().unwrap()
    }

    pub(crate) fn http2_client() -> reqwest::Client {
        client().http2_prior_knowledge().build().unwrap()
    }

    /// A server that is ready and whose API speaks TLS, which the client of this does not trust.
    pub(crate) async fn start_over_tls(settings: ApiSettings, tls: &TlsSettings) -> Self {
        let _ = Metrics::install();
        let tls = Tls::open(tls).await.unwrap();
        let herald = Self::bound(settings, STALL_TIMEOUT, |server| server.over_tls(tls));
        herald.open_log();
        herald
    }

    /// The same, with little patience for readers that take nothing.
    pub(crate) async fn start_stalling_over_tls(tls: &TlsSettings) -> Self {
        let _ = Metrics::install();
        let (tls, stall_timeout) = (Tls::open(tls).await.unwrap(), Duration::from_millis(300));
        let herald = Self::bound(quiet(), stall_timeout, |server| server.over_tls(tls));
        herald.open_log();
        herald
    }

    /// Asked over TLS with this version of HTTP from now on, by a client that trusts `ca` and may show a certificate.
    pub(crate) fn trust(&mut self, ca: &Ca, pair: Option<&Pair>, version: Version) {
        let alpn = if version == Version::HTTP_2 { ["h2"] } else { ["http/1.1"] };
        let hello = Hello { pair, alpn: &alpn, ..Hello::new(ca) };
        let client = client().tls_backend_preconfigured(hello.config());
        (self.client, self.scheme) = (client.build().unwrap(), "https");
    }

    /// A server whose log is not open yet.
    pub(crate) fn starting(settings: ApiSettings) -> Self {
        Self::bound(settings, STALL_TIMEOUT, |server| server)
    }

    fn bound(
        settings: ApiSettings,
        stall_timeout: Duration,
        set_up: impl FnOnce(Server) -> Server,
    ) -> Self {
        let lifecycle = Lifecycle::new(Duration::from_secs(2));
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(ServerSettings {
            listen: any_port,
            ops_listen: any_port,
            stall_timeout,
            head_bytes_max: HEAD_BYTES_MAX,
            idle_timeout: IDLE_TIMEOUT,
            limits: ServerLimits::default(),
        })
        .unwrap();
        let server = set_up(server);
        let (address, ops_address) = (server.api_address(), server.ops_address());
        let metrics = Metrics::install();
        let streams = OpenStreams::new();
        let api = Arc::new(Api::new(lifecycle.clone(), streams.clone(), settings));
        let ops = Arc::new(Ops::new(lifecycle.clone(), metrics));
        tokio::spawn(server.run(lifecycle.clone(), api, ops));
        let client = client().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { address, ops: ops_address, lifecycle, streams, client, scheme: "http", _dir: dir }
    }

    pub(crate) fn open_log(&self) {
        self.lifecycle.serve(open_log(self._dir.path()));
    }

    /// Appends without HTTP.
    pub(crate) async fn store(&self, drafts: &[Value]) {
        let body = serde_json::to_vec(&json!({ "notifications": drafts })).unwrap();
        let drafts = Draft::parse_request(&body).unwrap();
        self.lifecycle.log().unwrap().append(drafts, Timestamp::now()).await.unwrap();
    }

    /// A request without any header of the page.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}://{}{path}", self.scheme, self.address))
    }

    /// A request with the headers of the page.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).header("api-version", "3").header("nhn-source-system", "Tests, v1")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn poll(&self, query: &str) -> Answer {
        self.get(&format!("/notifications?{query}")).await
    }

    /// The answer to a stream that is refused.
    pub(crate) async fn refused_stream(&self, query: &str) -> Answer {
        let request = self.request(Method::GET, &format!("/notifications/stream?{query}"));
        answer(request.header("accept", EVENT_STREAM)).await
    }

    /// An open stream.
    pub(crate) async fn stream(&self, query: &str) -> Events {
        let request = self.request(Method::GET, &format!("/notifications/stream?{query}"));
        Events::open(request.header("accept", EVENT_STREAM)).await
    }

    pub(crate) async fn post(&self, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = self.request(Method::POST, "/notifications");
        answer(request.header("content-type", content_type).body(body)).await
    }

    /// Appends drafts as JSON, which must work; gives what became of them.
    pub(crate) async fn append(&self, drafts: &[Value]) -> Vec<Value> {
        let body = json!({ "notifications": drafts }).to_string();
        let answer = self.post("application/json", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        answer.notifications()
    }
}

/// A draft with nothing but what is required.
pub(crate) fn draft(her_id: u32) -> Value {
    json!({
        "relatedMessageId": MESSAGE,
        "type": "NewMessage",
        "notificationReceiverHerId": her_id,
    })
}

/// A draft with an id of its own.
pub(crate) fn draft_with_id(her_id: u32, number: u128) -> Value {
    let mut draft = draft(her_id);
    draft["notificationId"] = id(number).into();
    draft
}

pub(crate) fn id(number: u128) -> String {
    uuid::Uuid::from_u128(number).to_string()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn notifications(&self) -> Vec<Value> {
        self.json()["notifications"].as_array().unwrap().clone()
    }

    pub(crate) fn offsets(&self) -> Vec<u64> {
        offsets(&self.notifications())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("(none)", |value| value.to_str().unwrap())
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        serde_json::from_value(self.json()["validationErrors"].clone()).unwrap()
    }
}

pub(crate) fn offsets(notifications: &[Value]) -> Vec<u64> {
    notifications.iter().map(|one| one["offset"].as_u64().unwrap()).collect()
}

/// Sends a request and reads its answer.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let answer = timeout(PATIENCE, request.send()).await.expect("an answer").unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = timeout(PATIENCE, answer.bytes()).await.expect("a body").unwrap();
    let answer = Answer { status, headers, body };
    leaks::answered(&answer);
    answer
}

/// An open stream, read event by event, where an event is its text up to and without the blank line.
pub(crate) struct Events {
    pub(crate) response: Response,
    text: String,
}

impl Events {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = timeout(PATIENCE, request.send()).await.expect("an answer").unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, text: String::new() }
    }

    /// The next event, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return Some(event);
            }
            let piece = timeout(PATIENCE, self.response.chunk()).await.expect("a piece").unwrap();
            match piece {
                Some(piece) => self.text.push_str(std::str::from_utf8(&piece).unwrap()),
                None => {
                    assert_eq!(self.text, "", "a stream ends at an event boundary");
                    return None;
                }
            }
        }
    }

    /// Reads the `connected` event.
    pub(crate) async fn connected(mut self) -> Self {
        assert_eq!(self.next().await.as_deref(), Some("event: connected\ndata:"));
        self
    }

    /// The data of the next `notification` event.
    pub(crate) async fn notification(&mut self) -> String {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if !event.starts_with(": until ") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                return data.expect("a notification has data").to_owned();
            }
        }
    }

    /// The bodies of the next `count` notifications.
    pub(crate) async fn notifications(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.notification().await);
        }
        all
    }
}

/// In a build of the whole workspace another crate gives reqwest TLS, which then wants a provider even for plain HTTP, and
/// gzip, which these tests ask for themselves.
fn client() -> reqwest::ClientBuilder {
    // Another test of the same process may have installed it already.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_gzip()
}
