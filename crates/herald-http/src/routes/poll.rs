//! `GET /notifications`: one page.

use bytes::Bytes;
use herald_feed::Cursor;
use herald_types::{PollQuery, Violations, wire};
use http::{HeaderMap, HeaderValue, header};

use crate::{
    accept::JSON,
    admission::{Asking, Purpose},
    api::{self, Api},
    body::{Body, Response},
    compression,
    edge::Request,
    extract::{must_accept, page_headers},
    openapi::{PageHeaders, PollParameters, ReadProblems, schemas},
    problem::Error,
    server::Peer,
};

pub(crate) const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");
/// How many headers a page's answer has, with what is added around it.
const ANSWER_HEADERS: usize = 12;
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Fetch notifications (polling)
///
/// Answers with the notifications of these receivers behind `Offset`, the lowest offset first. An empty array means
/// that nothing is new. Go on with the offset of the last one, or with the header `herald-until`, which also moves
/// the cursor of receivers for whom nothing has come.
#[utoipa::path(
    get,
    path = "/notifications",
    tag = "Notifications",
    operation_id = "pollNotifications",
    params(PageHeaders, PollParameters),
    responses(
        (
            status = 200,
            description = "A page of notifications, ascending by offset",
            body = schemas::NotificationPage,
            content_type = "application/json",
        ),
        ReadProblems,
    )
)]
pub(crate) async fn poll(api: &Api, request: Request, peer: Peer) -> Result<Response, Error> {
    let log = api.lifecycle.gate()?;
    let headers = request.headers();
    let admitted = api
        .settings
        .admission
        .admit(Purpose::Read, Asking::of(&request, peer), &api.limits)
        .await?;
    must_accept(headers, JSON)?;
    let query = parse(&request)?;
    let receivers = admitted.grant.narrow(query.her_ids);
    let admission = &api.settings.admission;
    let receivers =
        receivers.map_err(|refused| admission.refusal(refused, admitted.client.as_ref()))?;
    let cursor = Cursor::new(receivers, query.after);
    let (page, body) = herald_feed::poll(log, &cursor, query.limit).await?;
    let metrics = &api.metrics;
    match page.len() {
        0 => metrics.polls_empty.increment(1),
        count if count < query.limit.get() => metrics.polls_part.increment(1),
        _ => metrics.polls_full.increment(1),
    }
    let body = if page.is_empty() {
        Bytes::from_static(wire::POLL_EMPTY)
    } else {
        metrics
            .poll_notifications
            .record(f64::from(u16::try_from(page.len()).expect("a page holds at most 1000")));
        body.finish().into()
    };
    let mut response = Response::new(Body::from(body));
    let answer = response.headers_mut();
    *answer = HeaderMap::with_capacity(ANSWER_HEADERS);
    answer.insert(header::CONTENT_TYPE, APPLICATION_JSON);
    answer.insert(header::CACHE_CONTROL, NO_STORE);
    api::name_until(page.until(), answer);
    // Taken after the page was read: whoever compares its offset with the trim point then knows what it has missed.
    api.name_place(log, answer);
    Ok(compression::compress(headers, response).await)
}

fn parse(request: &Request) -> Result<PollQuery, Error> {
    let mut violations = Violations::new();
    page_headers(request.headers(), &mut violations);
    match PollQuery::parse(request.uri().query().unwrap_or("")) {
        Ok(query) if violations.is_empty() => Ok(query),
        Ok(_) => Err(Error::Invalid(violations)),
        Err(more) => {
            violations.add_all("", &more);
            Err(Error::Invalid(violations))
        }
    }
}
