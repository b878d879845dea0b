//! An open stream: its bytes read as items, its silence counted, its offsets watched.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
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
const TURNS_MAX: u32 = 8;
/// A caller that comes back when the silence is over already may find what has come meanwhile for so long.
const COME_BACK: Duration = Duration::from_secs(5);

pub(super) struct Open {
    pub(super) order: Order,
    pub(super) position: LogPosition,
    bytes: BoxStream<'static, Result<bytes::Bytes, Error>>,
    parser: Parser,
    connected_by: Instant,
    pub(super) connected_at: Option<Instant>,
    /// Since when the connection has kept us waiting. Nobody waits before a call has found nothing.
    waiting_since: Option<Instant>,
    /// Until when a caller that came back late may still find something.
    late_until: Option<Instant>,
    /// How often other tasks have had their turn since it was too late, in calls that were dropped, too.
    turns: u32,
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
            late_until: None,
            turns: 0,
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
        if let Some(piece) = self.bytes.next().now_or_never() {
            // It may have come while the caller was elsewhere, nobody knows when.
            return self.came(piece, None);
        }
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        let silence = self.silence();
        let (mut deadline, error) = match self.connected_at {
            Some(_) => (since + silence, Error::Silent(silence)),
            None => (self.connected_by, Error::NotConnected(CONNECTED_WITHIN)),
        };
        if self.connected_at.is_some() && deadline < now {
            deadline = *self.late_until.get_or_insert(now + COME_BACK);
        }
        if let Ok(piece) = timeout_at(deadline, self.bytes.next()).await {
            return self.came(piece, Some(Instant::now()));
        }
        // What has come may not have been read: that is another task's work, and who was kept from running was not alone.
        while self.turns < TURNS_MAX {
            self.turns += 1;
            yield_now().await;
            if let Some(piece) = self.bytes.next().now_or_never() {
                return self.came(piece, None);
            }
        }
        Err(error)
    }

    /// A piece has come, at a known time if it was waited for; or the end has.
    fn came(
        &mut self,
        piece: Option<Result<bytes::Bytes, Error>>,
        at: Option<Instant>,
    ) -> Result<bytes::Bytes, Error> {
        (self.waiting_since, self.late_until, self.turns, self.came_at) = (None, None, 0, at);
        piece.unwrap_or(Err(Error::Ended))
    }

    /// For how long it may be silent.
    fn silence(&self) -> Duration {
        SILENCE_MAX.max(self.longest_gap * SILENCE_GAPS)
    }

    fn note_gap(&mut self, item: &Item) {
        match item {
            Item::Comment(_) => {
                // Who listens gives up before a longer one; a process that was stopped did not listen.
                if let (Some(last), Some(now)) = (self.last_comment, self.came_at)
                    && now - last <= self.silence()
                {
                    self.longest_gap = self.longest_gap.max(now - last);
                }
                self.last_comment = self.came_at;
            }
            Item::Event(_) => self.last_comment = None,
            Item::Retry(_) => {}
        }
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

    /// There is nothing more up to here.
    pub(super) fn looked(&mut self, until: Offset) {
        self.newest = self.newest.max(until);
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
