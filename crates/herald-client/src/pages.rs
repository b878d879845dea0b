//! Page after page until none is left.

use std::vec;

use herald_types::{HerId, Offset, PageLimit};

use crate::{Client, Cursor, Error, Page, cursor::Progress};

/// The pages after a cursor, in their order; made by [`Client::pages`].
///
/// More than 1500 receivers are asked for run after run, as [`Cursor`] has them.
#[derive(Debug)]
pub struct Pages {
    client: Client,
    limit: PageLimit,
    cursor: Cursor,
    progress: Vec<Progress>,
    runs: vec::IntoIter<Run>,
    now: Option<Run>,
}

/// Where one run stands.
#[derive(Debug)]
struct Run {
    number: usize,
    receivers: Vec<HerId>,
    /// Everything up to here has been handed out.
    after: Offset,
}

impl Pages {
    pub(crate) fn new(client: Client, cursor: Cursor, limit: PageLimit) -> Self {
        let runs = cursor.runs().enumerate().map(|(number, (receivers, after))| Run {
            number,
            receivers: receivers.to_vec(),
            after,
        });
        let mut runs = runs.collect::<Vec<_>>().into_iter();
        let now = runs.next();
        let progress = cursor.offsets().iter().copied().map(Progress::new).collect();
        Self { client, limit, cursor, progress, runs, now }
    }

    /// The next page that has notifications, or `None` when nothing is left.
    ///
    /// Only an empty page is the last: a short one may have ended for another reason. May be dropped and called again.
    ///
    /// # Errors
    /// [`Error`] as for [`Client::poll`], and when a page comes from another log than the one before.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        while let Some(run) = &mut self.now {
            let mut page = self.client.poll(&run.receivers, run.after, self.limit).await?;
            self.cursor.check_history(page.position.history)?;
            // A server that repeats what it was told is handled must not be asked the same for ever.
            page.notifications.retain(|notification| {
                let is_newer = notification.offset() > run.after;
                run.after = run.after.max(notification.offset());
                is_newer
            });
            let (number, last) = (run.number, run.after);
            run.after = run.after.max(page.until.unwrap_or(Offset::ZERO));
            let progress = &mut self.progress[number];
            let has_some = !page.notifications.is_empty();
            if has_some {
                progress.hand_out(last);
            }
            self.cursor.advance(number, progress.look(run.after));
            if has_some {
                (page.run, page.last) = (number, last);
                return Ok(Some(page));
            }
            self.now = self.runs.next();
        }
        Ok(None)
    }

    /// Says that this page, and every one before it, is handled.
    pub fn ack(&mut self, page: &Page) {
        let Some(progress) = self.progress.get_mut(page.run) else { return };
        self.cursor.advance(page.run, progress.ack(page.last));
    }

    /// Up to where everything is handled: what to keep, and to begin with the next time.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }
}
