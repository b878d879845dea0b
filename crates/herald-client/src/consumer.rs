//! Notifications with a checkpoint: what a consumer that is restarted now and then needs.

use std::{error::Error as StdError, fmt, time::Duration};

use herald_types::HerId;
use tokio::time::{Instant, sleep_until};

use crate::{Checkpoint, Client, Cursor, Error, Event, Notification, Notifications, Start, Status};

/// [`Notifications`] whose cursor is kept by a [`Checkpoint`]; made by [`Client::consumer`].
///
/// Handle a notification, then [`ack`](Consumer::ack) it: what was handled and not yet kept comes again after a crash, and
/// nothing is lost.
pub struct Consumer<C> {
    notifications: Notifications,
    checkpoint: C,
    every: Duration,
    saved_at: Instant,
    /// What the checkpoint keeps.
    kept: Option<Cursor>,
    /// The cursor is worth keeping even if nothing has been kept yet: a server has said which log it is of.
    is_certain: bool,
}

/// Why a consumer cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError<E: StdError + 'static> {
    /// The server refused, or has another log.
    #[error(transparent)]
    Client(#[from] Error),
    /// The checkpoint cannot be read or replaced.
    #[error(transparent)]
    Checkpoint(E),
    /// The checkpoint was made for other receivers. It was left as it is.
    #[error(
        "the checkpoint is of other receivers than were asked for (it names {kept}, asked for were {asked}); it was left as it is"
    )]
    OtherReceivers {
        /// How many receivers it names.
        kept: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// There is no checkpoint, and nothing was said about where to start without one.
    #[error("there is no checkpoint yet, and nothing says where to begin without one")]
    NoCheckpoint,
}

impl<E: StdError> ConsumerError<E> {
    /// Whether the same call may succeed by itself. A checkpoint's own errors say so themselves, as
    /// [`CheckpointError::is_retryable`](crate::CheckpointError::is_retryable); here they need somebody to look.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retryable(),
            Self::Checkpoint(_) | Self::OtherReceivers { .. } | Self::NoCheckpoint => false,
        }
    }
}

impl<C> fmt::Debug for Consumer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("cursor", self.notifications.cursor())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Everything for `receivers` after what `checkpoint` keeps, or, if it keeps nothing yet, from `start` on.
    ///
    /// Without a `start` there must be a checkpoint: for a consumer that has run before, a missing one has been lost.
    /// [`Start::Now`] is asked of the server and kept before this returns.
    ///
    /// # Errors
    /// [`ConsumerError`] if the checkpoint cannot be used, or the server cannot say where now is.
    pub async fn consumer<C: Checkpoint>(
        &self,
        receivers: impl IntoIterator<Item = HerId>,
        mut checkpoint: C,
        start: impl Into<Option<Start>>,
    ) -> Result<Consumer<C>, ConsumerError<C::Error>> {
        let asked = Cursor::new(receivers, herald_types::Offset::ZERO).map_err(Error::from)?;
        let kept = checkpoint.load().await.map_err(ConsumerError::Checkpoint)?;
        let start = start.into();
        let cursor = match (&kept, start) {
            (Some(kept), _) if kept.receivers() == asked.receivers() => kept.clone(),
            (Some(kept), _) => {
                let (kept, asked) = (kept.receivers().len(), asked.receivers().len());
                return Err(ConsumerError::OtherReceivers { kept, asked });
            }
            (None, Some(start)) => self.begin(asked.receivers().iter().copied(), start).await?,
            (None, None) => return Err(ConsumerError::NoCheckpoint),
        };
        let mut consumer = Consumer {
            notifications: self.notifications(cursor),
            checkpoint,
            every: Duration::ZERO,
            saved_at: Instant::now(),
            is_certain: start == Some(Start::Now),
            kept,
        };
        consumer.save().await?;
        Ok(consumer)
    }
}

impl<C: Checkpoint> Consumer<C> {
    /// Replaces the checkpoint only so often, to catch up faster, with so much more to repeat after a crash. Without this it is
    /// replaced after each acknowledgement.
    #[must_use]
    pub fn save_every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// The next notification, or what else there is to know, as [`Notifications::next`]; saves what is due meanwhile.
    ///
    /// May be dropped at any time and called again.
    ///
    /// # Errors
    /// [`ConsumerError`] for what does not pass by itself, and when the checkpoint cannot be replaced.
    pub async fn next(&mut self) -> Result<Event, ConsumerError<C::Error>> {
        loop {
            self.save_if_due().await?;
            let save_at = self.saved_at.checked_add(self.every).filter(|_| self.has_moved());
            let event = tokio::select! {
                biased;
                event = self.notifications.next() => event?,
                () = at(save_at) => continue,
            };
            // A place to go on from, even if nothing follows it.
            self.is_certain |= !matches!(event, Event::Status(_))
                || matches!(event, Event::Status(Status::Connected { .. }));
            return Ok(event);
        }
    }

    /// Says that this notification, and every one before it on its connection, is handled, and saves the cursor if that is due.
    ///
    /// May be dropped: the cursor has moved then, and is saved by a later call.
    ///
    /// # Errors
    /// [`ConsumerError::Checkpoint`] when it cannot be replaced. The cursor has moved all the same: a later save catches up.
    pub async fn ack(
        &mut self,
        notification: &Notification,
    ) -> Result<(), ConsumerError<C::Error>> {
        self.notifications.ack(notification);
        self.save_if_due().await
    }

    /// Saves the cursor now, if it has moved: the last thing to do before a planned end.
    ///
    /// # Errors
    /// [`ConsumerError::Checkpoint`] when it cannot be replaced.
    pub async fn save(&mut self) -> Result<(), ConsumerError<C::Error>> {
        if self.has_moved() {
            let cursor = self.notifications.cursor();
            self.checkpoint.save(cursor).await.map_err(ConsumerError::Checkpoint)?;
            self.kept = Some(cursor.clone());
            self.saved_at = Instant::now();
        }
        Ok(())
    }

    /// Up to where everything is handled.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        self.notifications.cursor()
    }

    fn has_moved(&self) -> bool {
        match &self.kept {
            Some(kept) => kept != self.notifications.cursor(),
            None => self.is_certain,
        }
    }

    async fn save_if_due(&mut self) -> Result<(), ConsumerError<C::Error>> {
        if self.has_moved() && self.saved_at.elapsed() >= self.every {
            self.save().await?;
        }
        Ok(())
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
