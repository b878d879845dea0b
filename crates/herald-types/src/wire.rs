//! The bytes on the wire, written in one place: a notification's object, a poll's body, a stream's events.
//!
//! A notification is serialised once, up to the comma before its offset ([`body_start`]); [`finish_body`] adds the
//! offset when it is known, and from then on those bytes are stored, replicated and sent as they are.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{Draft, Offset};

/// What a poll's body begins with, before bodies joined by commas.
pub const POLL_START: &[u8] = b"{\"notifications\":[";
/// What a poll's body ends with.
pub const POLL_END: &[u8] = b"]}";
/// The body of a poll that finds nothing.
pub const POLL_EMPTY: &[u8] = b"{\"notifications\":[]}";
/// The first event of a stream.
pub const CONNECTED: &[u8] = b"event: connected\ndata:\n\n";

/// A time as Herald writes it: RFC 3339 in UTC with a numeric offset, milliseconds, no trailing zeros in the fraction.
#[must_use]
pub fn time_text(time: Timestamp) -> String {
    // Truncated, not rounded: a time is never shown before it has come.
    let millis = Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time);
    millis.strftime("%Y-%m-%dT%H:%M:%S%.f+00:00").to_string()
}

/// The object of `draft` up to and including the comma before its offset.
///
/// Invariant: the bytes have no CR, LF or NUL, so that no stored byte can forge a field of an event stream.
///
/// # Panics
/// If `created_at` breaks the invariant; [`time_text`] does not.
#[must_use]
pub fn body_start(draft: &Draft, notification_id: Uuid, created_at: &str) -> Vec<u8> {
    let description = draft.description();
    let mut body = Vec::with_capacity(340 + description.len());
    body.extend_from_slice(b"{\"notificationId\":\"");
    push_uuid(&mut body, notification_id);
    body.extend_from_slice(b"\",\"relatedMessageId\":\"");
    push_uuid(&mut body, draft.related_message_id);
    body.extend_from_slice(b"\",\"type\":\"");
    body.extend_from_slice(draft.kind.as_str().as_bytes());
    body.extend_from_slice(b"\",\"notificationReceiverHerId\":");
    push_number(&mut body, draft.receiver.get().into());
    body.extend_from_slice(b",\"notificationTriggeredByHerId\":");
    match draft.triggered_by {
        Some(her_id) => push_number(&mut body, her_id.get().into()),
        None => body.extend_from_slice(b"null"),
    }
    body.extend_from_slice(b",\"description\":");
    serde_json::to_writer(&mut body, description).expect("text always serialises into memory");
    body.extend_from_slice(b",\"createdAt\":\"");
    body.extend_from_slice(created_at.as_bytes());
    body.extend_from_slice(b"\",");
    assert!(memchr::memchr3(b'\r', b'\n', 0, &body).is_none(), "a body is one line without NUL");
    body
}

/// Adds what [`body_start`] left open.
pub fn finish_body(body: &mut Vec<u8>, offset: Offset) {
    body.extend_from_slice(b"\"offset\":");
    push_number(body, offset.get());
    body.push(b'}');
}

/// A poll's body, written record by record.
#[derive(Clone, Debug, Default)]
pub struct PollBody(Vec<u8>);

impl PollBody {
    /// Makes room for so many more records with so many bytes of bodies.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.0.reserve(POLL_START.len() + bytes + records + POLL_END.len());
    }

    /// Adds a stored body.
    pub fn push(&mut self, body: &[u8]) {
        if self.0.is_empty() {
            self.0.extend_from_slice(POLL_START);
        } else {
            self.0.push(b',');
        }
        self.0.extend_from_slice(body);
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no record has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// The whole body.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(if self.0.is_empty() { POLL_EMPTY } else { POLL_END });
        self.0
    }
}

/// What an event has besides its body: field names, an offset of at most 19 digits, line ends; and what a chunk of
/// HTTP/1.1 ends with.
const EVENT_FRAMING_BYTES: usize = 56;

/// Events of a stream, one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Events(pub Vec<u8>);

impl Events {
    /// Moves those of `other` behind these.
    pub fn append(&mut self, other: &mut Self) {
        if self.0.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.0.append(&mut other.0);
        }
    }

    /// Makes room for so many more events with so many bytes of bodies.
    pub fn reserve(&mut self, records: usize, bytes: usize) {
        self.0.reserve(records * EVENT_FRAMING_BYTES + bytes);
    }

    /// Adds the first event of a stream.
    pub fn connected(&mut self) {
        self.0.extend_from_slice(CONNECTED);
    }

    /// Adds one `notification` event around a stored body.
    pub fn push(&mut self, offset: Offset, body: &[u8]) {
        let out = &mut self.0;
        out.extend_from_slice(b"id: ");
        push_number(out, offset.get());
        out.extend_from_slice(b"\nevent: notification\ndata: ");
        out.extend_from_slice(body);
        out.extend_from_slice(b"\n\n");
    }

    /// Adds a heartbeat: a comment that says how far the stream has looked.
    pub fn heartbeat(&mut self, until: Offset) {
        self.0.extend_from_slice(b": until ");
        push_number(&mut self.0, until.get());
        self.0.extend_from_slice(b"\n\n");
    }

    /// Adds the hint how long a reader should wait before it comes back.
    pub fn retry(&mut self, wait_ms: u64) {
        self.0.extend_from_slice(b"retry: ");
        push_number(&mut self.0, wait_ms);
        self.0.extend_from_slice(b"\n\n");
    }
}

fn push_uuid(out: &mut Vec<u8>, id: Uuid) {
    out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{HerId, Notification, NotificationType};

    fn draft(description: Option<String>, triggered_by: Option<HerId>) -> Draft {
        Draft {
            notification_id: None,
            related_message_id: Uuid::from_u128(0x0f84_d750_8ce3_4471_a1ac_ab7a_55e6_09c0),
            kind: NotificationType::MessageSentStateUpdated,
            receiver: HerId::new(8_139_764).unwrap(),
            triggered_by,
            description,
        }
    }

    #[test]
    fn the_example_of_the_page_comes_out_as_on_the_page() {
        let draft = draft(None, HerId::new(90215));
        let mut body = body_start(&draft, Uuid::nil(), "2026-05-08T08:32:15.31+00:00");
        finish_body(&mut body, Offset::new(45459).unwrap());
        let without_id = String::from_utf8(body)
            .unwrap()
            .replace(r#""notificationId":"00000000-0000-0000-0000-000000000000","#, "");
        assert_eq!(
            without_id,
            r#"{"relatedMessageId":"0f84d750-8ce3-4471-a1ac-ab7a55e609c0","type":"MessageSentStateUpdated","notificationReceiverHerId":8139764,"notificationTriggeredByHerId":90215,"description":"Message sent to receiver.","createdAt":"2026-05-08T08:32:15.31+00:00","offset":45459}"#
        );
    }

    #[test]
    fn times_have_a_numeric_offset_and_no_trailing_zeros() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (1_778_229_135_310, "2026-05-08T08:32:15.31+00:00"),
            (1_778_229_135_001, "2026-05-08T08:32:15.001+00:00"),
            (1_778_229_135_300, "2026-05-08T08:32:15.3+00:00"),
        ] {
            assert_eq!(time_text(Timestamp::from_millisecond(millis).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn a_body_is_one_line_and_reads_back(
            description in proptest::option::of(proptest::collection::vec(any::<char>(), 0..200)),
            triggered_by in proptest::option::of(1_u32..=2_147_483_647),
            offset in 0..=Offset::MAX.get(),
        ) {
            let draft = draft(description.map(String::from_iter), triggered_by.and_then(HerId::new));
            let id = Uuid::from_u128(7);
            let mut body = body_start(&draft, id, "2026-05-08T08:32:15.31+00:00");
            finish_body(&mut body, Offset::new(offset).unwrap());
            prop_assert!(!body.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            let read: Notification = serde_json::from_slice(&body).unwrap();
            prop_assert!(draft.matches(&read));
            prop_assert_eq!(read.description.as_str(), draft.description());
            prop_assert_eq!((read.notification_id, read.offset.get()), (id, offset));
        }
    }
}
