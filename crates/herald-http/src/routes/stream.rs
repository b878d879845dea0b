//! `GET /notifications/stream`: Server-Sent Events.

use herald_feed::{Cursor, Stream, StreamSettings};
use herald_types::{StreamQuery, Violations};
use http::{HeaderName, HeaderValue, Method, Version, header};

use crate::{
    accept::{self, EVENT_STREAM},
    admission::{Admitted, Asking, Purpose},
    api::Api,
    body::{Body, Response},
    edge::Request,
    extract::{LAST_EVENT_ID_HEADER, page_headers, text},
    openapi::{PageHeaders, StreamParameters, StreamProblems, schemas},
    problem::Error,
    routes::poll::NO_STORE,
    server::Peer,
};

const TEXT_EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Stream notifications
///
/// Sends the notifications of these receivers behind `Offset` as Server-Sent Events: first what is stored, then each
/// new one at once, exactly once and ascending by offset. The first event is `connected`; a comment `: until N` says
/// now and then how far the stream has looked. The server may end a stream at any time: come back with the offset of
/// the last notification, as `Offset` or as `Last-Event-ID`.
#[utoipa::path(
    get,
    path = "/notifications/stream",
    tag = "Notifications",
    operation_id = "streamNotifications",
    params(PageHeaders, StreamParameters),
    responses(
        (
            status = 200,
            description = "Events until the stream ends",
            body = schemas::StreamEvent,
            content_type = "text/event-stream",
        ),
        StreamProblems,
    )
)]
pub(crate) async fn stream(api: &Api, request: &Request, peer: Peer) -> Result<Response, Error> {
    let log = api.lifecycle.gate()?;
    let Admitted { grant, client } =
        api.settings.admission.admit(Purpose::Read, Asking::of(request, peer), &api.limits).await?;
    // Unlike elsewhere, saying nothing is not enough: the page requires the header.
    if accept::accepts(request.headers(), EVENT_STREAM) != Some(true) {
        return Err(Error::NotAcceptable { produced: "text/event-stream" });
    }
    let (query, source_system) = parse(request)?;
    let receivers = grant.narrow(query.her_ids);
    let receivers =
        receivers.map_err(|refused| api.settings.admission.refusal(refused, client.as_ref()))?;
    let cursor = Cursor::new(receivers.clone(), query.after);
    // A HEAD asks what a stream would say about itself, and opens none.
    let body = if request.method() == Method::HEAD {
        Body::empty()
    } else {
        let (mut ends_at, mut permit, mut slot) = (api.stream_ends_at(), None, None);
        if let Some(client) = client {
            slot = Some(api.limits.open_stream(&client.id)?);
            ends_at = ends_at.min(client.expires);
            permit = Some(api.settings.admission.permit(client.holder, receivers));
        }
        let heartbeat = api.settings.heartbeat;
        let settings = StreamSettings { source_system: &source_system, heartbeat, ends_at, permit };
        Body::stream(Stream::new(log.clone(), cursor, &api.streams, settings), slot)
    };
    let mut response = Response::new(body);
    let answer = response.headers_mut();
    if request.version() < Version::HTTP_2 {
        // The connection ends with its stream, so that a balancer may send the reader elsewhere when it comes back, and
        // a stop closes connections one by one, as it ends streams.
        answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer.insert(header::CONTENT_TYPE, TEXT_EVENT_STREAM);
    answer.insert(header::CACHE_CONTROL, NO_STORE);
    answer.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    api.name_place(log, answer);
    Ok(response)
}

fn parse(request: &Request) -> Result<(StreamQuery, String), Error> {
    let mut violations = Violations::new();
    let source_system = page_headers(request.headers(), &mut violations);
    // An EventSource that has seen no id yet may send an empty one: that says nothing.
    let last_event_id =
        request.headers().get(LAST_EVENT_ID_HEADER).map(|value| text(value.as_bytes()));
    let last_event_id = last_event_id.as_deref().filter(|id| !id.is_empty());
    let query = StreamQuery::parse(request.uri().query().unwrap_or(""), last_event_id)
        .map_err(|more| violations.add_all("", &more))
        .ok();
    let parsed = query.zip(source_system.map(std::borrow::Cow::into_owned));
    violations.none_or(parsed).map_err(Error::Invalid)
}
