//! A log that has moved to another engine: whether all came along that this replica has shown.

use super::{Joining, Mismatch};
use crate::{
    frame::Frame,
    order::{
        Position,
        engine::{Engine, Look},
    },
    page::Record,
};

impl<E: Engine> Joining<E> {
    /// Says what the engine's log lacks of the view that this replica has of the same history, if anything. It was seeded from
    /// another view, which may have ended before this one; and since it goes on far above, its newest offset does not tell.
    /// `None`: the engine forgets while one looks, look again.
    pub(super) async fn lost(&self, look: &Look) -> Result<Option<Option<String>>, Mismatch> {
        let view = self.open().await?;
        let tail = view.marks().tail();
        let newest_record = self.blocking(move |_| view.newest_record()).await;
        let newest_record = newest_record.map_err(crate::OpenError::from)?;
        if look.newest == Position(0) {
            let what = "the engine's log is empty, and this replica's is not".to_owned();
            return Ok(Some((tail > 0).then_some(what)));
        }
        let Some(newest) = self.frame_at(look, look.newest).await? else { return Ok(None) };
        if newest.header.next_offset() <= tail {
            let what = format!(
                "the engine's log does not reach offset {tail}, which this replica has seen"
            );
            return Ok(Some(Some(what)));
        }
        let Some(record) = newest_record else { return Ok(Some(None)) };
        if record.offset.get() <= newest.header.trim_point {
            return Ok(Some(None));
        }
        let Some(frame) = self.frame_of(look, newest, record.offset.get()).await? else {
            return Ok(None);
        };
        let what = || {
            format!(
                "the engine's log has not the notification at offset {} that this replica has shown: it was seeded from a \
                 view with less",
                record.offset
            )
        };
        Ok(Some((!holds(&frame, &record)).then(what)))
    }

    /// The last batch that begins at or before `offset`, or the first one.
    pub(super) async fn frame_of(
        &self,
        look: &Look,
        newest: Frame,
        offset: u64,
    ) -> Result<Option<Frame>, Mismatch> {
        if newest.header.first_offset <= offset {
            return Ok(Some(newest));
        }
        let Some(mut found) = self.frame_at(look, look.first).await? else { return Ok(None) };
        // Invariant: `found` is at `low`, and the batch at `high` begins behind `offset`.
        let (mut low, mut high) = (look.first.0, look.newest.0);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let Some(frame) = self.frame_at(look, Position(middle)).await? else {
                return Ok(None);
            };
            if frame.header.first_offset <= offset {
                (low, found) = (middle, frame);
            } else {
                high = middle;
            }
        }
        Ok(Some(found))
    }
}

fn holds(frame: &Frame, record: &Record) -> bool {
    let found = frame.records.iter().find(|found| found.offset == record.offset.get());
    found.is_some_and(|found| frame.bytes[found.body_range()] == record.body)
}
