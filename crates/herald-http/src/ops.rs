//! The operations port: health and metrics, never the API.

use axum::{
    Router,
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use crate::{lifecycle::Lifecycle, metrics::Metrics};

/// The format that Prometheus asks for.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer of both health paths.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Ops {
    lifecycle: Lifecycle,
    metrics: Metrics,
}

/// The operations port's routes.
pub fn router(lifecycle: Lifecycle, metrics: Metrics) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Ops { lifecycle, metrics })
}

/// Alive is who answers: a process that must be started again is not ready, and says why there.
async fn live() -> Response {
    health(StatusCode::OK, &Health { status: "alive", reason: None })
}

async fn ready(State(ops): State<Ops>) -> Response {
    match ops.lifecycle.readiness() {
        Ok(()) => health(StatusCode::OK, &Health { status: "ready", reason: None }),
        Err(why) => {
            let body = Health { status: "not-ready", reason: Some(why.reason()) };
            let mut answer = health(StatusCode::SERVICE_UNAVAILABLE, &body);
            if let Err(unavailable) = ops.lifecycle.gate() {
                let seconds = unavailable.retry_after_seconds();
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            answer
        }
    }
}

fn health(status: StatusCode, body: &Health) -> Response {
    let body = serde_json::to_string(body).expect("two texts are always JSON");
    (status, [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "application/json")], body)
        .into_response()
}

async fn scrape(State(ops): State<Ops>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], ops.metrics.render(&ops.lifecycle)).into_response()
}
