//! A draft: what a producer asks Herald to append.

use std::{borrow::Cow, fmt};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use crate::{HerId, Notification, NotificationType, Offset, Violations, violation::echo};

/// The most Unicode scalar values of a description, NUL included.
pub const DESCRIPTION_CHARS_MAX: usize = 1024;
/// The most drafts of one JSON request.
pub const DRAFTS_MAX: usize = 1000;

/// A valid draft: a notification without its offset and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The idempotency key; the server makes one if it is left out.
    pub notification_id: Option<Uuid>,
    /// The message that it is about.
    pub related_message_id: Uuid,
    /// What happened to the message.
    pub kind: NotificationType,
    /// Whom it is for.
    pub receiver: HerId,
    /// Who caused it, if known.
    pub triggered_by: Option<HerId>,
    /// For people; a default by type if it is left out.
    pub description: Option<String>,
}

impl Draft {
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
    let mut violations = Violations::new();
    violations.add(format!("not valid JSON: {error}"));
    violations
}

/// A JSON value as far as a draft's fields need it.
enum Value<'de> {
    Null,
    Unsigned(u64),
    Text(Cow<'de, str>),
    Other,
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E: de::Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Unsigned(number))
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }
    /// JSON has one kind of number: `1.0` and `1e0` are the integer 1 too, as in JSON Schema.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value<'de>, E> {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole and in range"
            )]
            let number = number as u64;
            return Ok(Value::Unsigned(number));
        }
        Ok(Value::Other)
    }
    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// An object's key, borrowed where the input allows it.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ValueVisitor)? {
            Value::Text(text) => Ok(Self(text)),
            Value::Null | Value::Unsigned(_) | Value::Other => {
                Err(de::Error::custom("a key must be text"))
            }
        }
    }
}

/// Implements `Deserialize` by a visitor that reads an object, and calls anything else a violation.
macro_rules! object_or_violation {
    ($parsed:ident, $visitor:ident, $what:literal) => {
        impl<'de> Deserialize<'de> for $parsed {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }

        struct $visitor;

        impl $visitor {
            fn not_an_object() -> $parsed {
                let mut violations = Violations::new();
                violations.add(concat!($what, " must be a JSON object"));
                $parsed(Err(violations))
            }
        }

        impl<'de> Visitor<'de> for $visitor {
            type Value = $parsed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_unit<E: de::Error>(self) -> Result<$parsed, E> {
                Ok(Self::not_an_object())
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<$parsed, E> {
                Ok(Self::not_an_object())
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<$parsed, E> {
                Ok(Self::not_an_object())
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<$parsed, E> {
                Ok(Self::not_an_object())
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<$parsed, E> {
                Ok(Self::not_an_object())
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<$parsed, E> {
                Ok(Self::not_an_object())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$parsed, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Self::not_an_object())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$parsed, A::Error> {
                $parsed::read(map)
            }
        }
    };
}

struct Parsed(Result<Draft, Violations>);
object_or_violation!(Parsed, ParsedVisitor, "a draft");

/// The fields in the order in which their violations are reported.
const FIELDS: [&str; 6] = [
    "notificationId",
    "relatedMessageId",
    "type",
    "notificationReceiverHerId",
    "notificationTriggeredByHerId",
    "description",
];

impl Parsed {
    fn read<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut violations = Violations::new();
        let mut values: [Option<Value<'de>>; FIELDS.len()] = [const { None }; FIELDS.len()];
        while let Some(Key(key)) = map.next_key()? {
            let value: Value<'de> = map.next_value()?;
            match FIELDS.iter().position(|field| *field == key) {
                None => violations.add(format!("{}: a draft has no such field", echo(&key))),
                Some(field) if values[field].is_some() => {
                    violations.add(format!("{key}: given twice"));
                }
                Some(field) => values[field] = Some(value),
            }
        }
        let mut fields = Fields { values, violations };
        let notification_id = fields.optional(0, read_uuid);
        let related_message_id = fields.required(1, read_uuid);
        let kind = fields.required(2, read_type);
        let receiver = fields.required(3, read_her_id);
        let triggered_by = fields.optional(4, read_her_id);
        let description = fields.optional(5, read_description);
        let draft = (|| {
            let (related_message_id, kind, receiver) = (related_message_id?, kind?, receiver?);
            Some(Draft {
                notification_id,
                related_message_id,
                kind,
                receiver,
                triggered_by,
                description,
            })
        })();
        Ok(Self(fields.violations.none_or(draft)))
    }
}

struct Fields<'de> {
    values: [Option<Value<'de>>; FIELDS.len()],
    violations: Violations,
}

type Read<T> = fn(Value<'_>) -> Result<T, String>;

impl Fields<'_> {
    fn optional<T>(&mut self, field: usize, read: Read<T>) -> Option<T> {
        match self.values[field].take() {
            None | Some(Value::Null) => None,
            Some(value) => read(value)
                .map_err(|why| self.violations.add(format!("{}: {why}", FIELDS[field])))
                .ok(),
        }
    }

    fn required<T>(&mut self, field: usize, read: Read<T>) -> Option<T> {
        if matches!(self.values[field], None | Some(Value::Null)) {
            self.violations.add(format!("{}: required", FIELDS[field]));
            return None;
        }
        self.optional(field, read)
    }
}

/// Only the hyphenated form, upper or lower case: the form of the page.
fn read_uuid(value: Value<'_>) -> Result<Uuid, String> {
    const UUID_LEN: usize = 36;
    match value {
        Value::Text(text) if text.len() == UUID_LEN => Uuid::try_parse(&text).ok(),
        Value::Text(_) | Value::Null | Value::Unsigned(_) | Value::Other => None,
    }
    .ok_or_else(|| "must be a UUID such as '0f84d750-8ce3-4471-a1ac-ab7a55e609c0'".to_owned())
}

fn read_type(value: Value<'_>) -> Result<NotificationType, String> {
    let Value::Text(text) = value else { return Err(crate::notification::InvalidType.to_string()) };
    text.parse().map_err(|error| format!("{error}, not {}", echo(&text)))
}

#[expect(clippy::needless_pass_by_value, reason = "every reader of a field has one shape")]
fn read_her_id(value: Value<'_>) -> Result<HerId, String> {
    let number = if let Value::Unsigned(number) = value { number.try_into().ok() } else { None };
    number.ok_or_else(|| format!("must be a JSON integer from {} to {}", HerId::MIN, HerId::MAX))
}

fn read_description(value: Value<'_>) -> Result<String, String> {
    let Value::Text(text) = value else { return Err("must be text".to_owned()) };
    match text.chars().count() {
        0..=DESCRIPTION_CHARS_MAX => Ok(text.into_owned()),
        count => {
            Err(format!("must have at most {DESCRIPTION_CHARS_MAX} characters, it has {count}"))
        }
    }
}

struct ParsedRequest(Result<Vec<Draft>, Violations>);
object_or_violation!(ParsedRequest, ParsedRequestVisitor, "the body");

impl ParsedRequest {
    fn read<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut violations = Violations::new();
        let mut drafts = None;
        while let Some(Key(key)) = map.next_key()? {
            if key != "notifications" {
                violations.add(format!("{}: the body has no such field", echo(&key)));
                map.next_value::<IgnoredAny>()?;
            } else if drafts.is_some() {
                violations.add("notifications: given twice");
                map.next_value::<IgnoredAny>()?;
            } else {
                let ParsedDrafts(parsed) = map.next_value()?;
                drafts = Some(parsed);
            }
        }
        let drafts = match drafts {
            None => {
                violations.add("notifications: required");
                None
            }
            Some(Err(found)) => {
                violations.add_all("", &found);
                None
            }
            Some(Ok(drafts)) => Some(drafts),
        };
        Ok(Self(violations.none_or(drafts)))
    }
}

struct ParsedDrafts(Result<Vec<Draft>, Violations>);

impl<'de> Deserialize<'de> for ParsedDrafts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedDraftsVisitor)
    }
}

struct ParsedDraftsVisitor;

impl ParsedDraftsVisitor {
    fn not_an_array() -> ParsedDrafts {
        let mut violations = Violations::new();
        violations.add("notifications: must be an array of drafts");
        ParsedDrafts(Err(violations))
    }
}

impl<'de> Visitor<'de> for ParsedDraftsVisitor {
    type Value = ParsedDrafts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of drafts")
    }
    fn visit_unit<E: de::Error>(self) -> Result<ParsedDrafts, E> {
        Ok(Self::not_an_array())
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<ParsedDrafts, E> {
        Ok(Self::not_an_array())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<ParsedDrafts, E> {
        Ok(Self::not_an_array())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<ParsedDrafts, E> {
        Ok(Self::not_an_array())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<ParsedDrafts, E> {
        Ok(Self::not_an_array())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<ParsedDrafts, E> {
        Ok(Self::not_an_array())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedDrafts, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::not_an_array())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ParsedDrafts, A::Error> {
        let mut violations = Violations::new();
        let mut drafts = Vec::new();
        let mut count = 0_usize;
        while count < DRAFTS_MAX {
            let Some(Parsed(parsed)) = seq.next_element()? else { break };
            match parsed {
                Ok(draft) => drafts.push(draft),
                Err(found) => violations.add_all(&format!("notifications[{count}]."), &found),
            }
            count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        if !(1..=DRAFTS_MAX).contains(&count) {
            violations
                .add(format!("notifications: must be 1 to {DRAFTS_MAX} drafts, there are {count}"));
        }
        Ok(ParsedDrafts(violations.none_or(Some(drafts))))
    }
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
    }
}
