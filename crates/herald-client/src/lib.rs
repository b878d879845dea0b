//! Polls, streams and appends, and resumes by itself.
//!
//! This crate refuses to know what a notification means and where its caller keeps its work: it hands out each
//! notification as the server wrote it, with the cursor to keep once it is handled.

mod checkpoint;
mod client;
mod cursor;
pub mod drafts;
mod error;
mod notification;
mod notifications;
mod pages;
pub mod retry;
mod run;
pub mod sse;

pub use checkpoint::{CheckpointError, CheckpointFile};
pub use client::{
    APPEND_TIMEOUT, Appended, BODY_BYTES_MAX, CONNECT_TIMEOUT, Client, LogPosition, POLL_TIMEOUT,
    Page, RETRIES_MAX,
};
pub use cursor::{Cursor, InvalidCursor};
pub use error::{
    Error, Problem, Refusal, SOURCE_SYSTEM_CHARS_MAX, SettingsError, UndecodableSource,
};
pub use herald_types as types;
pub use notification::{Fields, Notification, Undecodable};
pub use notifications::{Event, Notifications, Status};
pub use pages::Pages;
pub use run::{CONNECTED_WITHIN, POLL_INTERVAL, SILENCE_GAPS, SILENCE_MAX, STREAM_AGAIN};
