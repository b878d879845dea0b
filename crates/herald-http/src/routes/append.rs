//! `POST /notifications`: append, as one JSON body or line by line.

mod answer;
mod lines;

use herald_log::Log;
use herald_types::{Draft, Grant, Violations};
use http::{HeaderMap, request::Parts};
use jiff::Timestamp;

use self::answer::Answer;
pub use self::lines::{
    LINE_BYTES_MAX, LINES_MAX, NDJSON_DRAFTS_MAX, PIECE_BYTES_MAX, PIECE_DRAFTS_MAX,
};
use crate::{
    accept::{self, JSON, NDJSON},
    admission::{Asking, Purpose},
    api::Api,
    body::Response,
    edge::Request,
    extract::{must_accept, page_headers},
    openapi::{AppendProblems, PageHeaders, schemas},
    problem::{Error, Places},
    server::{Peer, counted},
    upload::{Sender, Upload},
};

/// How large a JSON body may be.
pub const JSON_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A larger body is parsed on a thread of its own: it takes milliseconds, and other calls should not wait for it.
const PARSED_INLINE_BYTES_MAX: usize = 128 * 1024;

/// Append notifications
///
/// Stores 1 to 1000 drafts, all or none, as `application/json`, or up to 100,000, one a line, as
/// `application/x-ndjson`. The answer comes when all of them are durable, in the drafts' order. A draft whose
/// `notificationId` is stored already is not stored again: to repeat a request with the same ids is always safe.
#[utoipa::path(
    post,
    path = "/notifications",
    tag = "Notifications",
    operation_id = "appendNotifications",
    params(PageHeaders),
    request_body(
        description = "Drafts: `application/x-ndjson` takes one `Draft` a line, at most 64 KiB each",
        content(
            (schemas::DraftBatch = "application/json"),
            (String = "application/x-ndjson"),
        ),
    ),
    responses(
        (
            status = 201,
            description = "All drafts are stored, in their order",
            body = schemas::AppendAnswer,
            content_type = "application/json",
        ),
        AppendProblems,
    )
)]
pub(crate) async fn append(api: &Api, request: Request, peer: Peer) -> Result<Response, Error> {
    let log = api.lifecycle.gate()?;
    let admitted = api
        .settings
        .admission
        .admit(Purpose::Append, Asking::of(&request, peer), &api.limits)
        .await?;
    let (head, body) = request.into_parts();
    if api.settings.append_needs_certificate && !peer.has_client_certificate {
        return Err(Error::ClientCertificateRequired);
    }
    must_accept(&head.headers, JSON)?;
    let is_lines = content_type(&head.headers)?;
    let sender = match &admitted.client {
        Some(client) => Sender::Client(client.id.as_str().into()),
        None => Sender::Address(counted(peer.address)),
    };
    let mut upload = Upload::new(body, sender, api);
    let answer = if is_lines {
        lines::append(log, &admitted.grant, &head, &mut upload).await?
    } else {
        append_json(log, &admitted.grant, &head, &mut upload).await?
    };
    let mut response = answer.into_response();
    api.name_history(log, response.headers_mut());
    Ok(response)
}

/// Whether the body is NDJSON; otherwise it is JSON.
fn content_type(headers: &HeaderMap) -> Result<bool, Error> {
    if !accept::is_identity(headers) {
        return Err(Error::UnsupportedMediaType(
            "The body must be sent as it is, without Content-Encoding.",
        ));
    }
    let is_lines = accept::is_content_type(headers, NDJSON);
    if is_lines || accept::is_content_type(headers, JSON) {
        Ok(is_lines)
    } else {
        Err(Error::UnsupportedMediaType(
            "Content-Type must be application/json or application/x-ndjson.",
        ))
    }
}

async fn append_json(
    log: &Log,
    grant: &Grant,
    head: &Parts,
    upload: &mut Upload,
) -> Result<Answer, Error> {
    let body = upload.all(JSON_BYTES_MAX).await?;
    let mut violations = Violations::new();
    page_headers(&head.headers, &mut violations);
    let drafts = match parse(body).await {
        Ok(drafts) => Some(drafts),
        Err(more) => {
            violations.add_all("", &more);
            None
        }
    };
    let drafts = violations.none_or(drafts).map_err(Error::Invalid)?;
    grant.check(drafts.iter().map(|draft| draft.receiver))?;
    let mut answer = Answer::new();
    let appended = log.append(drafts, Timestamp::now()).await;
    let appended = appended.map_err(|source| Error::Append { source, places: Places::Array })?;
    answer.add(&appended);
    Ok(answer)
}

async fn parse(body: Vec<u8>) -> Result<Vec<Draft>, Violations> {
    if body.len() <= PARSED_INLINE_BYTES_MAX {
        return Draft::parse_request(&body);
    }
    let parsed = tokio::task::spawn_blocking(move || Draft::parse_request(&body)).await;
    parsed.expect("parsing does not panic")
}
