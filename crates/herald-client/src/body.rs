//! Bodies of answers, read within bounds.

use std::fmt;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    Answer, Error, UndecodableSource,
    client::transport,
    notification::{elements, read_object},
};

/// The most bytes of a page or of the answer to an append, after decompression.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most objects of one body: what Herald answers to the largest append. A page has a hundredth of them.
pub const BODY_OBJECTS_MAX: usize = 100_000;

pub(crate) async fn read_body(mut answer: Response, limit_bytes: usize) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(transport)? {
        if body.len() + piece.len() > limit_bytes {
            return Err(undecodable("a body", UndecodableSource::Body { limit_bytes }));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The objects of `{"notifications":[…]}`, each as its own bytes.
pub(crate) fn read_notifications(body: &Bytes) -> Result<Vec<Bytes>, UndecodableSource> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, deserialize_with = "bounded")]
        notifications: Vec<&'a RawValue>,
    }
    let read: Body<'_> = read_object(body)?;
    Ok(elements(body, &read.notifications))
}

/// One answer for each draft, or it is not known what became of which.
pub(crate) fn read_answers(body: &Bytes, drafts: usize) -> Result<Vec<Answer>, UndecodableSource> {
    let answers = read_notifications(body)?;
    if answers.len() != drafts {
        return Err(UndecodableSource::Answers { answers: answers.len(), drafts });
    }
    Ok(answers.into_iter().map(Answer::new).collect())
}

/// A body of few bytes can have very many elements, and each costs more memory than it has bytes.
fn bounded<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Objects;

    impl<'de> Visitor<'de> for Objects {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut objects = Vec::new();
            while let Some(object) = array.next_element()? {
                if objects.len() == BODY_OBJECTS_MAX {
                    return Err(A::Error::custom(format_args!(
                        "more than {BODY_OBJECTS_MAX} objects"
                    )));
                }
                objects.push(object);
            }
            Ok(objects)
        }
    }

    input.deserialize_seq(Objects)
}

pub(crate) fn undecodable(what: &'static str, source: impl Into<UndecodableSource>) -> Error {
    Error::Undecodable { what, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_at_most_so_many_objects() {
        for (count, is_read) in [(BODY_OBJECTS_MAX, true), (BODY_OBJECTS_MAX + 1, false)] {
            let objects = vec!["0"; count].join(",");
            let body = format!("{{\"notifications\":[{objects}]}}").into();
            assert_eq!(
                read_notifications(&body).map(|all| all.len()).ok(),
                is_read.then_some(count)
            );
        }
    }

    #[test]
    fn an_append_is_answered_draft_by_draft() {
        let body = Bytes::from_static(b"{\"notifications\":[{},{}]}");
        assert_eq!(read_answers(&body, 2).unwrap().len(), 2);
        for drafts in [1, 3] {
            let error = read_answers(&body, drafts).unwrap_err();
            assert!(error.to_string().starts_with("2 answers"), "{error}");
        }
    }
}
