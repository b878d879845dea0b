//! A notification and its types.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{HerId, Offset};

/// What happened to a message. Source: page, "Notification Types"; docs/protocol.md §5.
///
/// The page has announced more of them; who reads notifications treats the type as open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NotificationType {
    /// A new business document has been received and is ready for download.
    NewMessage,
    /// A new business document has been refused and not delivered.
    RefusedMessage,
    /// The send state of an outgoing business document has been updated.
    MessageSentStateUpdated,
    /// The application receipt of an outgoing business document has been updated or received.
    MessageApprecInfoUpdated,
    /// The transport delivery state of an outgoing business document has been updated.
    MessageDeliveryStateUpdated,
}

impl NotificationType {
    /// All five, in the page's order.
    pub const ALL: [Self; 5] = [
        Self::NewMessage,
        Self::RefusedMessage,
        Self::MessageSentStateUpdated,
        Self::MessageApprecInfoUpdated,
        Self::MessageDeliveryStateUpdated,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewMessage => "NewMessage",
            Self::RefusedMessage => "RefusedMessage",
            Self::MessageSentStateUpdated => "MessageSentStateUpdated",
            Self::MessageApprecInfoUpdated => "MessageApprecInfoUpdated",
            Self::MessageDeliveryStateUpdated => "MessageDeliveryStateUpdated",
        }
    }

    /// The description of a notification whose draft has none.
    #[must_use]
    pub const fn default_description(self) -> &'static str {
        match self {
            Self::NewMessage => "New message ready for download.",
            Self::RefusedMessage => "Message refused and not delivered.",
            Self::MessageSentStateUpdated => "Message sent to receiver.",
            Self::MessageApprecInfoUpdated => "Application receipt updated.",
            Self::MessageDeliveryStateUpdated => "Delivery state updated.",
        }
    }
}

impl fmt::Display for NotificationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names none of the five types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be NewMessage, RefusedMessage, MessageSentStateUpdated, MessageApprecInfoUpdated or \
     MessageDeliveryStateUpdated"
)]
pub struct InvalidType;

impl FromStr for NotificationType {
    type Err = InvalidType;

    fn from_str(text: &str) -> Result<Self, InvalidType> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(InvalidType)
    }
}

/// A stored notification, as Herald itself writes it.
///
/// Only tests and the comparison of a repeated `notificationId` read one; the server sends the stored bytes untouched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notification {
    /// The idempotency key of its append.
    pub notification_id: Uuid,
    /// The message that it is about.
    pub related_message_id: Uuid,
    /// What happened to the message.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// Whom it is for.
    pub notification_receiver_her_id: HerId,
    /// Who caused it, if known.
    pub notification_triggered_by_her_id: Option<HerId>,
    /// For people, at most 1024 characters.
    pub description: String,
    /// RFC 3339 with a numeric offset, exactly as it was answered.
    pub created_at: String,
    /// Its place in the log.
    pub offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_page_and_nothing_else() {
        for kind in NotificationType::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert_eq!("newmessage".parse::<NotificationType>(), Err(InvalidType));
    }
}
