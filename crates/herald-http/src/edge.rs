//! Around every route of the API: the request id on every answer, problems written, panics answered.

use std::{borrow::Cow, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use herald_types::{problem::ProblemType, wire::time_text, with_causes};
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use jiff::Timestamp;
use metrics::{Counter, counter};
use tracing::{debug, error, warn};

use crate::{
    body::{Body, Response},
    problem::{Error, Problem},
    request_id::{REQUEST_ID_HEADER, RequestIds},
    upload::{Left, Lingering},
};

pub(crate) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// A request of the API: its body is read on when it is dropped.
pub(crate) type Request = http::Request<Lingering<Incoming>>;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Edge {
    ids: RequestIds,
    // One for each type, made once: making one costs a lookup.
    problems: [Counter; ProblemType::ALL.len()],
}

impl Edge {
    pub(crate) fn new() -> Self {
        let problems = ProblemType::ALL.map(|kind| {
            counter!(
                "herald_problems_total",
                "type" => kind.slug(),
                "status" => kind.status().to_string(),
            )
        });
        Self { ids: RequestIds::new(), problems }
    }

    /// Asks `answer`, and finishes what it says.
    pub(crate) async fn answer<F>(
        &self,
        request: http::Request<Incoming>,
        answer: impl FnOnce(Request) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, Error>>,
    {
        let id = self.ids.of(request.headers());
        let uri = request.uri().clone();
        let is_head = request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let (body, left) = Lingering::wrap(body, &parts.headers);
        // HTTP/2 ends a request without its connection, and does not know the header.
        let left = left.filter(|_| parts.version <= Version::HTTP_11);
        let answered = AssertUnwindSafe(answer(Request::from_parts(parts, body)));
        let mut response = match answered.catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => self.write(error, &id, &uri),
            Err(panic) => self.write(Error::Panicked(text_of_panic(panic.as_ref())), &id, &uri),
        };
        if is_head {
            leave_body_out(&mut response);
        }
        if left.as_ref().is_some_and(Left::is_unread) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let headers = response.headers_mut();
        // A browser that is shown an answer takes it for what it says it is.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(REQUEST_ID_HEADER, id);
        response
    }

    /// The answer to what went wrong.
    fn write(&self, error: Error, id: &HeaderValue, uri: &Uri) -> Response {
        let (allow, challenge) = (error.allow(), error.challenge());
        let problem = Problem::from(error);
        let kind = problem.kind;
        if let Some(at) = ProblemType::ALL.iter().position(|other| *other == kind) {
            self.problems[at].increment(1);
        }
        let request_id = id.to_str().unwrap_or_default();
        log(&problem, request_id, uri);
        let retry_after_seconds = problem.retry_after_seconds;
        let timestamp = time_text(Timestamp::now());
        let details = problem.details(uri.path().to_owned(), request_id.to_owned(), timestamp);
        let body = serde_json::to_vec(&details).expect("text always serialises into memory");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(kind.status()).expect("a known status");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// The answer to a HEAD: what a GET would have been answered, its length with it, without the body.
fn leave_body_out(response: &mut Response) {
    if let Some(bytes) = response.body().size_hint().exact()
        && response.status() != StatusCode::NO_CONTENT
    {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(bytes));
    }
    *response.body_mut() = Body::empty();
}

/// One line for each problem; one that the caller made is of no interest unless somebody looks for it.
fn log(problem: &Problem, request_id: &str, uri: &Uri) {
    let (slug, path) = (problem.kind.slug(), &*visible(uri.path()));
    match &problem.cause {
        Some(cause) if problem.kind == ProblemType::Internal => {
            error!(
                request.id = request_id,
                path,
                problem = slug,
                error = with_causes(cause),
                "failed"
            );
        }
        Some(cause) => {
            warn!(
                request.id = request_id,
                path,
                problem = slug,
                error = with_causes(cause),
                "refused"
            );
        }
        None => {
            let reason = problem.reason.as_deref();
            debug!(request.id = request_id, path, problem = slug, reason, "refused");
        }
    }
}

/// A path with everything percent-encoded that is not visible ASCII. hyper lets DEL and all of UTF-8 through, and a terminal
/// or a viewer takes some of it for the end of a line, or for a colour.
fn visible(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Cow::Borrowed(path);
    }
    let encoded = path.bytes().map(|byte| match byte {
        byte if byte.is_ascii_graphic() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    Cow::Owned(encoded.collect())
}

fn text_of_panic(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}
