//! Where a consumer keeps its cursor.

mod file;

use std::error::Error as StdError;

pub use file::{CheckpointError, CheckpointFile};

use crate::Cursor;

/// Where a [`Consumer`](crate::Consumer) keeps its cursor: a file, a row, a key.
///
/// A store that keeps the cursor in the same transaction as the work needs none of this: it takes
/// [`Notifications::cursor_after`](crate::Notifications::cursor_after), and each notification takes effect exactly once.
pub trait Checkpoint: Send {
    /// Why it cannot be read or replaced.
    type Error: StdError + Send + Sync + 'static;

    /// The cursor that is kept; `None` only if none ever was.
    ///
    /// Whatever is there and cannot be used is an error, never `None`: a consumer that takes damage for a first start
    /// begins somewhere else, and loses or repeats what lies between.
    fn load(&mut self) -> impl Future<Output = Result<Option<Cursor>, Self::Error>> + Send;

    /// Keeps `cursor` in place of the one before, durable when this returns; an offset behind the one kept stays as it is kept.
    ///
    /// May be dropped half way and called again: then either the old cursor or the new one is kept, whole.
    fn save(&mut self, cursor: &Cursor) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// `None` keeps nothing: each start is the first.
impl<C: Checkpoint> Checkpoint for Option<C> {
    type Error = C::Error;

    async fn load(&mut self) -> Result<Option<Cursor>, Self::Error> {
        match self {
            Some(checkpoint) => checkpoint.load().await,
            None => Ok(None),
        }
    }

    async fn save(&mut self, cursor: &Cursor) -> Result<(), Self::Error> {
        match self {
            Some(checkpoint) => checkpoint.save(cursor).await,
            None => Ok(()),
        }
    }
}
