//! Where a client stands: its receivers and, for each connection that it takes to follow them, an offset.

use std::sync::Arc;

use herald_types::{HerId, Offset, RECEIVERS_MAX};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;

/// All the state that a client has to keep: whose notifications, and up to where they are handled.
///
/// One call takes at most 1500 receivers. More are sorted and split into *runs* of 1500, each with an offset of its own;
/// order is kept within a run, and so for each receiver.
///
/// As JSON it is an object of `history`, `offsets` and `receivers`; what does not fit together is not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Cursor {
    receivers: Arc<[HerId]>,
    offsets: Vec<Offset>,
    history: Option<Uuid>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    history: Option<Uuid>,
    offsets: Vec<Offset>,
    receivers: Vec<HerId>,
}

impl From<Cursor> for Stored {
    fn from(cursor: Cursor) -> Self {
        let receivers = cursor.receivers.to_vec();
        Self { history: cursor.history, offsets: cursor.offsets, receivers }
    }
}

impl TryFrom<Stored> for Cursor {
    type Error = InvalidCursor;

    /// An offset belongs to its run by the order of the receivers: another order would be another cursor.
    fn try_from(stored: Stored) -> Result<Self, InvalidCursor> {
        let is_sorted = stored.receivers.is_sorted_by(|before, after| before < after);
        if !is_sorted {
            return Err(InvalidCursor);
        }
        Self::stored(stored.receivers, stored.offsets, stored.history)
    }
}

/// Nobody to follow, or not one offset for each run of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cursor needs receivers, sorted and distinct where it is stored, and one offset for each {RECEIVERS_MAX} of them"
)]
pub struct InvalidCursor;

impl Cursor {
    /// Everything for `receivers` after `after`: 0 is from the oldest.
    ///
    /// # Errors
    /// [`InvalidCursor`] if there is no receiver.
    pub fn new(
        receivers: impl IntoIterator<Item = HerId>,
        after: Offset,
    ) -> Result<Self, InvalidCursor> {
        let receivers = sorted(receivers);
        let offsets = vec![after; receivers.len().div_ceil(RECEIVERS_MAX)];
        Self::stored(receivers, offsets, None)
    }

    /// A cursor as it was kept.
    ///
    /// # Errors
    /// [`InvalidCursor`] if there is no receiver, or not one offset for each run.
    pub fn stored(
        receivers: impl IntoIterator<Item = HerId>,
        offsets: Vec<Offset>,
        history: Option<Uuid>,
    ) -> Result<Self, InvalidCursor> {
        let receivers = sorted(receivers);
        if receivers.is_empty() || offsets.len() != receivers.len().div_ceil(RECEIVERS_MAX) {
            return Err(InvalidCursor);
        }
        Ok(Self { receivers: receivers.into(), offsets, history })
    }

    /// Whose notifications: sorted, distinct.
    #[must_use]
    pub fn receivers(&self) -> &[HerId] {
        &self.receivers
    }

    /// The last offset handled of each run, in the order of the runs.
    #[must_use]
    pub fn offsets(&self) -> &[Offset] {
        &self.offsets
    }

    /// The log that the offsets belong to, if a server has named one.
    #[must_use]
    pub fn history(&self) -> Option<Uuid> {
        self.history
    }

    /// The receivers of each run with its offset.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&[HerId], Offset)> {
        self.receivers.chunks(RECEIVERS_MAX).zip(self.offsets.iter().copied())
    }

    pub(crate) fn set_history(&mut self, history: Uuid) {
        self.history = Some(history);
    }

    /// Takes the history that a server names, and refuses another one, or none, from then on.
    pub(crate) fn check_history(&mut self, found: Option<Uuid>) -> Result<(), Error> {
        match self.history {
            Some(expected) if found != Some(expected) => {
                Err(Error::OtherHistory { expected, found })
            }
            _ => {
                self.history = found;
                Ok(())
            }
        }
    }

    /// Moves one run forward; never back.
    pub(crate) fn advance(&mut self, run: usize, to: Offset) {
        self.offsets[run] = self.offsets[run].max(to);
    }
}

fn sorted(receivers: impl IntoIterator<Item = HerId>) -> Vec<HerId> {
    let mut receivers: Vec<_> = receivers.into_iter().collect();
    receivers.sort_unstable();
    receivers.dedup();
    receivers
}

/// How far one run has been handed out, and how far that is handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    handed: Offset,
    handled: Offset,
    /// The server has looked up to here when the offset beside it was the last one handed out.
    looked: Option<(Offset, Offset)>,
}

impl Progress {
    pub(crate) fn new(after: Offset) -> Self {
        Self { handed: after, handled: after, looked: None }
    }

    /// The notification at `offset` goes out.
    pub(crate) fn hand_out(&mut self, offset: Offset) {
        self.handed = offset;
    }

    /// Everything up to `offset` is handled. Returns up to where that moves the cursor.
    pub(crate) fn ack(&mut self, offset: Offset) -> Offset {
        self.handled = self.handled.max(offset.min(self.handed));
        if let Some((until, handed)) = self.looked
            && self.handled >= handed
        {
            self.handled = self.handled.max(until);
            self.looked = None;
        }
        self.handled
    }

    /// The server has nothing more up to `until`. Returns up to where that moves the cursor: there only once everything
    /// handed out before is handled.
    pub(crate) fn look(&mut self, until: Offset) -> Offset {
        self.looked = Some((until, self.handed));
        self.ack(Offset::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(number: u64) -> Offset {
        Offset::new(number).unwrap()
    }

    #[test]
    fn receivers_are_split_into_runs_of_1500_sorted_ones() {
        let ids = |count: u32| (1..=count).rev().chain([1]).filter_map(HerId::new);
        for (count, runs) in [(1, 1), (1500, 1), (1501, 2), (3000, 2), (3001, 3)] {
            assert_eq!(Cursor::new(ids(count), offset(7)).unwrap().offsets().len(), runs);
        }
        let cursor = Cursor::new(ids(1501), offset(7)).unwrap();
        let last = cursor.runs().last().unwrap();
        assert_eq!(last, (&[HerId::new(1501).unwrap()][..], offset(7)));
        assert_eq!(Cursor::new([], Offset::ZERO), Err(InvalidCursor));
    }

    #[test]
    fn a_cursor_is_read_back_from_json_and_what_does_not_fit_together_is_not() {
        let two = r#"{"history":null,"offsets":[9223372036854775807],"receivers":[7,8]}"#;
        let cursor: Cursor = serde_json::from_str(two).unwrap();
        assert_eq!(serde_json::to_string(&cursor).unwrap(), two);
        for wrong in [
            two.replace("[7,8]", "[8,7]"),
            two.replace("[7,8]", "[7,7]"),
            two.replace("[7,8]", "[]"),
            two.replace("807]", "807,1]"),
            two.replace("807]", "808]"),
            two.replace(r#""receivers":[7,8]"#, r#""x":1"#),
        ] {
            assert!(serde_json::from_str::<Cursor>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_acknowledged_moves_the_cursor() {
        let mut progress = Progress::new(offset(5));
        progress.hand_out(offset(7));
        progress.hand_out(offset(9));
        assert_eq!(progress.ack(offset(7)), offset(7));
        assert_eq!(progress.ack(offset(6)), offset(7), "never back");
        assert_eq!(progress.ack(offset(100)), offset(9), "never past what was handed out");
    }

    #[test]
    fn until_moves_the_cursor_once_everything_handed_out_before_it_is_acknowledged() {
        let mut progress = Progress::new(offset(5));
        assert_eq!(progress.look(offset(6)), offset(6), "nothing is out");
        progress.hand_out(offset(7));
        progress.hand_out(offset(8));
        assert_eq!(progress.look(offset(20)), offset(6), "two are out");
        assert_eq!(progress.ack(offset(7)), offset(7), "one is out");
        assert_eq!(progress.ack(offset(8)), offset(20));
        progress.hand_out(offset(30));
        assert_eq!(progress.ack(offset(8)), offset(20));
        assert_eq!(progress.ack(offset(30)), offset(30));
        assert_eq!(progress.look(offset(25)), offset(30), "never back");
    }
}
