//! Polls, streams and appends, and resumes by itself.
//!
//! This crate refuses to know what a notification means and where its caller keeps its work: it hands out each
//! notification as the server wrote it, with the cursor to keep once it is handled. It works with every server of the
//! page: what Herald adds (`notificationId`, `id:` lines, `herald-…` headers, `: until` comments) is used when it is there.
//!
//! ```no_run
//! use herald_client::{CheckpointFile, Client, Event, Start};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8080", "Journal, v2.4")?;
//! let receivers = ["8139764".parse()?, "90215".parse()?];
//! let checkpoint = CheckpointFile::new("journal.checkpoint");
//! let mut consumer = client.consumer(receivers, checkpoint, Start::Beginning).await?;
//! loop {
//!     match consumer.next().await? {
//!         Event::Notification(notification) => {
//!             println!("{}", notification.raw()); // the work: handled when this is done
//!             consumer.ack(&notification).await?;
//!         }
//!         Event::Status(status) => eprintln!("{status}"),
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! # What is promised
//! - At least once: only [`Notifications::ack`] moves the cursor, so what was not acknowledged comes again after a restart.
//!   In one process nothing comes twice, not even while polling stands in for a stream that is held back.
//! - Order: ascending offsets for each receiver; with more than 1500 receivers, none between runs (see [`Cursor`]).
//! - No background task and no queue: nothing is read that was not asked for. Only a save of a [`CheckpointFile`] and the
//!   renewal of a token, once begun, are finished if nobody waits for them.
//!
//! # What fails
//! [`Notifications::next`] tries everything again that may pass ([`Error::is_retryable`]) and returns the rest: 204, statuses
//! other than 408, 429 and 5xx (redirects too: they are not followed), a wrong content type, data without an offset, and a
//! server whose log is another one than before, or no longer says which it is.
//!
//! # Features
//! All are on unless `default-features = false`.
//! - `helseid`: tokens of HelseID, or of another issuer that works like it, and a proof on each call ([`HelseId`]).
//! - `tls`: `https://` addresses, with rustls, ring, the system's trusted certificates, and those of [`ClientBuilder`].
//! - `compression`: pages and answers to appends as gzip, where the server offers it (a page of 1000 is a sixth); the bounds
//!   on a body are for what it becomes. A stream is never asked for compressed: what compresses holds events back.
//!
//! # Minimum Rust version
//! 1.89, the `rust-version` of the manifest. A newer one is asked for only with a new minor version.

mod appended;
mod body;
mod builder;
mod challenge;
mod checkpoint;
mod client;
mod consumer;
mod cursor;
pub mod drafts;
mod error;
#[cfg(feature = "helseid")]
mod helseid;
mod notification;
mod notifications;
mod pages;
mod retry;
mod run;
pub mod sse;
mod start;

pub use appended::{Answer, AnswerFields, Appended};
pub use body::{BODY_BYTES_MAX, BODY_OBJECTS_MAX};
pub use builder::ClientBuilder;
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointFile};
pub use client::{
    APPEND_TIMEOUT, CONNECT_TIMEOUT, Client, LogPosition, POLL_TIMEOUT, Page, RETRIES_MAX,
};
pub use consumer::{Consumer, ConsumerError};
pub use cursor::{Cursor, InvalidCursor};
pub use error::{
    Error, Problem, Refusal, SOURCE_SYSTEM_CHARS_MAX, SettingsError, TransportError,
    UndecodableSource,
};
#[cfg(feature = "helseid")]
pub use helseid::{
    DISCOVERY_AGE_MAX, HelseId, ISSUER_ANSWER_BYTES_MAX, NONCE_BYTES_MAX, NONCE_RETRIES_MAX,
    SIGN_IN_TIMEOUT, SignInError, SignInFailure, TOKEN_LIFETIME_ASSUMED, TOKEN_LIFETIME_MAX,
    TOKEN_REFUSED_MAX, TOKEN_RENEWAL_MARGIN, TOKEN_USE_MARGIN,
};
pub use notification::{Fields, Notification, Undecodable};
pub use notifications::{Event, Notifications, Status};
pub use pages::Pages;
pub use retry::{GOOD_AFTER, HINT_MAX, HINT_MIN, RETRY_AFTER_MAX, WAIT_BASE, WAIT_MAX};
pub use run::{CONNECTED_WITHIN, POLL_INTERVAL, SILENCE_GAPS, SILENCE_MAX, STREAM_AGAIN};
pub use start::Start;

/// The page's own types, as the server has them.
pub mod types {
    pub use herald_types::{
        DESCRIPTION_CHARS_MAX, Draft, HerId, NotificationType, Offset, PageLimit, RECEIVERS_MAX,
        draft::DRAFTS_MAX,
    };
}
