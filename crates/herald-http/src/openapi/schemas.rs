//! What the wire looks like, for the document alone: no code reads or writes these.

#![expect(dead_code, reason = "read by the derives alone")]

use utoipa::ToSchema;
use uuid::Uuid;

/// The version of the API.
#[derive(ToSchema)]
pub(crate) enum ApiVersion {
    #[schema(rename = "3")]
    Three,
}

/// The number that names a communication party.
#[derive(ToSchema)]
#[schema(value_type = i32, minimum = 1, maximum = 2_147_483_647, example = 8_139_764)]
pub(crate) struct HerId(i32);

/// What happened to a message.
#[derive(ToSchema)]
pub(crate) enum NotificationType {
    /// A new business document is ready for download.
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

/// A notification. More fields may come.
#[derive(ToSchema)]
#[schema(
    rename_all = "camelCase",
    example = json!({
        "notificationId": "5f0c2f4e-3f57-4f0e-9d0c-0f6f2a1f7b11",
        "relatedMessageId": "0f84d750-8ce3-4471-a1ac-ab7a55e609c0",
        "type": "MessageSentStateUpdated",
        "notificationReceiverHerId": 8_139_764,
        "notificationTriggeredByHerId": 90_215,
        "description": "Message sent to receiver.",
        "createdAt": "2026-05-08T08:32:15.31+00:00",
        "offset": 45_459
    })
)]
pub(crate) struct Notification {
    /// Its id, which the producer may choose.
    notification_id: Uuid,
    /// The message that it is about.
    related_message_id: Uuid,
    #[schema(rename = "type", inline)]
    kind: NotificationType,
    /// Whom it is for.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    notification_receiver_her_id: i32,
    /// Who caused it, if known.
    #[schema(required, minimum = 1, maximum = 2_147_483_647)]
    notification_triggered_by_her_id: Option<i32>,
    /// For people.
    #[schema(max_length = 1024)]
    description: String,
    /// When it was stored: RFC 3339 with a numeric offset.
    #[schema(format = DateTime)]
    created_at: String,
    /// Its place among all notifications. Ascending; gaps are normal.
    #[schema(minimum = 1)]
    offset: i64,
}

/// One page.
#[derive(ToSchema)]
pub(crate) struct NotificationPage {
    /// Ascending by offset; empty when nothing is new.
    #[schema(max_items = 1000)]
    notifications: Vec<Notification>,
}

/// One event of a stream.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct StreamEvent {
    #[schema(inline)]
    event: StreamEventType,
    /// Of `notification`: the offset, which a reconnecting reader sends as `Last-Event-ID`.
    id: Option<String>,
    /// Of `notification`: a `Notification` on one line, byte for byte as in a poll's answer.
    data: String,
    /// How many milliseconds to wait before coming back; with the end of a stream.
    #[schema(minimum = 500, maximum = 3000)]
    retry: Option<i32>,
}

/// What an event is about: `connected` is the first one, and its `data` is empty.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(crate) enum StreamEventType {
    /// The stream is open.
    Connected,
    /// A notification.
    Notification,
}

/// A notification to append.
#[derive(ToSchema)]
#[schema(
    rename_all = "camelCase",
    example = json!({
        "relatedMessageId": "0f84d750-8ce3-4471-a1ac-ab7a55e609c0",
        "type": "NewMessage",
        "notificationReceiverHerId": 8_139_764,
        "notificationTriggeredByHerId": 90_215,
        "description": "New message ready for download."
    })
)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    /// The idempotency key; made by the server if left out.
    notification_id: Option<Uuid>,
    /// The message that it is about.
    related_message_id: Uuid,
    #[schema(rename = "type", inline)]
    kind: NotificationType,
    /// Whom it is for.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    notification_receiver_her_id: i32,
    /// Who caused it, if known.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    notification_triggered_by_her_id: Option<i32>,
    /// For people; a default by type if left out.
    #[schema(max_length = 1024)]
    description: Option<String>,
}

/// What is appended together, all or none.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DraftBatch {
    #[schema(min_items = 1, max_items = 1000)]
    notifications: Vec<Draft>,
}

/// What became of the drafts, in their order.
#[derive(ToSchema)]
pub(crate) struct AppendAnswer {
    #[schema(min_items = 1)]
    notifications: Vec<Appended>,
}

/// What became of one draft.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Appended {
    /// Its id, made by the server if it had none.
    notification_id: Uuid,
    /// Its place among all notifications, or that of the first one with this id.
    #[schema(minimum = 1)]
    offset: i64,
    /// When it was stored, or the first one with this id was.
    #[schema(format = DateTime)]
    created_at: String,
    /// Whether a notification with this id was stored already.
    duplicate: bool,
}

/// What `/ping` answers.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Pong {
    #[schema(example = "pong")]
    response: String,
    #[schema(format = DateTime, example = "2026-05-08T08:32:15.31+00:00")]
    timestamp_utc: String,
}

/// Problem details (RFC 9457).
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// The kind of problem, `urn:herald:problem:…`.
    #[schema(rename = "type")]
    kind: String,
    /// A few words, the same for every problem of the kind.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: i32,
    /// What went wrong here, and what to do.
    detail: String,
    /// The path that was asked.
    instance: String,
    /// 1001 with status 400, 1202 for a HER-id without access, 0 otherwise.
    error_code: i32,
    /// The same as the header `x-request-id`.
    request_id: String,
    /// Everything that is wrong with the request; null where the request is not the problem.
    #[schema(required)]
    validation_errors: Option<Vec<String>>,
    /// When it happened.
    #[schema(format = DateTime)]
    timestamp: String,
}
