//! `GET /ping`.

use herald_types::wire::time_text;
use http::header;
use jiff::Timestamp;

use crate::{
    api::Api,
    body::{Body, Response},
    openapi::{PlainProblems, schemas},
    problem::Error,
    routes::poll::{APPLICATION_JSON, NO_STORE},
};

/// Ask whether the API answers
///
/// Needs no header.
#[utoipa::path(
    get,
    path = "/ping",
    tag = "Service",
    operation_id = "ping",
    responses(
        (
            status = 200,
            description = "It does",
            body = schemas::Pong,
            content_type = "application/json",
        ),
        PlainProblems,
    )
)]
pub(crate) fn ping(api: &Api) -> Result<Response, Error> {
    api.lifecycle.gate()?;
    let now = time_text(Timestamp::now());
    let body = format!(r#"{{"response":"pong","timestampUtc":"{now}"}}"#);
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, APPLICATION_JSON);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    Ok(response)
}
