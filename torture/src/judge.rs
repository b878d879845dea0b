//! Reads all histories together and finds what breaks a promise. It knows the contract and nothing else: that an offset
//! once shown is for ever, that an answer over `(after, until]` has all there is in that range, and so on. What is there is
//! what all replicas show in the end.

mod appends;
mod log;
mod reads;
mod times;

use std::{collections::BTreeMap, fmt};

use log::Log;

use crate::History;

/// More violations of one kind than this are counted only.
const SHOWN_MAX: usize = 5;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// In the end, replicas do not hold the same bytes.
    CopiesDiffer,
    /// A body is no notification, or names another offset than it is shown with.
    Unreadable,
    /// One answer shows offsets that do not ascend.
    NotAscending,
    /// One id has two offsets.
    StoredTwice,
    /// What was answered with 201 is not there in the end.
    Lost,
    /// An id has another offset or time than it was answered with.
    Moved,
    /// What is stored is not what was asked for.
    ContentDiffers,
    /// Something is stored that nobody asked for.
    Unasked,
    /// Something is stored of a request that was refused.
    RefusedStored,
    /// Of a request that is stored whole or not at all, a part is stored, or was shown.
    Halved,
    /// The new ones of a request do not ascend in its order.
    OutOfOrder,
    /// An answer says `duplicate` of what nobody else has sent, or twice does not.
    FalseDuplicate,
    /// 409 where the content never differed.
    FalseConflict,
    /// A reader has passed an offset without being shown its notification.
    Missed,
    /// A reader was shown what is not there in the end.
    Vanished,
    /// One offset was shown with two bodies.
    BytesDiffer,
    /// A reader was told of an offset beyond all that is there in the end.
    BeyondTail,
    /// A replica does not show what it has answered with 201 before.
    Stale,
    /// A replica shows less than it did before.
    WentBack,
    /// Not every answer names the same history.
    OtherHistory,
    /// A replica that nobody disturbed was not answering, or too late.
    Unanswered,
    /// A replica that nobody disturbed refused to be read, or said that it is not ready.
    Unready,
    /// An answer that the contract does not know.
    Unexpected,
    /// A stream that was open in the end has not come to the end.
    Stuck,
}

/// One broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub kind: Kind,
    /// Who was told what.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// What the judge says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The first few of each kind.
    pub violations: Vec<Violation>,
    counts: BTreeMap<Kind, usize>,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many violations of each kind there are.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Kind, usize> {
        &self.counts
    }

    fn add(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN_MAX {
            self.violations.push(Violation { kind, what: what() });
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.counts {
            writeln!(f, "{kind:?}: {count}")?;
        }
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// Judges a run.
///
/// # Panics
/// When nobody has read what the replicas hold in the end: then there is nothing to judge by.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    assert!(!history.copies.is_empty(), "the copies are what all else is judged by");
    let mut verdict = Verdict::default();
    let log = Log::of(&history.copies, &mut verdict);
    appends::judge(history, &log, &mut verdict);
    reads::judge(history, &log, &mut verdict);
    times::judge(history, &mut verdict);
    verdict
}

#[cfg(test)]
mod tests;
