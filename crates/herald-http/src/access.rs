//! What is counted and logged of each request: never its query, headers or body.

use std::sync::OnceLock;

use http::{Method, Request, Response, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;
use tracing::debug;

use crate::{
    metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS},
    route::Route,
};

const METHODS: [&str; 5] = ["GET", "POST", "HEAD", "OPTIONS", "other"];
/// Herald answers with no others than these.
const STATUSES: [(u16, &str); 18] = [
    (200, "200"),
    (201, "201"),
    (204, "204"),
    (304, "304"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (423, "423"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (0, "other"),
];

/// The counters of a port, each made when it is first needed: making one costs a lookup.
#[derive(Debug, Default)]
pub(crate) struct Access {
    routes: [OfRoute; Route::COUNT],
}

#[derive(Default)]
struct OfRoute {
    seconds: OnceLock<Histogram>,
    requests: [[OnceLock<Counter>; STATUSES.len()]; METHODS.len()],
}

impl std::fmt::Debug for OfRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OfRoute")
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Entry {
    began: Instant,
    method: usize,
    route: Route,
}

impl Entry {
    pub(crate) fn new<B>(request: &Request<B>) -> Self {
        let (method, route) = (method_at(request.method()), Route::of(request.uri().path()));
        Self { began: Instant::now(), method, route }
    }
}

impl Access {
    /// The head of the answer is ready.
    pub(crate) fn answered<B>(&self, entry: &Entry, answer: &Response<B>) {
        let Entry { began, method, route } = *entry;
        let elapsed = began.elapsed();
        let status = answer.status();
        let of_route = &self.routes[route as usize];
        let at = status_at(status);
        let requests = of_route.requests[method][at].get_or_init(|| {
            counter!(
                HTTP_REQUESTS,
                "route" => route.label(),
                "method" => METHODS[method],
                "status" => STATUSES[at].1,
            )
        });
        requests.increment(1);
        let seconds = of_route
            .seconds
            .get_or_init(|| histogram!(HTTP_REQUEST_SECONDS, "route" => route.label()));
        seconds.record(elapsed);
        // What failed is logged where it is decided; this line is for those who look at each request.
        debug!(
            request.id = answer.headers().get("x-request-id").and_then(|id| id.to_str().ok()),
            method = METHODS[method],
            route = route.label(),
            status = status.as_u16(),
            elapsed_ms = elapsed.as_secs_f64() * 1e3,
            "answered"
        );
    }
}

/// The method's place among the labels.
fn method_at(method: &Method) -> usize {
    let at = METHODS.iter().position(|label| *label == method.as_str());
    at.unwrap_or(METHODS.len() - 1)
}

/// The status's place among the labels.
fn status_at(status: StatusCode) -> usize {
    let at = STATUSES.iter().position(|(code, _)| *code == status.as_u16());
    at.unwrap_or(STATUSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_bounded_set() {
        assert_eq!(METHODS[method_at(&Method::GET)], "GET");
        assert_eq!(METHODS[method_at(&Method::from_bytes(b"HERALD").unwrap())], "other");
        assert_eq!(STATUSES[status_at(StatusCode::NOT_FOUND)].1, "404");
        assert_eq!(STATUSES[status_at(StatusCode::IM_A_TEAPOT)].1, "other");
    }
}
