//! The page as types: what a notification, a receiver, an offset, a query and a problem *are*.
//!
//! This crate refuses to know where notifications come from and where they go: it has no I/O, no async and no clock.
//! *The page* is the published description of the Notifications API; docs/protocol.md follows it section by section.

mod causes;
pub mod draft;
pub mod notification;
pub mod offset;
pub mod problem;
pub mod query;
pub mod receiver;
pub mod violation;
pub mod wire;

pub use causes::with_causes;
pub use draft::{DESCRIPTION_CHARS_MAX, Draft};
pub use notification::{Notification, NotificationType};
pub use offset::Offset;
pub use query::{PageLimit, PollQuery, STREAM_OFFSET_REQUIRED, StreamQuery};
pub use receiver::{Grant, HerId, HerIdSet, HerIds, NotGranted, RECEIVERS_MAX, Receivers};
pub use violation::Violations;
