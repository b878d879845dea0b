//! One reader of the log: a poll is one page, a stream is pages until it ends.
//!
//! This crate refuses to know HTTP and who may read what. It keeps no queue and no task for a reader: a stream is a
//! cursor that is polled, and the socket behind it is the back-pressure.

mod cursor;
mod open_streams;
mod poll;
mod stream;

pub use cursor::Cursor;
pub use open_streams::{OpenStreams, Permit, SOURCE_SYSTEM_OTHER, SOURCE_SYSTEMS_MAX, StreamLag};
pub use poll::{POLL_BYTES_MAX, poll};
pub use stream::{RETRY_HINT_MS, STREAM_PAGE_BYTES, STREAM_PAGE_RECORDS, Stream, StreamSettings};
