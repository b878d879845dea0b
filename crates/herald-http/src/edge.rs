//! The outermost layer: the request id on every answer, problems filled in and written, panics answered.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{body::Body, response::Response};
use futures_util::{FutureExt, future::CatchUnwind};
use herald_types::{problem::ProblemType, wire::time_text};
use http::{HeaderValue, Method, Request, Uri, Version, header};
use jiff::Timestamp;
use metrics::{Counter, counter};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::{debug, error, warn};

use crate::{
    problem::{Error, Problem},
    request_id::{REQUEST_ID_HEADER, RequestIds},
    upload::{Left, Lingering},
};

pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Wraps a whole router.
#[derive(Clone, Debug)]
pub(crate) struct EdgeLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ids: RequestIds,
    // One for each type, made once: making one costs a lookup.
    problems: [Counter; ProblemType::ALL.len()],
}

impl EdgeLayer {
    pub(crate) fn new() -> Self {
        let problems = ProblemType::ALL.map(|kind| {
            counter!(
                "herald_problems_total",
                "type" => kind.slug(),
                "status" => kind.status().to_string(),
            )
        });
        Self(Arc::new(Shared { ids: RequestIds::new(), problems }))
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, shared: Arc::clone(&self.0) }
    }
}

/// The layer around a router.
#[derive(Clone, Debug)]
pub(crate) struct Edge<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = EdgeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let id = self.shared.ids.of(request.headers());
        let uri = request.uri().clone();
        let is_head = request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let (body, left) = Lingering::wrap(body, &parts.headers);
        // HTTP/2 ends a request without its connection, and does not know the header.
        let left = left.filter(|_| parts.version <= Version::HTTP_11);
        let inner = self.inner.call(Request::from_parts(parts, body));
        EdgeFuture {
            inner: AssertUnwindSafe(inner).catch_unwind(),
            shared: Arc::clone(&self.shared),
            id: Some(id),
            uri,
            is_head,
            left,
        }
    }
}

pin_project! {
    pub(crate) struct EdgeFuture<F> {
        #[pin]
        inner: CatchUnwind<AssertUnwindSafe<F>>,
        shared: Arc<Shared>,
        id: Option<HeaderValue>,
        uri: Uri,
        is_head: bool,
        left: Option<Left>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for EdgeFuture<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.inner.poll(cx)) {
            Ok(Ok(response)) => response,
            Err(panic) => axum::response::IntoResponse::into_response(Error::Panicked(
                text_of_panic(panic.as_ref()),
            )),
        };
        let id = this.id.take().expect("a future is not polled after it is ready");
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let body = this.shared.write(&mut response, problem, &id, this.uri);
            if !*this.is_head {
                *response.body_mut() = Body::from(body);
            }
        }
        if let Some(allow) = response.headers_mut().get_mut(header::ALLOW) {
            // The router does not know that every path answers OPTIONS.
            let mut methods = allow.as_bytes().to_vec();
            methods.extend_from_slice(b",OPTIONS");
            *allow = HeaderValue::from_bytes(&methods).expect("names of methods");
        }
        if this.left.as_ref().is_some_and(Left::is_unread) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
        Poll::Ready(Ok(response))
    }
}

impl Shared {
    /// Writes the head of `problem`'s answer; gives its body.
    fn write(
        &self,
        response: &mut Response,
        problem: Problem,
        id: &HeaderValue,
        uri: &Uri,
    ) -> Vec<u8> {
        let kind = problem.kind;
        if let Some(at) = ProblemType::ALL.iter().position(|other| *other == kind) {
            self.problems[at].increment(1);
        }
        let request_id = id.to_str().unwrap_or_default();
        log(&problem, request_id, uri);
        let timestamp = time_text(Timestamp::now());
        let details = problem.details(uri.path().to_owned(), request_id.to_owned(), timestamp);
        let body = serde_json::to_vec(&details).expect("text always serialises into memory");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        body
    }
}

/// One line for each problem; one that the caller made is of no interest unless somebody looks for it.
fn log(problem: &Problem, request_id: &str, uri: &Uri) {
    let (slug, path) = (problem.kind.slug(), uri.path());
    match &problem.cause {
        Some(cause) if problem.kind == ProblemType::Internal => {
            error!(request.id = request_id, path, problem = slug, error = chain(cause), "failed");
        }
        Some(cause) => {
            warn!(request.id = request_id, path, problem = slug, error = chain(cause), "refused");
        }
        None => debug!(request.id = request_id, path, problem = slug, "refused"),
    }
}

/// An error with its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn text_of_panic(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}
