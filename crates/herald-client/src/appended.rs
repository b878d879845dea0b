//! What became of an append.

use bytes::Bytes;
use herald_types::Offset;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    Undecodable,
    notification::{one_line, read_time},
};

/// What became of the drafts of one append. All of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// What became of each draft, in their order.
    pub answers: Vec<Answer>,
    /// The name of the log that they are in.
    pub history: Option<Uuid>,
}

/// What became of one draft: the server's own object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Invariant: UTF-8, as all JSON that was read.
    raw: Bytes,
}

/// The fields of an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AnswerFields {
    /// The draft's id, or the one that the server made.
    pub notification_id: Uuid,
    /// Its place in the log.
    pub offset: Offset,
    /// When it was made.
    #[serde(default, deserialize_with = "read_time")]
    pub created_at: Option<Timestamp>,
    /// It had been stored before; offset and time are the first one's.
    #[serde(default)]
    pub duplicate: bool,
}

impl Answer {
    pub(crate) fn new(raw: Bytes) -> Self {
        Self { raw: one_line(raw) }
    }

    /// The server's object on one line.
    #[must_use]
    pub fn raw(&self) -> &str {
        str::from_utf8(&self.raw).unwrap_or_default()
    }

    /// Its fields.
    ///
    /// # Errors
    /// [`Undecodable`] if one is missing or has another shape.
    pub fn fields(&self) -> Result<AnswerFields, Undecodable> {
        Ok(serde_json::from_slice(&self.raw)?)
    }
}
