//! A server with routes that hang, stream and count, and plain sockets to ask it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use herald_http::{
    body::Body,
    lifecycle::Lifecycle,
    metrics::Metrics,
    ops::Ops,
    server::{
        HEAD_BYTES_MAX, IDLE_TIMEOUT, Peer, Routes, Server, ServerLimits, ServerSettings, Stopped,
        Tls, TlsSettings,
    },
};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use crate::log::open_log;

/// The body of `/large`: more than the system takes for a socket that nobody reads.
pub(crate) const LARGE_BYTES: usize = 16 << 20;

/// Longer than anything here may take; never waited for when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a test's server differs from the defaults.
pub(crate) struct Config {
    pub(crate) drain: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) head_bytes_max: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) limits: ServerLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            head_bytes_max: HEAD_BYTES_MAX,
            idle_timeout: IDLE_TIMEOUT,
            limits: ServerLimits::default(),
        }
    }
}

/// A running server.
pub(crate) struct Serving {
    pub(crate) api: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) ended: mpsc::UnboundedReceiver<()>,
    pub(crate) running: JoinHandle<Stopped>,
    _dir: tempfile::TempDir,
}

/// How a test reaches into the routes.
pub(crate) struct Hooks {
    /// `/slow` has been entered.
    pub(crate) entered: Notify,
    /// Lets `/slow` answer.
    pub(crate) go_on: Notify,
    ended: mpsc::UnboundedSender<()>,
}

/// Tells the test when a streaming answer is dropped.
struct Ended(mpsc::UnboundedSender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

impl Serving {
    /// A server with an open log.
    pub(crate) fn start(config: &Config) -> Self {
        Self::starting(config).open_log()
    }

    /// A server with an open log, whose API speaks TLS.
    pub(crate) async fn start_over_tls(config: &Config, settings: &TlsSettings) -> Self {
        let _ = Metrics::install();
        let tls = Tls::open(settings).await.unwrap();
        Self::bound(config, |server| server.over_tls(tls)).open_log()
    }

    /// A server whose log is not open yet.
    pub(crate) fn starting(config: &Config) -> Self {
        Self::bound(config, |server| server)
    }

    fn open_log(self) -> Self {
        self.lifecycle.serve(open_log(self._dir.path()));
        self
    }

    fn bound(config: &Config, set_up: impl FnOnce(Server) -> Server) -> Self {
        let (sender, ended) = mpsc::unbounded_channel();
        let hooks = Arc::new(Hooks { entered: Notify::new(), go_on: Notify::new(), ended: sender });
        let lifecycle = Lifecycle::new(config.drain);
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(ServerSettings {
            listen: any_port,
            ops_listen: any_port,
            stall_timeout: config.stall_timeout,
            head_bytes_max: config.head_bytes_max,
            idle_timeout: config.idle_timeout,
            limits: config.limits,
        })
        .unwrap();
        let server = set_up(server);
        let (api, ops) = (server.api_address(), server.ops_address());
        let ops_routes = Arc::new(Ops::new(lifecycle.clone(), Metrics::install()));
        let running = tokio::spawn(server.run(lifecycle.clone(), Arc::clone(&hooks), ops_routes));
        let dir = tempfile::tempdir().unwrap();
        Self { api, ops, lifecycle, hooks, ended, running, _dir: dir }
    }
}

impl Routes for Hooks {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let body = match request.uri().path() {
            "/ping" => Body::from("pong"),
            "/peer" => Body::from(format!("{peer:?}")),
            "/large" => Body::from(vec![b'.'; LARGE_BYTES]),
            "/slow" => {
                self.entered.notify_one();
                self.go_on.notified().await;
                Body::from("done")
            }
            "/silent" => self.silent(),
            "/endless" => self.endless(),
            _ => {
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::NOT_FOUND;
                return answer;
            }
        };
        Response::new(body)
    }
}

impl Hooks {
    /// One piece, then nothing for ever.
    fn silent(&self) -> Body {
        let first = stream::once(async { Bytes::from_static(b"hello") });
        self.watched(first.chain(stream::pending()))
    }

    /// As much as the reader takes.
    fn endless(&self) -> Body {
        let piece = Bytes::from(vec![b'.'; 16 * 1024]);
        self.watched(stream::repeat_with(move || piece.clone()))
    }

    /// These pieces; the test is told when the answer is dropped.
    fn watched(&self, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        let ended = Ended(self.ended.clone());
        let pieces = pieces.map(move |piece| {
            let _ = &ended;
            Ok::<_, Infallible>(Frame::data(piece))
        });
        Body::new(StreamBody::new(pieces.boxed()))
    }
}

/// Sends a request's head over HTTP/1.1.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// Reads up to and with `end`.
pub(crate) async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Reads until the server closes; an error of the socket counts as that.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        let mut buf = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buf).await {
            bytes.extend_from_slice(&buf[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One request on a connection of its own; the whole answer.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    read_to_end(&mut stream).await
}
