//! What is counted and logged of each request: never its query, headers or body.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use metrics::{Counter, counter};
use tokio::time::Instant;
use tracing::debug;

use crate::{
    metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUEST_SECONDS_HELP, HTTP_REQUESTS, SECONDS_BUCKETS},
    route::Route,
};

const METHODS: [&str; 5] = ["GET", "POST", "HEAD", "OPTIONS", "other"];
/// Herald answers with no others than these.
const STATUSES: [(u16, &str); 19] = [
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
    (431, "431"),
    (500, "500"),
    (503, "503"),
    (0, "other"),
];

/// What is counted in this process, of both ports. Handles are made when they are first needed: making one costs a
/// lookup.
pub(crate) static ACCESS: Access = Access { routes: [const { OfRoute::new() }; Route::COUNT] };

#[derive(Debug)]
pub(crate) struct Access {
    routes: [OfRoute; Route::COUNT],
}

struct OfRoute {
    seconds: Seconds,
    requests: [[OnceLock<Counter>; STATUSES.len()]; METHODS.len()],
}

impl OfRoute {
    const fn new() -> Self {
        let requests = [const { [const { OnceLock::new() }; STATUSES.len()] }; METHODS.len()];
        Self { seconds: Seconds::new(), requests }
    }
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
        of_route.seconds.record(elapsed);
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

impl Access {
    /// The histogram of how long requests took, for each route that had one, as Prometheus reads it.
    pub(crate) fn write_seconds(&self, text: &mut String) {
        text.push_str(&format!(
            "# HELP {HTTP_REQUEST_SECONDS} {HTTP_REQUEST_SECONDS_HELP}\n\
             # TYPE {HTTP_REQUEST_SECONDS} histogram\n"
        ));
        for (route, of_route) in Route::ALL.iter().zip(&self.routes) {
            of_route.seconds.write(HTTP_REQUEST_SECONDS, route.label(), text);
        }
        text.push('\n');
    }
}

/// A histogram of durations: two additions for each. The recorder's own keep every sample until somebody scrapes.
struct Seconds {
    // Relaxed, all: a scrape in the middle of a request may be one off.
    buckets: [AtomicU64; SECONDS_BUCKETS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Seconds {
    const fn new() -> Self {
        let buckets = [const { AtomicU64::new(0) }; SECONDS_BUCKETS.len() + 1];
        Self { buckets, sum_nanos: AtomicU64::new(0) }
    }

    fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SECONDS_BUCKETS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(SECONDS_BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn write(&self, name: &str, route: &str, text: &mut String) {
        let mut count = 0;
        let bounds = SECONDS_BUCKETS.iter().map(ToString::to_string);
        let lines: Vec<String> = bounds
            .chain(["+Inf".to_owned()])
            .zip(&self.buckets)
            .map(|(bound, bucket)| {
                count += bucket.load(Ordering::Relaxed);
                format!("{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {count}\n")
            })
            .collect();
        if count == 0 {
            return;
        }
        text.extend(lines);
        let sum = Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
        text.push_str(&format!(
            "{name}_sum{{route=\"{route}\"}} {sum}\n{name}_count{{route=\"{route}\"}} {count}\n"
        ));
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
    fn a_histogram_counts_each_duration_once_and_in_every_wider_bucket() {
        let seconds = Seconds::new();
        for micros in [50, 100, 101, 20_000_000] {
            seconds.record(Duration::from_micros(micros));
        }
        let mut text = String::new();
        seconds.write("x", "/ping", &mut text);
        for line in [
            "x_bucket{route=\"/ping\",le=\"0.0001\"} 2\n",
            "x_bucket{route=\"/ping\",le=\"0.00025\"} 3\n",
            "x_bucket{route=\"/ping\",le=\"10\"} 3\n",
            "x_bucket{route=\"/ping\",le=\"+Inf\"} 4\n",
            "x_sum{route=\"/ping\"} 20.000251\n",
            "x_count{route=\"/ping\"} 4\n",
        ] {
            assert!(text.contains(line), "{line} {text}");
        }
    }

    #[test]
    fn labels_are_a_bounded_set() {
        assert_eq!(METHODS[method_at(&Method::GET)], "GET");
        assert_eq!(METHODS[method_at(&Method::from_bytes(b"HERALD").unwrap())], "other");
        assert_eq!(STATUSES[status_at(StatusCode::NOT_FOUND)].1, "404");
        assert_eq!(STATUSES[status_at(StatusCode::IM_A_TEAPOT)].1, "other");
    }
}
