//! What is counted and logged of each request: never its query, headers or body.

use http::{Method, Request, Response, StatusCode};
use metrics::{counter, histogram};
use tokio::time::Instant;
use tracing::debug;

use crate::metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS};

/// A request under way.
#[derive(Debug)]
pub(crate) struct Entry {
    began: Instant,
    method: &'static str,
    route: &'static str,
}

impl Entry {
    pub(crate) fn new<B>(request: &Request<B>) -> Self {
        let method = method_label(request.method());
        Self { began: Instant::now(), method, route: route_label(request.uri().path()) }
    }

    /// The head of the answer is ready.
    pub(crate) fn answered<B>(self, answer: &Response<B>) {
        let Self { began, method, route } = self;
        let elapsed = began.elapsed();
        let status = answer.status();
        counter!(HTTP_REQUESTS, "route" => route, "method" => method, "status" => status_label(status))
            .increment(1);
        histogram!(HTTP_REQUEST_SECONDS, "route" => route).record(elapsed);
        let request_id =
            answer.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("");
        let elapsed_ms = elapsed.as_secs_f64() * 1e3;
        let status = status.as_u16();
        // What failed is logged where it is decided; this line is for those who look at each request.
        debug!(request.id = request_id, method, route, status, elapsed_ms, "answered");
    }
}

/// The path as a label: a bounded set, whatever is asked for.
fn route_label(path: &str) -> &'static str {
    match path {
        "/notifications" => "/notifications",
        "/notifications/stream" => "/notifications/stream",
        "/ping" => "/ping",
        "/openapi.json" => "/openapi.json",
        "/metrics" => "/metrics",
        "/health/live" => "/health/live",
        "/health/ready" => "/health/ready",
        _ if path.starts_with("/swagger") => "/swagger",
        _ => "other",
    }
}

/// The method as a label.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// The status as a label; Herald answers with no others than these.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        406 => "406",
        409 => "409",
        413 => "413",
        415 => "415",
        423 => "423",
        429 => "429",
        500 => "500",
        503 => "503",
        code if code < 200 => "1xx",
        code if code < 300 => "2xx",
        code if code < 400 => "3xx",
        code if code < 500 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_bounded_set() {
        assert_eq!(route_label("/notifications"), "/notifications");
        assert_eq!(route_label("/swagger/index.html"), "/swagger");
        assert_eq!(route_label("/notifications/7"), "other");
        assert_eq!(method_label(&Method::from_bytes(b"HERALD").unwrap()), "other");
        assert_eq!(status_label(StatusCode::IM_A_TEAPOT), "4xx");
    }
}
