//! One page for one poll.

use herald_log::{Log, Page, PageBounds, ReadError};
use herald_types::{PageLimit, wire::PollBody};

use crate::Cursor;

/// How many bytes of bodies a poll's page may hold.
///
/// More than 1000 of the longest notifications have (6.6 kB each), so that only the number asked for ends a page.
pub const POLL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Reads the page behind `cursor`, oldest first, at most `limit` records, as the body of an answer.
///
/// Cost: one lookup per receiver in memory when nothing is new or all of it is recent; only else the disk is asked.
///
/// # Errors
/// [`ReadError`] when the local view cannot be read.
///
/// Source: page, "Fetch Notifications (Polling)"; docs/protocol.md §3.
pub async fn poll(
    log: &Log,
    cursor: &Cursor,
    limit: PageLimit,
) -> Result<(Page, PollBody), ReadError> {
    let bounds = PageBounds { records: limit, bytes: POLL_BYTES_MAX };
    log.read(cursor.receivers(), cursor.after(), bounds).await
}
