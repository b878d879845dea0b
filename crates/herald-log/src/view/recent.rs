//! The newest records, in a ring by offset, threaded by receiver.
//!
//! ```text
//! newest   7 ─► 45460          slots   45457   45458   45459   45460
//!          9 ─► 45459          of        7       9       9       7
//!                              prev      ·       ·     45458   45457
//! ```
//!
//! "Anything new for these?" is one lookup for each receiver and touches nothing else. A thread that leaves the ring
//! before it reaches what the reader has handled means: ask the disk.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use herald_types::{HerId, Offset};
use uuid::Uuid;

use super::segment::Marks;
use crate::{
    frame::Frame,
    page::{Page, PageBounds, Record},
};

/// How many records a read follows threads for; a reader so far behind is served from the index, which searches.
const STEPS_MAX: usize = 4096;
/// What a slot costs beside its body: the slot, its place among the ids and a share of its frame.
const SLOT_BYTES: usize = 160;

/// The newest records, the newest offset of every receiver, and where the log stands.
pub(crate) struct Recent {
    /// Tail and trim point belong to what is here: they change under the same lock.
    pub(crate) marks: Marks,
    bytes_max: usize,
    bytes: usize,
    /// The offset of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// The newest offset of each receiver that has a record; 8 bytes and their place in the table for each.
    newest: HashMap<HerId, u64>,
    ids: HashMap<Uuid, u64>,
}

struct Slot {
    receiver: HerId,
    /// The offset before of the same receiver, 0 if there is none.
    previous: u64,
    notification_id: Uuid,
    body: Bytes,
}

impl Recent {
    /// Nothing in memory yet of a log that stands at `marks`.
    pub(crate) fn new(bytes_max: usize, marks: Marks) -> Self {
        Self {
            marks,
            bytes_max,
            bytes: 0,
            first: marks.next_offset,
            slots: VecDeque::new(),
            newest: HashMap::new(),
            ids: HashMap::new(),
        }
    }

    /// Ties the threads to what is on disk only: `older` has each receiver's newest offset before the first frame that
    /// was added.
    pub(crate) fn tie(&mut self, older: &HashMap<HerId, u64>) {
        for slot in &mut self.slots {
            if slot.previous == 0 {
                slot.previous = older.get(&slot.receiver).copied().unwrap_or_default();
            }
        }
        for (receiver, offset) in older {
            self.newest.entry(*receiver).or_insert(*offset);
        }
    }

    /// Adds a frame; the log stands at `marks` behind it.
    pub(crate) fn add(&mut self, frame: &Frame, marks: Marks) {
        let next = self.first + self.slots.len() as u64;
        if frame.header.first_offset != next {
            // Offsets have jumped: the ring begins again behind the jump, the disk has what was before.
            self.evict_to(0);
            self.first = frame.header.first_offset;
        }
        for record in &frame.records {
            let previous = self.newest.insert(record.receiver, record.offset).unwrap_or_default();
            let body = frame.bytes.slice(record.body_range());
            self.bytes += body.len() + SLOT_BYTES;
            self.ids.insert(record.notification_id, record.offset);
            let (receiver, notification_id) = (record.receiver, record.notification_id);
            self.slots.push_back(Slot { receiver, previous, notification_id, body });
        }
        self.evict_to(self.bytes_max);
        self.marks = marks;
    }

    fn evict_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(slot) = self.slots.pop_front()
        {
            self.bytes -= slot.body.len() + SLOT_BYTES;
            // An id may have come again behind the trim point; then it belongs to the later slot.
            if self.ids.get(&slot.notification_id) == Some(&self.first) {
                self.ids.remove(&slot.notification_id);
            }
            self.first += 1;
        }
    }

    /// Forgets receivers of which retention has left nothing.
    pub(crate) fn forget_trimmed(&mut self) {
        let trim_point = self.marks.trim_point;
        self.newest.retain(|_, newest| *newest > trim_point);
    }

    /// Whether everything after `tail` is here.
    pub(crate) fn covers(&self, tail: u64) -> bool {
        self.first <= tail + 1
    }

    /// The offset of a record with this id, if it is here and not trimmed.
    pub(crate) fn find_id(&self, id: Uuid) -> Option<Offset> {
        let offset = *self.ids.get(&id).filter(|offset| **offset > self.marks.trim_point)?;
        Offset::new(offset)
    }

    /// The record at `offset`, if it is here.
    pub(crate) fn record(&self, offset: Offset) -> Option<Record> {
        let slot = self.slot(offset.get())?;
        Some(Record { offset, body: slot.body.clone() })
    }

    fn slot(&self, offset: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(offset.checked_sub(self.first)?).ok()?)
    }

    /// One page for `receivers`, or `None` where the disk must be asked.
    pub(crate) fn read(
        &self,
        receivers: &[HerId],
        after: Offset,
        bounds: PageBounds,
    ) -> Option<Page> {
        let handled = after.get().max(self.marks.trim_point);
        let mut offsets = Vec::new();
        for receiver in receivers {
            let mut offset = self.newest.get(receiver).copied().unwrap_or_default();
            while offset > handled {
                if offsets.len() == STEPS_MAX {
                    return None;
                }
                offsets.push(offset);
                offset = self.slot(offset)?.previous;
            }
        }
        offsets.sort_unstable();
        let mut page = Page::new(after, Offset::new(self.marks.tail()).expect("tails are offsets"));
        for offset in offsets {
            let slot = self.slot(offset).expect("it was there a moment ago");
            if !page.push(Record::new(offset, slot.body.clone()), bounds) {
                break;
            }
        }
        Some(page)
    }

    /// How many receivers have a record.
    pub(crate) fn receivers(&self) -> usize {
        self.newest.len()
    }
}
