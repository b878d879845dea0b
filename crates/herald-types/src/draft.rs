//! A draft: what a producer asks Herald to append.

mod read;

use serde::Serialize;
use uuid::Uuid;

use self::read::{Parsed, ParsedRequest};
use crate::{HerId, Notification, NotificationType, Offset, Violations};

/// The most Unicode scalar values of a description, NUL included.
pub const DESCRIPTION_CHARS_MAX: usize = 1024;
/// The most drafts of one JSON request.
pub const DRAFTS_MAX: usize = 1000;

/// A valid draft: a notification without its offset and its time.
///
/// As JSON it is what [`Draft::parse`] reads; what is not known is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// The idempotency key; the server makes one if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification_id: Option<Uuid>,
    /// The message that it is about.
    pub related_message_id: Uuid,
    /// What happened to the message.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// Whom it is for.
    #[serde(rename = "notificationReceiverHerId")]
    pub receiver: HerId,
    /// Who caused it, if known.
    #[serde(rename = "notificationTriggeredByHerId", skip_serializing_if = "Option::is_none")]
    pub triggered_by: Option<HerId>,
    /// For people, at most [`DESCRIPTION_CHARS_MAX`] characters; a default by type if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Draft {
    /// What must be known; everything else is left out.
    #[must_use]
    pub const fn new(kind: NotificationType, related_message_id: Uuid, receiver: HerId) -> Self {
        Self {
            notification_id: None,
            related_message_id,
            kind,
            receiver,
            triggered_by: None,
            description: None,
        }
    }

    /// Reads one line of NDJSON.
    ///
    /// # Errors
    /// Every violation found.
    pub fn parse(line: &[u8]) -> Result<Self, Violations> {
        serde_json::from_slice::<Parsed>(line).map_err(|error| not_json(&error))?.0
    }

    /// Reads the JSON request `{"notifications":[…]}` of 1 to [`DRAFTS_MAX`] drafts.
    ///
    /// # Errors
    /// Every violation found, each behind its draft's place: `notifications[3].type: …`.
    pub fn parse_request(body: &[u8]) -> Result<Vec<Self>, Violations> {
        serde_json::from_slice::<ParsedRequest>(body).map_err(|error| not_json(&error))?.0
    }

    /// The description that is stored.
    #[must_use]
    pub fn description(&self) -> &str {
        self.description.as_deref().unwrap_or_else(|| self.kind.default_description())
    }

    /// What is stored of this draft, but for its offset.
    #[must_use]
    pub fn stored(&self, notification_id: Uuid, created_at: &str) -> Notification {
        Notification {
            notification_id,
            related_message_id: self.related_message_id,
            kind: self.kind,
            notification_receiver_her_id: self.receiver,
            notification_triggered_by_her_id: self.triggered_by,
            description: self.description().to_owned(),
            created_at: created_at.to_owned(),
            offset: Offset::ZERO,
        }
    }

    /// Whether appending this draft again is the same as what is stored: a field left out equals whatever is stored.
    #[must_use]
    pub fn matches(&self, stored: &Notification) -> bool {
        self.related_message_id == stored.related_message_id
            && self.kind == stored.kind
            && self.receiver == stored.notification_receiver_her_id
            && self
                .triggered_by
                .is_none_or(|her_id| Some(her_id) == stored.notification_triggered_by_her_id)
            && self
                .description
                .as_ref()
                .is_none_or(|description| *description == stored.description)
    }
}

fn not_json(error: &serde_json::Error) -> Violations {
    Violations::from(format!("not valid JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINIMAL: &str = r#"{"relatedMessageId":"0F84d750-8ce3-4471-a1ac-ab7a55e609c0","type":"NewMessage","notificationReceiverHerId":8139764}"#;

    fn violations(line: &str) -> Vec<String> {
        Draft::parse(line.as_bytes()).unwrap_err().into_texts()
    }

    #[test]
    fn a_draft_needs_three_fields_and_null_counts_as_left_out() {
        let draft = Draft::parse(MINIMAL.as_bytes()).unwrap();
        assert_eq!(
            (draft.notification_id, draft.triggered_by, &draft.description),
            (None, None, &None)
        );
        let with_nulls = MINIMAL.replace('}', r#","notificationId":null,"description":null}"#);
        assert_eq!(Draft::parse(with_nulls.as_bytes()).unwrap(), draft);
        assert_eq!(violations("{}").len(), 3);
        assert_eq!(violations(r#"{"type":null,"x":1,"description":7}"#).len(), 5);
    }

    #[test]
    fn anything_but_the_six_fields_once_is_a_violation() {
        let twice = MINIMAL.replace('}', r#","type":"NewMessage"}"#);
        assert_eq!(violations(&twice), ["type: given twice"]);
        let unknown = MINIMAL.replace('}', r#","offset":{"a":[1,{"b":2}]}}"#);
        assert_eq!(violations(&unknown), ["'offset': a draft has no such field"]);
        for line in ["[]", "7", "-7", "7.5", "null", "true", "\"x\"", "", "{", "{}{}"] {
            assert_eq!(violations(line).len(), 1, "{line}");
        }
    }

    #[test]
    fn a_description_has_at_most_1024_scalar_values() {
        for (unit, chars) in [("a", 1), ("\\u0000", 1), ("\\ud83d\\ude00", 1), ("é", 1)] {
            let line = |count: usize| {
                let description = unit.repeat(count / chars);
                MINIMAL.replace('}', &format!(r#","description":"{description}"}}"#))
            };
            assert!(Draft::parse(line(1024).as_bytes()).is_ok(), "{unit}");
            assert_eq!(violations(&line(1025)).len(), 1, "{unit}");
        }
        let lone = MINIMAL.replace('}', r#","description":"\ud83d"}"#);
        assert!(violations(&lone)[0].starts_with("not valid JSON"));
    }

    #[test]
    fn numbers_and_ids_are_strict() {
        for good in ["1", "2147483647", "1.0", "1e3"] {
            assert!(Draft::parse(MINIMAL.replace("8139764", good).as_bytes()).is_ok(), "{good}");
        }
        for bad in
            ["0", "2147483648", "-1", "1.5", "0.0", "2147483648.0", "-1.0", "1e300", "\"7\"", "[7]"]
        {
            assert_eq!(violations(&MINIMAL.replace("8139764", bad)).len(), 1, "{bad}");
        }
        for bad in
            ["0f84d7508ce34471a1acab7a55e609c0", "{0f84d750-8ce3-4471-a1ac-ab7a55e609c0}", ""]
        {
            let line = MINIMAL.replace("0F84d750-8ce3-4471-a1ac-ab7a55e609c0", bad);
            assert_eq!(violations(&line).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_request_holds_1_to_1000_drafts() {
        let request =
            |count: usize| format!(r#"{{"notifications":[{}]}}"#, vec![MINIMAL; count].join(","));
        assert_eq!(Draft::parse_request(request(1000).as_bytes()).unwrap().len(), 1000);
        for body in [
            &request(0),
            &request(1001),
            "{}",
            "[]",
            r#"{"notifications":{}}"#,
            r#"{"notifications":3}"#,
        ] {
            assert_eq!(
                Draft::parse_request(body.as_bytes()).unwrap_err().into_texts().len(),
                1,
                "{body:.40}"
            );
        }
        let body = format!(r#"{{"notifications":[{MINIMAL},{{}},7],"more":1}}"#);
        let texts = Draft::parse_request(body.as_bytes()).unwrap_err().into_texts();
        assert_eq!(texts.len(), 5, "{texts:?}");
        assert!(texts.contains(&"notifications[1].type: required".to_owned()), "{texts:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Draft::parse(&bytes);
            let _ = Draft::parse_request(&bytes);
        }

        #[test]
        fn a_draft_is_read_back_from_its_json(
            id: Option<u128>, kind in 0..NotificationType::ALL.len(), her_id in 1_u32..=2_147_483_647,
            by in proptest::option::of(1_u32..=2_147_483_647),
            description: Option<String>,
        ) {
            let draft = Draft {
                notification_id: id.map(Uuid::from_u128),
                triggered_by: by.and_then(HerId::new),
                description,
                ..Draft::new(NotificationType::ALL[kind], Uuid::from_u128(7), HerId::new(her_id).unwrap())
            };
            prop_assert_eq!(Draft::parse(&serde_json::to_vec(&draft).unwrap()).unwrap(), draft);
        }
    }
}
