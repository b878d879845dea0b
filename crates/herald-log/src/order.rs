//! A log of batches with a conditional append: the one thing in which a single node and a cluster differ.
//!
//! Only the sequencer appends. It numbers a batch behind the position that its view has reached, and the order stores
//! the batch right behind that position or not at all; so whoever wins, the batch was numbered by somebody who had
//! seen everything before it.

pub(crate) mod condition;
pub(crate) mod engine;
pub(crate) mod jetstream;
pub(crate) mod join;
pub(crate) mod local;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod place;
pub(crate) mod postgres;
pub(crate) mod replicated;
#[cfg(test)]
mod sim;

use std::{fmt, io};

use crate::frame::{Batch, Frame};

/// Keeps the order of batches.
pub(crate) trait Order: Send + 'static {
    /// What has come from elsewhere.
    type News: Send;

    /// Waits until it is this replica's turn to append, and takes in what has come meanwhile.
    fn turn(&mut self) -> impl Future<Output = ()> + Send;

    /// Stores `batch` right behind what this replica's view holds, and adds it to the view once it is safe.
    ///
    /// # Errors
    /// [`OrderError`] says whether nothing happened.
    fn append(&mut self, batch: Batch) -> impl Future<Output = Result<Frame, OrderError>> + Send;

    /// Waits for what comes from elsewhere. Cancel-safe.
    fn news(&mut self) -> impl Future<Output = Self::News> + Send;

    /// Takes it in.
    fn take(&mut self, news: Self::News) -> impl Future<Output = ()> + Send;

    /// Whether nothing can be appended until an older batch is settled, so that whoever waits need not wait longer.
    fn is_stuck(&self) -> bool {
        false
    }

    /// Nothing waits behind the last batch, which was answered for.
    fn idle(&self);
}

/// A batch's place in the order, from 1; 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(pub(crate) u64);

impl Position {
    /// The place right behind.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// Another replica's batch came first; it is in the view by now. Number this one again.
    #[error("another batch came first")]
    Conflict(Box<Batch>),
    /// Nothing happened.
    #[error("the batch was not stored")]
    Refused(#[source] io::Error),
    /// Nothing happened: the engine does not answer.
    #[error("the log's engine does not answer")]
    Away,
    /// Nothing happened, and nothing will: the engine keeps another log than the view.
    #[error("the engine's log has another history")]
    OtherHistory,
    /// Nothing happened, and nothing will until the log is opened again.
    #[error("the log is poisoned by an earlier failure")]
    Poisoned,
    /// The batch may be found behind its position later, or not.
    #[error("the batch may still appear")]
    Unknown(#[source] io::Error),
}
