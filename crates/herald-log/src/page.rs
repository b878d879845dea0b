//! One page: what a read answers.

use bytes::Bytes;
use herald_types::{Offset, PageLimit};

/// A stored notification: its offset and its object's bytes, which are sent as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub offset: Offset,
    /// The JSON object, one line without its end.
    pub body: Bytes,
}

impl Record {
    /// A record whose offset was read from the disk, where it was an offset when it was written.
    pub(crate) fn new(offset: u64, body: Bytes) -> Self {
        Self { offset: Offset::new(offset).expect("stored offsets are offsets"), body }
    }
}

/// How much a page may hold: it ends with the record that reaches either bound, and always holds one if there is one.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// The most records.
    pub records: PageLimit,
    /// No record is added behind so many bytes of bodies.
    pub bytes: usize,
}

/// The records of some receivers in `(after, until]`, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    records: Vec<Record>,
    bytes: usize,
    full: bool,
    until: Offset,
}

impl Page {
    /// An empty page that has looked up to `tail`.
    pub(crate) fn new(after: Offset, tail: Offset) -> Self {
        Self { records: Vec::new(), bytes: 0, full: false, until: tail.max(after) }
    }

    /// Adds the next record; `false` when the page is full with it.
    pub(crate) fn push(&mut self, record: Record, bounds: PageBounds) -> bool {
        debug_assert!(self.records.last().is_none_or(|last| last.offset < record.offset));
        let offset = record.offset;
        self.bytes += record.body.len();
        self.records.push(record);
        self.full = self.records.len() >= bounds.records.get() || self.bytes >= bounds.bytes;
        if self.full {
            self.until = offset;
        }
        !self.full
    }

    /// The records, ascending by offset.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// How many bytes the bodies have.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every record of these receivers in `(after, until]` is in this page: the last one's offset when the page is
    /// full, else the tail when the read began; never below `after`.
    #[must_use]
    pub const fn until(&self) -> Offset {
        self.until
    }

    /// Whether a bound ended the page, so that more may follow at once.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.full
    }
}
