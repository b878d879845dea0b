use bytes::Bytes;
use herald_client::{Notification, Problem, drafts};
use serde_json::Value;
use uuid::Uuid;

/// The input as what a server sends (the data of an event, an element of a page, a problem), and as a draft to send.
///
/// A notification comes out with the same value, on one line; a draft goes out with the same fields and an id.
///
/// # Panics
/// If that does not hold.
pub fn client(input: &[u8]) {
    let notification = Notification::parse(Bytes::copy_from_slice(input)).ok();
    if let Some(notification) = &notification {
        assert!(!notification.raw().contains(['\n', '\r']), "a notification is one line");
    }
    let problem = Problem::parse(input);
    let id = Uuid::from_u128(1);
    let sent = drafts::with_id(input, || id);
    // JSON that `Value` cannot hold, as a number too large for it, is passed on like any other; nobody can judge it here.
    let Ok(json) = serde_json::from_slice::<Value>(input) else { return };

    assert!(problem.is_none() || json.is_object(), "a problem is an object");
    if let Some(notification) = notification {
        reads_back(&notification, &json);
    }
    if sent != input {
        has_id(&sent, json, id);
    }
}

fn reads_back(notification: &Notification, json: &Value) {
    assert_eq!(serde_json::from_str::<Value>(notification.raw()).as_ref().ok(), Some(json));
    assert_eq!(json["offset"].as_u64(), Some(notification.offset().get()));
    if let Ok(fields) = notification.fields() {
        assert_eq!(json["type"].as_str(), Some(fields.kind.as_str()));
        assert_eq!(fields.offset, notification.offset());
    }
}

fn has_id(sent: &[u8], mut draft: Value, id: Uuid) {
    assert!(draft["notificationId"].is_null(), "an id is kept");
    draft["notificationId"] = id.to_string().into();
    let sent: Value = serde_json::from_slice(sent).expect("a draft stays JSON");
    assert_eq!(sent, draft);
}
