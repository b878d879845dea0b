//! An open stream: its bytes read as items, its silence counted, its offsets watched.

use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream::BoxStream};
use herald_types::Offset;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::CONNECTED_WITHIN;
use crate::{
    Error, LogPosition, Status,
    body::undecodable,
    client::Opened,
    sse::{self, Item, Parser},
};

/// How long a connection may be silent before it counts as dead, unless its comments come more slowly.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// A connection whose comments come slowly may be silent for so many times their longest gap.
pub const SILENCE_GAPS: u32 = 3;
/// How often other tasks have their turn before a silent connection is given up.
const TURNS: usize = 8;

pub(super) struct Open {
    pub(super) order: Order,
    pub(super) position: LogPosition,
    bytes: BoxStream<'static, Result<bytes::Bytes, Error>>,
    parser: Parser,
    connected_by: Instant,
    pub(super) connected_at: Option<Instant>,
    /// Since when the connection has kept us waiting: time that the caller spends elsewhere is no silence.
    waiting_since: Option<Instant>,
    /// When a call that waited was dropped.
    left_at: Option<Instant>,
    /// When the last piece came, if it was waited for.
    came_at: Option<Instant>,
    /// When the last comment came, if nothing else has come since.
    last_comment: Option<Instant>,
    longest_gap: Duration,
}

impl Open {
    pub(super) fn new(opened: Opened, after: Offset, connected_by: Instant) -> Self {
        Self {
            order: Order::new(after),
            position: opened.position,
            bytes: opened.bytes,
            parser: Parser::new(),
            connected_by,
            connected_at: None,
            waiting_since: None,
            left_at: None,
            came_at: None,
            last_comment: None,
            longest_gap: Duration::ZERO,
        }
    }

    pub(super) async fn item(&mut self) -> Result<Item, Error> {
        loop {
            if let Some(item) = self.parser.item().map_err(too_long)? {
                self.note_gap(&item);
                return Ok(item);
            }
            let piece = self.piece().await?;
            self.parser.push(&piece);
        }
    }

    async fn piece(&mut self) -> Result<bytes::Bytes, Error> {
        if let (Some(left_at), Some(since)) = (self.left_at.take(), &mut self.waiting_since) {
            *since += left_at.elapsed();
        }
        if let Some(piece) = self.bytes.next().now_or_never() {
            // It may have come while the caller was elsewhere, nobody knows when.
            (self.waiting_since, self.came_at) = (None, None);
            return piece.unwrap_or(Err(Error::Ended));
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let silence = SILENCE_MAX.max(self.longest_gap * SILENCE_GAPS);
        let (deadline, error) = match self.connected_at {
            Some(_) => (since + silence, Error::Silent(silence)),
            None => (self.connected_by, Error::NotConnected(CONNECTED_WITHIN)),
        };
        let leaving = Leaving(&mut self.left_at);
        let piece = match timeout_at(deadline, self.bytes.next()).await {
            Ok(piece) => piece,
            Err(_) => after_all(&mut self.bytes).await.ok_or(error)?,
        };
        drop(leaving);
        (self.waiting_since, self.came_at) = (None, Some(Instant::now()));
        piece.unwrap_or(Err(Error::Ended))
    }

    fn note_gap(&mut self, item: &Item) {
        match item {
            Item::Comment(_) => {
                if let (Some(last), Some(now)) = (self.last_comment, self.came_at) {
                    self.longest_gap = self.longest_gap.max(now - last);
                }
                self.last_comment = self.came_at;
            }
            Item::Event(_) => self.last_comment = None,
            Item::Retry(_) => {}
        }
    }
}

/// What has come although the clock says that it is too late: who was kept from running is late, too. Reading it is another
/// task's work, which has its turn first.
async fn after_all<S: Stream + Unpin>(stream: &mut S) -> Option<Option<S::Item>> {
    for _ in 0..TURNS {
        yield_now().await;
        if let Some(item) = stream.next().now_or_never() {
            return Some(item);
        }
    }
    None
}

/// Notes when a call is dropped.
struct Leaving<'a>(&'a mut Option<Instant>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        *self.0 = Some(Instant::now());
    }
}

/// The offsets of one answer, which rise behind what was asked for.
pub(super) struct Order {
    asked: Offset,
    newest: Offset,
    is_told: bool,
}

impl Order {
    pub(super) fn new(asked: Offset) -> Self {
        Self { asked, newest: asked, is_told: false }
    }

    /// What is wrong with this offset, said once: no client can tell a repeat from one that it has not seen.
    pub(super) fn check(&mut self, offset: Offset) -> Option<Status> {
        let after = self.newest;
        self.newest = after.max(offset);
        if offset > after || offset <= self.asked || self.is_told {
            return None;
        }
        self.is_told = true;
        Some(Status::NotAscending { offset, after })
    }
}

fn too_long(source: sse::TooLong) -> Error {
    undecodable("an event", source)
}
