//! Where to begin without a cursor: a choice that only the caller can make.

use herald_types::{HerId, Offset, PageLimit};

use crate::{Client, Cursor, Error};

/// Where to begin. There is no default: the one repeats what another system may have handled, the other leaves out what
/// nobody may have handled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the oldest notification that the server still has.
    Beginning,
    /// With what comes after this call.
    Now,
    /// Behind this offset.
    After(Offset),
}

impl Client {
    /// A cursor for `receivers` at `start`.
    ///
    /// Only [`Start::Now`] asks the server: Herald says where its log ends, of another server of the page all pages are read
    /// to find out. The answer is a number and no promise: keep it before you rely on it.
    ///
    /// # Errors
    /// [`Error::Cursor`] without receivers; for [`Start::Now`], as [`Client::poll`].
    pub async fn begin(
        &self,
        receivers: impl IntoIterator<Item = HerId>,
        start: Start,
    ) -> Result<Cursor, Error> {
        let cursor = |after| Cursor::new(receivers, after);
        match start {
            Start::Beginning => Ok(cursor(Offset::ZERO)?),
            Start::After(offset) => Ok(cursor(offset)?),
            Start::Now => self.now(cursor(Offset::ZERO)?).await,
        }
    }

    /// Moves a cursor to the end of the log, run by run.
    async fn now(&self, mut cursor: Cursor) -> Result<Cursor, Error> {
        let runs: Vec<_> = cursor.runs().map(|(receivers, _)| receivers.to_vec()).collect();
        for (run, receivers) in runs.iter().enumerate() {
            let mut limit = PageLimit::MIN;
            let mut after = Offset::ZERO;
            loop {
                let page = self.poll(receivers, after, limit).await?;
                cursor.check_history(page.position.history)?;
                if let Some(tail) = page.position.tail {
                    after = tail;
                    break;
                }
                let last = page.notifications.last().map_or(Offset::ZERO, |last| last.offset());
                if last <= after {
                    break;
                }
                after = last;
                limit = PageLimit::MAX;
            }
            cursor.advance(run, after);
        }
        Ok(cursor)
    }
}
