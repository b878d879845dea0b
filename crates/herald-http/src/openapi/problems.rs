//! The problems that each operation may answer with, and the headers of all answers.

use std::collections::BTreeMap;

use herald_types::problem::ProblemType;
use serde_json::json;
use utoipa::{
    IntoResponses,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi, PathItem, Ref, RefOr, Response,
        ResponseBuilder,
        path::Operation,
        schema::{KnownFormat, SchemaFormat, SchemaType, Type},
        security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme},
    },
};

use ProblemType as Kind;

/// The token and the proof, as the document names them. They are two headers: there is no scheme for both together that
/// readers of documents know.
const TOKEN: &str = "token";
const PROOF: &str = "proof";

/// What a call that reads nothing and needs nothing may answer with.
pub(crate) struct PlainProblems;
/// What a poll may answer with.
pub(crate) struct ReadProblems;
/// What a stream may answer with.
pub(crate) struct StreamProblems;
/// What an append may answer with.
pub(crate) struct AppendProblems;

const PLAIN: [Kind; 4] = [Kind::MethodNotAllowed, Kind::Internal, Kind::NotReady, Kind::Stopping];
const READ: [Kind; 6] = [
    Kind::InvalidRequest,
    Kind::Unauthenticated,
    Kind::InsufficientScope,
    Kind::HerIdNotGranted,
    Kind::NotAcceptable,
    Kind::TooManyRequests,
];
const APPEND: [Kind; 13] = [
    Kind::InvalidRequest,
    Kind::Unauthenticated,
    Kind::InsufficientScope,
    Kind::ClientCertificateRequired,
    Kind::HerIdNotGranted,
    Kind::NotAcceptable,
    Kind::TooManyRequests,
    Kind::Busy,
    Kind::ContentDiffers,
    Kind::TooLarge,
    Kind::UnsupportedMediaType,
    Kind::AppendRefused,
    Kind::OutcomeUnknown,
];

impl IntoResponses for PlainProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&PLAIN)
    }
}

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[&READ[..], &PLAIN].concat())
    }
}

impl IntoResponses for StreamProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        ReadProblems::responses()
    }
}

impl IntoResponses for AppendProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[&APPEND[..], &PLAIN].concat())
    }
}

/// One response for each status, with an example for each of its problems.
fn responses(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for &kind in kinds {
        by_status.entry(kind.status()).or_default().push(kind);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(&kinds))).collect()
}

fn response(kinds: &[Kind]) -> RefOr<Response> {
    let titles: Vec<_> = kinds.iter().map(|kind| kind.title()).collect();
    let examples = kinds.iter().map(|kind| {
        let example = utoipa::openapi::example::ExampleBuilder::new()
            .summary(kind.title())
            .value(Some(example(*kind)))
            .build();
        (kind.slug(), RefOr::T(example))
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(examples)
        .build();
    ResponseBuilder::new()
        .description(titles.join("; "))
        .content("application/problem+json", content)
        .build()
        .into()
}

fn example(kind: Kind) -> serde_json::Value {
    let violations = match kind {
        Kind::InvalidRequest => json!(["HerIds is required: at least one HER-id"]),
        Kind::ContentDiffers => json!([
            "notifications[0].notificationId: 5f0c2f4e-3f57-4f0e-9d0c-0f6f2a1f7b11 is stored with other content"
        ]),
        _ => serde_json::Value::Null,
    };
    json!({
        "type": kind.uri(),
        "title": kind.title(),
        "status": kind.status(),
        "detail": "What went wrong here, and what to do.",
        "instance": "/notifications",
        "errorCode": kind.error_code(),
        "requestId": "6f1d2c3b4a596877-0000000000000001",
        "validationErrors": violations,
        "timestamp": "2026-05-08T08:32:15.31+00:00",
    })
}

/// Adds the headers that all answers of a kind have.
pub(super) fn finish(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            add_headers(path, operation);
            if path.starts_with("/notifications") {
                operation.security = Some(vec![
                    SecurityRequirement::default(),
                    SecurityRequirement::new::<_, _, String>(TOKEN, [])
                        .add::<_, _, String>(PROOF, []),
                ]);
            }
        }
    }
    let components = document.components.get_or_insert_default();
    for (name, header, description) in [
        (
            TOKEN,
            "Authorization",
            "`DPoP`, a space and an access token. Needed unless the server runs without authentication",
        ),
        (PROOF, "DPoP", "A proof for this very call (RFC 9449), which goes with the token"),
    ] {
        let value = ApiKeyValue::with_description(header, description);
        components.add_security_scheme(name, SecurityScheme::ApiKey(ApiKey::Header(value)));
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().flatten()
}

fn add_headers(path: &str, operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let mut add = |name: &str, description: &str, schema: ObjectBuilder| {
            let header = HeaderBuilder::new()
                .description(Some(description))
                .schema(Some(schema.build()))
                .build();
            response.headers.insert(name.to_owned(), header.into());
        };
        add(
            "x-request-id",
            "The caller's own when it is 1 to 128 visible ASCII characters",
            text(),
        );
        match status.as_str() {
            "405" => add("Allow", "The methods that the path knows", text()),
            "401" => add(
                "WWW-Authenticate",
                "`DPoP`, with what is wrong and the algorithms that a proof may have",
                text(),
            ),
            "429" => add("Retry-After", "Seconds after which to repeat the request", number()),
            "503" => add("Retry-After", "Seconds after which to repeat the request", number()),
            "200" | "201" if path.starts_with("/notifications") => {
                let history =
                    "Names this space of offsets; offsets of another one mean nothing here";
                add("herald-history", history, text().format(Some(uuid())));
                if status == "200" {
                    add("herald-tail", "The newest offset: where \"from now\" begins", number());
                    add("herald-trim", "The newest offset that retention has removed", number());
                }
                if path == "/notifications" && status == "200" {
                    let until =
                        "Every notification of these receivers up to here is in this answer";
                    add("herald-until", until, number());
                }
            }
            _ => {}
        }
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}

fn uuid() -> SchemaFormat {
    SchemaFormat::KnownFormat(KnownFormat::Uuid)
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0))
}
