//! The OpenAPI document, made from the handlers, and what their annotations have in common.

pub(crate) mod schemas;

use utoipa::{IntoParams, OpenApi};

pub(crate) use self::problems::{AppendProblems, PlainProblems, ReadProblems, StreamProblems};

use crate::routes::{append, docs, ping, poll, stream};

mod problems;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Herald",
        description = "Notifications about messages, by polling and by streaming. Every notification has one global \
                       offset; a client keeps the offset of the last one that it has handled.",
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "Notifications", description = "Poll, stream and append"),
        (name = "Service", description = "The service itself; needs no header"),
    ),
    paths(
        poll::poll,
        append::append,
        stream::stream,
        ping::ping,
        docs::document,
        docs::swagger,
    ),
    components(schemas(schemas::Problem, schemas::Draft)),
)]
struct Document;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    problems::finish(&mut document);
    document
}

/// The document as JSON.
///
/// # Panics
/// Never: the document is text and numbers.
#[must_use]
pub fn json() -> String {
    let mut json = document().to_pretty_json().expect("a document is text and numbers");
    json.push('\n');
    json
}

/// The headers of every call of the page.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(crate) struct PageHeaders {
    /// The version of the API.
    #[param(rename = "api-version", inline, example = "3")]
    api_version: schemas::ApiVersion,
    /// Name and version of the calling system; not blank.
    #[param(
        rename = "nhn-source-system",
        min_length = 1,
        max_length = 512,
        pattern = r"^[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f\x85\xa0][^\x00-\x08\x0a-\x1f\x7f]*$",
        example = "MyJournal, v2.4"
    )]
    nhn_source_system: String,
}

/// The query of a poll.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(crate) struct PollParameters {
    /// The receivers: 1 to 1500 distinct HER-ids, the name repeated for each.
    #[param(
        rename = "HerIds",
        style = Form,
        explode,
        inline,
        min_items = 1,
        max_items = 1500,
        example = json!([8_139_764])
    )]
    her_ids: Vec<schemas::HerId>,
    /// The offset of the last notification handled; only newer ones come back. 0 is before the oldest.
    #[param(rename = "Offset", minimum = 0, maximum = 9_223_372_036_854_775_807_i64, example = 0)]
    offset: i64,
    /// How many notifications to answer with at most.
    #[param(
        rename = "NotificationsToFetch",
        required = false,
        minimum = 1,
        maximum = 1000,
        default = 100
    )]
    notifications_to_fetch: i32,
}

/// The query of a stream.
///
/// `Last-Event-ID` is told of in words alone: OpenAPI has no way to say that one of two parameters is required.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(crate) struct StreamParameters {
    /// The receivers: 1 to 1500 distinct HER-ids, the name repeated for each.
    #[param(
        rename = "HerIds",
        style = Form,
        explode,
        inline,
        min_items = 1,
        max_items = 1500,
        example = json!([8_139_764])
    )]
    her_ids: Vec<schemas::HerId>,
    /// The offset of the last notification handled: 0 starts at the oldest, the header `herald-tail` of a poll's
    /// answer is now. The header `Last-Event-ID`, which reconnecting readers send by themselves, replaces it.
    #[param(rename = "Offset", minimum = 0, maximum = 9_223_372_036_854_775_807_i64, example = 0)]
    offset: i64,
}
