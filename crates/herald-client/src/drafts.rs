//! Drafts on their way: each gets an id before it is sent, and each batch of lines knows where they came from.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use herald_types::Draft;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Error, Problem, notification::read_object};

/// The request for these drafts, each with an id, and how many they are.
pub(crate) fn request(drafts: impl IntoIterator<Item = Draft>) -> (usize, Bytes) {
    #[derive(Serialize)]
    struct Request {
        notifications: Vec<Draft>,
    }
    let with_id = |draft: Draft| Draft {
        notification_id: draft.notification_id.or_else(|| Some(Uuid::now_v7())),
        ..draft
    };
    let notifications: Vec<_> = drafts.into_iter().map(with_id).collect();
    let count = notifications.len();
    let body = serde_json::to_vec(&Request { notifications });
    (count, body.expect("numbers and text always serialise").into())
}

/// The most lines of one request.
pub const BATCH_LINES_MAX: usize = 10_000;
/// A batch takes no further line once it has so many bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Lines for one request, in their order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    lines: BytesMut,
    /// Where each line stood in its input, from 1: a server counts the lines of a request.
    numbers: Vec<u64>,
}

impl Batch {
    /// A batch without lines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the line that stood at `number` (from 1) of the input, with an id if it has none; blank lines are skipped.
    pub fn push(&mut self, number: u64, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.lines.extend_from_slice(&with_id(line, Uuid::now_v7));
        self.lines.extend_from_slice(b"\n");
        self.numbers.push(number);
    }

    /// Whether it has as many lines or bytes as a request should.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.numbers.len() >= BATCH_LINES_MAX || self.lines.len() >= BATCH_BYTES_MAX
    }

    /// Whether it has no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// How many lines it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Where its first line stood in the input.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.numbers.first().copied()
    }

    /// The body of the request.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.lines.clone().freeze()
    }

    /// The error with the input's line numbers in place of the request's.
    #[must_use]
    pub fn locate(&self, mut error: Error) -> Error {
        if let Error::Refused(refusal) = &mut error
            && let Some(problem) = &mut refusal.problem
        {
            self.locate_problem(problem);
        }
        error
    }

    fn locate_problem(&self, problem: &mut Problem) {
        let violations = problem.validation_errors.iter_mut().flatten();
        for text in violations.chain(&mut problem.detail) {
            if let Some(located) = self.locate_text(text) {
                *text = located;
            }
        }
    }

    /// `line 3: …` with the number that the line has in the input.
    fn locate_text(&self, text: &str) -> Option<String> {
        let rest = text.strip_prefix("line ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (line, rest) = rest.split_at(digits);
        let number = self.numbers.get(line.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some(format!("line {number}{rest}"))
    }
}

/// The draft with a `notificationId`: the idempotency key that makes it safe to send again.
///
/// A draft that has one keeps it, and every other byte of it stays as it is. What is no JSON object stays as it is, too: the
/// server says what is wrong with it.
pub fn with_id(draft: &[u8], make: impl FnOnce() -> Uuid) -> Cow<'_, [u8]> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(rename = "notificationId", default, borrow, deserialize_with = "present")]
        id: Option<&'a RawValue>,
    }
    /// Unlike `Option`'s own, this tells null from nothing.
    fn present<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
        <&RawValue>::deserialize(input).map(Some)
    }

    let Ok(Id { id }) = read_object::<Id<'_>>(draft) else { return draft.into() };
    match id {
        Some(id) if id.get() != "null" => draft.into(),
        Some(null) => {
            let start = null.get().as_ptr() as usize - draft.as_ptr() as usize;
            let (before, after) = (&draft[..start], &draft[start + null.get().len()..]);
            [before, format!("\"{}\"", make()).as_bytes(), after].concat().into()
        }
        None => {
            let open = memchr::memchr(b'{', draft).map_or(0, |place| place + 1);
            let (before, after) = draft.split_at(open);
            let comma = if after.trim_ascii_start().starts_with(b"}") { "" } else { "," };
            let id = format!("\"notificationId\":\"{}\"{comma}", make());
            [before, id.as_bytes(), after].concat().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::Refusal;

    const ID: &str = "0198d3a6-0000-7000-8000-000000000001";

    fn given(draft: &str) -> String {
        let draft = with_id(draft.as_bytes(), || ID.parse().unwrap()).into_owned();
        String::from_utf8(draft).unwrap()
    }

    #[test]
    fn a_draft_without_an_id_gets_one_and_keeps_every_other_byte() {
        let id = format!(r#""notificationId":"{ID}""#);
        assert_eq!(given("{}"), format!("{{{id}}}"));
        assert_eq!(given("{ }"), format!("{{{id} }}"));
        assert_eq!(given(r#"{ "a" : 1.0 }"#), format!(r#"{{{id}, "a" : 1.0 }}"#));
        assert_eq!(
            given(r#"{"a":{"notificationId":"x"},"notificationId" : null }"#),
            format!(r#"{{"a":{{"notificationId":"x"}},"notificationId" : "{ID}" }}"#)
        );
        assert_eq!(
            given(r#"{"notification\u0049d":null}"#),
            format!(r#"{{"notification\u0049d":"{ID}"}}"#)
        );
    }

    #[test]
    fn a_draft_with_an_id_and_what_is_no_draft_stay_as_they_are() {
        for draft in [
            r#"{"notificationId":"0f84d750-8ce3-4471-a1ac-ab7a55e609c0"}"#,
            r#"{"notificationId":"wrong"}"#,
            r#"{"notificationId":7}"#,
            r#"{"notificationId":null,"notificationId":null}"#,
            r#"[null]"#,
            "[]",
            "{",
            "x",
        ] {
            assert_eq!(given(draft), draft);
        }
    }

    #[test]
    fn a_refusal_names_the_line_of_the_input() {
        let mut batch = Batch::new();
        for (number, line) in [(10_001, "{}"), (10_002, " \r"), (10_003, "{}\r"), (10_004, "{}")] {
            batch.push(number, line.as_bytes());
        }
        assert_eq!((batch.len(), batch.first()), (3, Some(10_001)));
        let problem = Problem {
            detail: Some("line 2: see validationErrors".into()),
            validation_errors: Some(vec![
                "line 2: type: required".into(),
                "line 3: x, as in line 1".into(),
                "line 4: none of ours".into(),
                "no line".into(),
            ]),
            ..Problem::default()
        };
        let refusal = Refusal {
            status: StatusCode::BAD_REQUEST,
            retry_after: None,
            problem: Some(problem),
            challenge: None,
        };
        let error = batch.locate(Error::Refused(Box::new(refusal)));
        assert_eq!(
            error.to_string(),
            "the server answered 400 Bad Request: line 10003: see validationErrors (line 10003: \
             type: required; line 10004: x, as in line 1; line 4: none of ours; no line)"
        );
    }

    #[test]
    fn a_batch_is_full_at_10000_lines_or_8_mib() {
        let mut batch = Batch::new();
        for number in 1..BATCH_LINES_MAX as u64 {
            batch.push(number, b"[]");
        }
        assert!(!batch.is_full());
        batch.push(1, b"[]");
        assert!(batch.is_full());

        let mut batch = Batch::new();
        batch.push(1, &vec![b'x'; BATCH_BYTES_MAX - 2]);
        assert!(!batch.is_full());
        batch.push(2, b"x");
        assert!(batch.is_full());
    }
}
