//! Bugs that are planted on purpose, so that the simulation and the torture runs show that they find such.
//!
//! A product has none of this: it is compiled into tests, and with the feature `planted-bugs`, where `HERALD_PLANTED_BUG`
//! names the one that a process has.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A batch that another one came before is answered as stored.
    ConflictIsSuccess,
    /// A batch that another one came before is numbered again, and its ids are not looked for again.
    ConflictIsNotLookedAt,
    /// A batch of which nobody knows what became is answered as refused, and forgotten.
    UnknownIsRefused,
    /// A batch is shown before the engine has said that it is safe.
    TailMovesFirst,
}

#[cfg(any(test, feature = "planted-bugs"))]
impl Bug {
    /// All, with the names by which they are asked for.
    pub(crate) const ALL: [(Self, &str); 4] = [
        (Self::ConflictIsSuccess, "conflict-is-success"),
        (Self::ConflictIsNotLookedAt, "conflict-is-not-looked-at"),
        (Self::UnknownIsRefused, "unknown-is-refused"),
        (Self::TailMovesFirst, "tail-moves-first"),
    ];
}

/// Whether this process has that bug.
#[cfg(not(any(test, feature = "planted-bugs")))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "planted-bugs"))]
pub(crate) fn is_planted(bug: Bug) -> bool {
    #[cfg(test)]
    if simulated::PLANTED.get() == Some(bug) {
        return true;
    }
    named() == Some(bug)
}

#[cfg(feature = "planted-bugs")]
fn named() -> Option<Bug> {
    static NAMED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var("HERALD_PLANTED_BUG").ok()?;
        let bug = Bug::ALL.into_iter().find(|(_, its)| *its == name);
        Some(bug.expect("HERALD_PLANTED_BUG names a bug").0)
    })
}

#[cfg(all(test, not(feature = "planted-bugs")))]
const fn named() -> Option<Bug> {
    None
}

#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants one in what runs on this thread, or none.
    pub(crate) fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}
