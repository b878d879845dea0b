//! All the state that a reader has.

use herald_types::{Offset, Receivers};

/// Whose notifications a reader wants, and the last offset it has handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    receivers: Receivers,
    after: Offset,
}

impl Cursor {
    /// A reader of `receivers` that has handled everything up to and including `after`.
    #[must_use]
    pub const fn new(receivers: Receivers, after: Offset) -> Self {
        Self { receivers, after }
    }

    /// Whose notifications.
    #[must_use]
    pub const fn receivers(&self) -> &Receivers {
        &self.receivers
    }

    /// The last offset handled.
    #[must_use]
    pub const fn after(&self) -> Offset {
        self.after
    }

    /// Moves to `until`, up to which everything has been handed out.
    ///
    /// Invariant: a cursor never moves backwards.
    ///
    /// # Panics
    /// If `until` is below the last offset handled.
    pub fn advance(&mut self, until: Offset) {
        assert!(until >= self.after, "a cursor never moves backwards");
        self.after = until;
    }
}
