//! The operations port: health and metrics, never the API.

use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Incoming;
use serde::Serialize;

use crate::{
    body::{Body, Response},
    lifecycle::Lifecycle,
    metrics::Metrics,
    route::{Route, is_get},
    routes::poll::{APPLICATION_JSON, NO_STORE},
    server::{Peer, Routes},
};

/// The format that Prometheus asks for.
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The answer of both health paths.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The operations port's routes.
#[derive(Clone, Debug)]
pub struct Ops {
    lifecycle: Lifecycle,
    metrics: Metrics,
}

impl Ops {
    /// Those that tell of `lifecycle` and `metrics`.
    #[must_use]
    pub const fn new(lifecycle: Lifecycle, metrics: Metrics) -> Self {
        Self { lifecycle, metrics }
    }
}

impl Routes for Ops {
    async fn answer(&self, request: http::Request<Incoming>, _: Peer) -> Response {
        let route = Route::of(request.uri().path());
        if !matches!(route, Route::Live | Route::Ready | Route::Metrics) {
            return status(StatusCode::NOT_FOUND);
        }
        if !is_get(request.method()) {
            let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
            return answer;
        }
        match route {
            // Alive is who answers: a process that must be started again is not ready, and says why there.
            Route::Live => health(StatusCode::OK, &Health { status: "alive", reason: None }),
            Route::Ready => self.ready(),
            _ => {
                let mut answer = Response::new(Body::from(self.metrics.render(&self.lifecycle)));
                answer.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
                answer
            }
        }
    }
}

impl Ops {
    fn ready(&self) -> Response {
        match self.lifecycle.readiness() {
            Ok(()) => {
                health(StatusCode::OK, &Health { status: "ready", reason: self.lifecycle.lacks() })
            }
            Err(why) => {
                let body = Health { status: "not-ready", reason: Some(why.reason()) };
                let mut answer = health(StatusCode::SERVICE_UNAVAILABLE, &body);
                if let Err(unavailable) = self.lifecycle.gate() {
                    let seconds = unavailable.retry_after_seconds();
                    answer.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                answer
            }
        }
    }
}

fn health(status: StatusCode, body: &Health) -> Response {
    let body = serde_json::to_string(body).expect("two texts are always JSON");
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer.headers_mut().insert(CONTENT_TYPE, APPLICATION_JSON);
    answer
}

fn status(status: StatusCode) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}
