use herald_types::{Draft, Notification, Offset, draft::DRAFTS_MAX, wire};
use serde_json::Value;
use uuid::Uuid;

const CREATED_AT: &str = "2026-05-08T08:32:15.31+00:00";

/// The input as a JSON request, and as one line of NDJSON.
///
/// A valid draft makes one line that reads back as what was asked for; an invalid body says why; a request has exactly the
/// drafts that its parts are as lines; and what is not JSON at all is never accepted.
///
/// # Panics
/// If that does not hold.
pub fn append(input: &[u8]) {
    let json: Option<Value> = serde_json::from_slice(input).ok();
    match Draft::parse(input) {
        Err(violations) => assert!(!violations.into_texts().is_empty()),
        Ok(draft) => {
            assert!(json.as_ref().is_some_and(Value::is_object));
            stored_reads_back(&draft);
        }
    }
    match Draft::parse_request(input) {
        Err(violations) => assert!(!violations.into_texts().is_empty()),
        Ok(drafts) => {
            assert!((1..=DRAFTS_MAX).contains(&drafts.len()));
            let json = json.expect("an accepted request is JSON");
            let parts = json["notifications"].as_array().expect("an array of drafts");
            let lines = parts.iter().map(|part| {
                Draft::parse(part.to_string().as_bytes()).expect("each draft is a line of its own")
            });
            assert!(lines.eq(drafts.iter().cloned()));
            drafts.iter().for_each(stored_reads_back);
        }
    }
}

fn stored_reads_back(draft: &Draft) {
    let id = draft.notification_id.unwrap_or(Uuid::nil());
    let mut body = wire::body_start(draft, id, CREATED_AT);
    wire::finish_body(&mut body, Offset::MAX);
    assert!(!body.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "a body is one line");
    let stored: Notification = serde_json::from_slice(&body).expect("a stored body reads back");
    assert!(draft.matches(&stored));
    assert_eq!((stored.notification_id, stored.offset), (id, Offset::MAX));
    assert_eq!(stored.description, draft.description());
}
