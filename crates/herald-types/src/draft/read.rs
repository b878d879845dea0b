//! Drafts from JSON, with every violation found: what is wrong with one field or draft does not hide the next.

use std::{borrow::Cow, fmt};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use uuid::Uuid;

use super::{DESCRIPTION_CHARS_MAX, DRAFTS_MAX, Draft};
use crate::{HerId, NotificationType, Violations, violation::echo};

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

/// The methods of a visitor for which every kind of value but objects and arrays is the same violation.
macro_rules! scalars_are_a_violation {
    ($parsed:ident) => {
        fn visit_unit<E: de::Error>(self) -> Result<$parsed, E> {
            Ok($parsed::other())
        }
        fn visit_bool<E: de::Error>(self, _: bool) -> Result<$parsed, E> {
            Ok($parsed::other())
        }
        fn visit_u64<E: de::Error>(self, _: u64) -> Result<$parsed, E> {
            Ok($parsed::other())
        }
        fn visit_i64<E: de::Error>(self, _: i64) -> Result<$parsed, E> {
            Ok($parsed::other())
        }
        fn visit_f64<E: de::Error>(self, _: f64) -> Result<$parsed, E> {
            Ok($parsed::other())
        }
        fn visit_str<E: de::Error>(self, _: &str) -> Result<$parsed, E> {
            Ok($parsed::other())
        }
    };
}

/// Implements `Deserialize` for what is read from an object, and calls anything else a violation.
macro_rules! object_or_violation {
    ($parsed:ident, $visitor:ident, $what:literal) => {
        impl<'de> Deserialize<'de> for $parsed {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }

        impl $parsed {
            fn other() -> Self {
                Self(Err(Violations::from(concat!($what, " must be a JSON object"))))
            }
        }

        struct $visitor;

        impl<'de> Visitor<'de> for $visitor {
            type Value = $parsed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            scalars_are_a_violation!($parsed);
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$parsed, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok($parsed::other())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$parsed, A::Error> {
                $parsed::read(map)
            }
        }
    };
}

pub(super) struct Parsed(pub(super) Result<Draft, Violations>);
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

pub(super) struct ParsedRequest(pub(super) Result<Vec<Draft>, Violations>);
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

impl ParsedDrafts {
    fn other() -> Self {
        Self(Err(Violations::from("notifications: must be an array of drafts")))
    }
}

impl<'de> Visitor<'de> for ParsedDraftsVisitor {
    type Value = ParsedDrafts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of drafts")
    }
    scalars_are_a_violation!(ParsedDrafts);
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedDrafts, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(ParsedDrafts::other())
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
