//! Page after page until none is left.

use herald_types::{HerId, Offset, PageLimit};
use uuid::Uuid;

use crate::{Client, Error, Page};

/// The pages after an offset, in their order; made by [`Client::pages`].
#[derive(Debug)]
pub struct Pages {
    client: Client,
    receivers: Vec<HerId>,
    after: Offset,
    limit: PageLimit,
    history: Option<Uuid>,
    done: bool,
}

impl Pages {
    pub(crate) fn new(
        client: Client,
        receivers: Vec<HerId>,
        after: Offset,
        limit: PageLimit,
    ) -> Self {
        Self { client, receivers, after, limit, history: None, done: false }
    }

    /// The next page that has notifications, or `None` when nothing is left.
    ///
    /// Only an empty page is the last: a short one may have ended for another reason.
    ///
    /// # Errors
    /// [`Error`] as for [`Client::poll`], and when a page comes from another log than the one before.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.done {
            return Ok(None);
        }
        let mut page = self.client.poll(&self.receivers, self.after, self.limit).await?;
        let found = page.position.history;
        if let Some(expected) = self.history
            && found != self.history
        {
            return Err(Error::OtherHistory { expected, found });
        }
        self.history = found;
        // A server that repeats what it was told is handled must not be asked the same for ever.
        page.notifications.retain(|notification| {
            let newer = notification.offset() > self.after;
            if newer {
                self.after = notification.offset();
            }
            newer
        });
        if page.notifications.is_empty() {
            self.done = true;
            return Ok(None);
        }
        self.after = self.after.max(page.until.unwrap_or(Offset::ZERO));
        Ok(Some(page))
    }
}
