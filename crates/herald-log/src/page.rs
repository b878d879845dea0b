//! One page: what a read answers.

use bytes::Bytes;
use herald_types::{
    Offset, PageLimit,
    wire::{Events, PollBody},
};

/// A stored notification: its offset and its object's bytes, which are sent as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub offset: Offset,
    /// The JSON object, one line without its end.
    pub body: Bytes,
}

/// An offset that was read from the disk or memory, where it was an offset when it was written.
pub(crate) fn stored_offset(offset: u64) -> Offset {
    Offset::new(offset).expect("stored offsets are offsets")
}

/// How much a page may hold: it ends with the record that reaches either bound, and always holds one if there is one.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// The most records.
    pub records: PageLimit,
    /// No record is added behind so many bytes of bodies.
    pub bytes: usize,
}

/// What a page's records are written to, in ascending order: their only copy on the way to a reader.
pub trait Sink: Send {
    /// Makes room for so many more records with so many bytes of bodies, if it likes.
    fn reserve(&mut self, records: usize, bytes: usize);

    /// Adds the next record: its offset and its object.
    fn add(&mut self, offset: Offset, body: &[u8]);

    /// How long it is, to be cut to.
    fn mark(&self) -> usize;

    /// Takes everything behind `mark` out again.
    fn cut(&mut self, mark: usize);
}

impl Sink for Vec<Record> {
    fn reserve(&mut self, records: usize, _: usize) {
        Self::reserve(self, records);
    }

    fn add(&mut self, offset: Offset, body: &[u8]) {
        self.push(Record { offset, body: Bytes::copy_from_slice(body) });
    }

    fn mark(&self) -> usize {
        self.len()
    }

    fn cut(&mut self, mark: usize) {
        self.truncate(mark);
    }
}

impl Sink for PollBody {
    fn reserve(&mut self, records: usize, bytes: usize) {
        self.reserve(records, bytes);
    }

    fn add(&mut self, _: Offset, body: &[u8]) {
        self.push(body);
    }

    fn mark(&self) -> usize {
        self.len()
    }

    fn cut(&mut self, mark: usize) {
        self.truncate(mark);
    }
}

impl Sink for Events {
    fn reserve(&mut self, records: usize, bytes: usize) {
        self.reserve(records, bytes);
    }

    fn add(&mut self, offset: Offset, body: &[u8]) {
        self.push(offset, body);
    }

    fn mark(&self) -> usize {
        self.0.len()
    }

    fn cut(&mut self, mark: usize) {
        self.0.truncate(mark);
    }
}

/// What a read found of some receivers' records in `(after, until]`; the records themselves are in its [`Sink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    records: usize,
    bytes: usize,
    full: bool,
    until: Offset,
}

impl Page {
    /// An empty page that has looked up to `tail`.
    pub(crate) fn new(after: Offset, tail: Offset) -> Self {
        Self { records: 0, bytes: 0, full: false, until: tail.max(after) }
    }

    /// Adds the next record; `false` when the page is full with it.
    pub(crate) fn push(
        &mut self,
        offset: Offset,
        body: &[u8],
        bounds: PageBounds,
        sink: &mut dyn Sink,
    ) -> bool {
        sink.add(offset, body);
        self.bytes += body.len();
        self.records += 1;
        self.full = self.records >= bounds.records.get() || self.bytes >= bounds.bytes;
        if self.full {
            self.until = offset;
        }
        !self.full
    }

    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
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
