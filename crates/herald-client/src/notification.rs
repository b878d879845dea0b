//! A notification as the server wrote it.

use bytes::{BufMut as _, Bytes, BytesMut};
use herald_types::{HerId, Offset};
use jiff::{Timestamp, civil, tz::TimeZone};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A notification: the server's own object and its place in the log.
///
/// The object is kept as it came, unknown fields and types included. Only its offset is read when it comes, so that a new
/// kind of notification never ends a stream; [`Notification::fields`] reads the rest when asked.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Invariant: UTF-8.
    raw: Bytes,
    offset: Offset,
    pub(crate) run: usize,
}

/// The same object, whichever way it came.
impl PartialEq for Notification {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Notification {}

/// Data that is not a notification.
#[derive(Debug, thiserror::Error)]
#[error("not a notification: {0}")]
pub struct Undecodable(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Place {
    offset: Offset,
}

impl Notification {
    /// Reads a JSON object that has an `offset`.
    ///
    /// # Errors
    /// [`Undecodable`] for anything else.
    pub fn parse(raw: Bytes) -> Result<Self, Undecodable> {
        let text = str::from_utf8(&raw).map_err(serde::de::Error::custom);
        let offset = read_offset(text.map_err(Undecodable)?)?;
        Ok(Self { raw: one_line(raw), offset, run: 0 })
    }

    /// The same of what is known to be UTF-8.
    pub(crate) fn parse_text(text: String) -> Result<Self, Undecodable> {
        let offset = read_offset(&text)?;
        Ok(Self { raw: one_line(text.into()), offset, run: 0 })
    }

    /// The server's object on one line.
    #[must_use]
    pub fn raw(&self) -> &str {
        str::from_utf8(&self.raw).unwrap_or_default()
    }

    /// Its place in the log; the next request asks for what comes after it.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The fields of the page.
    ///
    /// # Errors
    /// [`Undecodable`] if one that the page requires is missing, or one has another shape.
    pub fn fields(&self) -> Result<Fields, Undecodable> {
        Ok(serde_json::from_slice(&self.raw)?)
    }
}

/// The fields of a notification. What servers of the page are known to leave out or to send as null is optional.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Fields {
    /// The notification's own id, on servers that give one.
    #[serde(default)]
    pub notification_id: Option<Uuid>,
    /// The message that it is about.
    #[serde(default)]
    pub related_message_id: Option<Uuid>,
    /// What happened, by the page one of five names; others may come.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it is for.
    pub notification_receiver_her_id: HerId,
    /// Who caused it.
    #[serde(default)]
    pub notification_triggered_by_her_id: Option<HerId>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was made; a time without an offset is taken as UTC.
    #[serde(default, deserialize_with = "read_time")]
    pub created_at: Option<Timestamp>,
    /// Its place in the log.
    pub offset: Offset,
}

pub(crate) fn read_time<'de, D: serde::Deserializer<'de>>(
    input: D,
) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(input)? else { return Ok(None) };
    let without_offset = || TimeZone::UTC.to_timestamp(text.parse::<civil::DateTime>()?);
    text.parse().or_else(|_| without_offset()).map(Some).map_err(serde::de::Error::custom)
}

/// From text and not from bytes, whose keys would be looked at for UTF-8 once more, each by itself.
fn read_offset(object: &str) -> serde_json::Result<Offset> {
    if let Some(offset) = plain_offset(object.as_bytes()) {
        return Ok(offset);
    }
    ensure_no_array(object.as_bytes())?;
    let Place { offset } = serde_json::from_str(object)?;
    Ok(offset)
}

/// The offset of an object just as Herald writes it, without escapes: nearly all are, and a stored past is read through here.
///
/// Whatever this accepts is valid JSON with this offset; what it does not know it leaves to the parser.
fn plain_offset(object: &[u8]) -> Option<Offset> {
    fn text<'a>(object: &'a [u8], before: &[u8]) -> Option<&'a [u8]> {
        let rest = object.strip_prefix(before)?;
        Some(&rest[memchr::memchr(b'"', rest)? + 1..])
    }
    fn number<'a>(object: &'a [u8], before: &[u8]) -> Option<(u64, &'a [u8])> {
        let rest = object.strip_prefix(before)?;
        let (mut number, mut digits) = (0_u64, 0);
        while let Some(digit) = rest.get(digits).filter(|byte| byte.is_ascii_digit()) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            digits += 1;
        }
        let is_plain = digits == 1 || digits > 1 && rest[0] != b'0';
        is_plain.then(|| (number, &rest[digits..]))
    }

    // Then every quotation mark is one of JSON's own, and no text needs a second look. To the end and not only to the first one
    // found: many bytes at once are judged faster than one by one.
    if object.iter().fold(false, |found, byte| found | (*byte < b' ') | (*byte == b'\\')) {
        return None;
    }
    let rest = text(object, br#"{"notificationId":""#)?;
    let rest = text(rest, br#","relatedMessageId":""#)?;
    let rest = text(rest, br#","type":""#)?;
    let (_, rest) = number(rest, br#","notificationReceiverHerId":"#)?;
    let rest = match number(rest, br#","notificationTriggeredByHerId":"#) {
        Some((_, rest)) => rest,
        None => rest.strip_prefix(br#","notificationTriggeredByHerId":null"#)?,
    };
    let rest = text(rest, br#","description":""#)?;
    let rest = text(rest, br#","createdAt":""#)?;
    let (offset, rest) = number(rest, br#","offset":"#)?;
    if rest == b"}" { Offset::new(offset) } else { None }
}

/// A JSON object and not an array, which serde would read as the fields in their order.
pub(crate) fn read_object<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    ensure_no_array(json)?;
    serde_json::from_slice(json)
}

fn ensure_no_array(json: &[u8]) -> serde_json::Result<()> {
    if json.trim_ascii_start().starts_with(b"[") {
        return Err(serde::de::Error::custom("an array where an object should be"));
    }
    Ok(())
}

/// Each element of a JSON array as its own bytes, which share the body's memory.
pub(crate) fn elements(body: &Bytes, array: &[&RawValue]) -> Vec<Bytes> {
    array.iter().map(|element| body.slice_ref(element.get().as_bytes())).collect()
}

/// Valid JSON without the white space between its tokens, if it has line ends; else as it is.
pub(crate) fn one_line(json: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &json).is_none() {
        return json;
    }
    let mut line = BytesMut::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for &byte in &json {
        if in_text {
            (escaped, in_text) = match byte {
                _ if escaped => (false, true),
                b'\\' => (true, true),
                _ => (false, byte != b'"'),
            };
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_text = byte == b'"';
        }
        line.put_u8(byte);
    }
    line.freeze()
}

#[cfg(test)]
mod tests {
    use herald_types::{Draft, NotificationType, wire};
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> Result<Notification, Undecodable> {
        Notification::parse(Bytes::copy_from_slice(json.as_bytes()))
    }

    #[test]
    fn the_object_is_kept_with_unknown_fields_and_types() {
        let json = r#"{ "type":"SomethingNew", "extra":{"a":[1.0,12345678901234567890]}, "notificationReceiverHerId":7,"offset":9223372036854775807}"#;
        let notification = parse(json).unwrap();
        assert_eq!(notification.raw(), json);
        assert_eq!(notification.offset(), Offset::MAX);
        assert_eq!(notification.fields().unwrap().kind, "SomethingNew");
    }

    /// What Herald stores and sends.
    fn stored(description: Option<&str>, triggered_by: Option<u32>, offset: u64) -> Vec<u8> {
        let receiver = HerId::new(8_139_764).unwrap();
        let draft = Draft {
            triggered_by: triggered_by.and_then(HerId::new),
            description: description.map(str::to_owned),
            ..Draft::new(NotificationType::NewMessage, Uuid::from_u128(7), receiver)
        };
        let time = wire::time_text("2026-05-08T08:32:15.31Z".parse().unwrap());
        let mut body = wire::body_start(&draft, Uuid::from_u128(9), &time);
        wire::finish_body(&mut body, Offset::new(offset).unwrap());
        body
    }

    #[test]
    fn what_herald_writes_without_escapes_is_read_without_the_parser() {
        for description in [None, Some(""), Some("æøå 🩺"), Some("{[,:]}")] {
            for (triggered_by, offset) in [(None, 1), (Some(1), 45_459), (Some(7), u64::MAX / 2)] {
                let body = stored(description, triggered_by, offset);
                assert_eq!(plain_offset(&body), Offset::new(offset), "{description:?}");
            }
        }
        let escaped = stored(Some("a \"quote\" and\ta tab"), None, 5);
        assert_eq!(plain_offset(&escaped), None);
        assert_eq!(Notification::parse(escaped.into()).unwrap().offset().get(), 5);
    }

    proptest! {
        #[test]
        fn what_is_read_without_the_parser_is_what_the_parser_reads(
            description: Option<String>, triggered_by: Option<u32>, offset in 0..=u64::MAX / 2,
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
            cut: Option<proptest::sample::Index>,
        ) {
            let mut body = stored(description.as_deref(), triggered_by, offset);
            for (at, byte) in changes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some(cut) = cut {
                body.truncate(cut.index(body.len()));
            }
            if let Ok(text) = str::from_utf8(&body) && let Some(offset) = plain_offset(&body) {
                prop_assert_eq!(serde_json::from_str::<Place>(text).unwrap().offset, offset);
            }
        }
    }

    #[test]
    fn an_object_over_several_lines_comes_out_on_one() {
        let json = "{\n  \"description\" : \"a \\\" \\\\\",\r\n\t\"list\": [ 1,\n 2 ],\n  \"offset\": 5\n}";
        let notification = parse(json).unwrap();
        assert_eq!(notification.raw(), r#"{"description":"a \" \\","list":[1,2],"offset":5}"#);
    }

    #[test]
    fn what_has_no_valid_offset_is_undecodable() {
        for json in [
            "",
            "null",
            "7",
            "[5]",
            "{}",
            "not json",
            r#"{"offset":null}"#,
            r#"{"offset":"5"}"#,
            r#"{"offset":-1}"#,
            r#"{"offset":1.5}"#,
            r#"{"offset":9223372036854775808}"#,
            r#"{"offset":5} {}"#,
            r#"{"offset":5"#,
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn fields_that_other_servers_leave_out_or_null_are_optional() {
        let bare = r#"{"type":"NewMessage","notificationReceiverHerId":7,"offset":5}"#;
        let nulls = r#"{"relatedMessageId":null,"type":"NewMessage","notificationReceiverHerId":7,"notificationTriggeredByHerId":null,"description":null,"createdAt":null,"offset":5}"#;
        let fields = parse(bare).unwrap().fields().unwrap();
        assert_eq!(fields, parse(nulls).unwrap().fields().unwrap());
        assert_eq!((fields.notification_id, fields.created_at), (None, None));
    }

    #[test]
    fn times_are_read_with_and_without_an_offset() {
        let at = |time: &str| {
            let json = format!(
                r#"{{"type":"T","notificationReceiverHerId":7,"createdAt":"{time}","offset":5}}"#
            );
            parse(&json).unwrap().fields().map(|fields| fields.created_at.unwrap().to_string())
        };
        for time in [
            "2026-05-08T08:32:15.31+00:00",
            "2026-05-08T10:32:15.3100000+02:00",
            "2026-05-08T08:32:15.31Z",
            "2026-05-08T08:32:15.31",
        ] {
            assert_eq!(at(time).unwrap(), "2026-05-08T08:32:15.31Z", "{time}");
        }
        assert!(at("yesterday").is_err());
    }
}
