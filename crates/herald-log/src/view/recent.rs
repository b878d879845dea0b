//! The newest records, in a ring by offset, threaded by receiver.
//!
//! ```text
//! newest   7 ─► 45460          slots   45457   45458   45459   45460
//!          9 ─► 45459          of        7       9       9       7
//!                              previous  ·       ·     45458   45457
//! ```
//!
//! "Anything new for these?" is one lookup for each receiver and touches nothing else; or, for a reader of many receivers
//! that is close behind the tail, one look at each record that it has not seen. What has left the ring is told apart by
//! receiver, so a reader who needs the disk is told so at once.

use std::collections::VecDeque;

use bytes::Bytes;
use foldhash::{HashMap, HashMapExt as _};
use herald_types::{HerId, Offset};

use super::segment::Marks;
use crate::{
    frame::Frame,
    page::{Page, PageBounds, Sink, stored_offset},
};

/// How many records a read looks at in one direction before it tries the other.
const FEW_STEPS: usize = 512;
/// How many it looks at before it goes through all that there are: so many unread are close together.
const STEPS_MAX: usize = 4096;
/// What a slot costs beside its body: the slot, its thread, and a record's share of its frame.
const SLOT_BYTES: usize = 80;

/// What a body has, about.
const BODY_BYTES_USUAL: usize = 512;

/// The newest records, the newest offset of every receiver, and where the log stands.
pub(crate) struct Recent {
    /// Tail and trim point belong to what is here: they change under the same lock.
    pub(crate) marks: Marks,
    bytes_max: usize,
    bytes: usize,
    /// The offset of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// For each slot the offset before of the same receiver, 0 if there is none. Apart from the slots, so that
    /// following a thread stays in the processor's cache.
    previous: VecDeque<u64>,
    /// Of each receiver that has a record; 24 bytes and their place in the table for each.
    receivers: HashMap<HerId, Newest>,
}

struct Slot {
    receiver: HerId,
    body: Bytes,
}

/// A receiver's newest offset, and its newest one that is not in the ring; 0 where there is none.
#[derive(Clone, Copy, Default)]
struct Newest {
    offset: u64,
    evicted: u64,
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
            previous: VecDeque::new(),
            receivers: HashMap::new(),
        }
    }

    /// Tells of what is on disk only: a receiver's newest offset before the first frame that was added.
    pub(crate) fn tie(&mut self, receiver: HerId, older: u64) {
        let newest = self.receivers.entry(receiver).or_default();
        newest.offset = newest.offset.max(older);
        newest.evicted = newest.evicted.max(older);
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
            let newest = self.receivers.entry(record.receiver).or_default();
            self.previous.push_back(newest.offset);
            newest.offset = record.offset;
            let body = frame.bytes.slice(record.body_range());
            self.bytes += body.len() + SLOT_BYTES;
            self.slots.push_back(Slot { receiver: record.receiver, body });
        }
        self.evict_to(self.bytes_max);
        self.marks = marks;
    }

    fn evict_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(slot) = self.slots.pop_front()
        {
            self.bytes -= slot.body.len() + SLOT_BYTES;
            self.previous.pop_front();
            if let Some(newest) = self.receivers.get_mut(&slot.receiver) {
                newest.evicted = self.first;
            }
            self.first += 1;
        }
    }

    /// Forgets receivers of which retention has left nothing.
    pub(crate) fn forget_trimmed(&mut self) {
        let trim_point = self.marks.trim_point;
        self.receivers.retain(|_, newest| newest.offset > trim_point);
    }

    /// Whether everything after `tail` is here.
    pub(crate) fn covers(&self, tail: u64) -> bool {
        self.first <= tail + 1
    }

    fn place(&self, offset: u64) -> Option<usize> {
        usize::try_from(offset.checked_sub(self.first)?).ok()
    }

    /// Writes one page for `receivers` (ascending) to `sink`; or `None`, and nothing is written, where the disk must be
    /// asked.
    pub(crate) fn read(
        &self,
        receivers: &[HerId],
        after: Offset,
        bounds: PageBounds,
        sink: &mut dyn Sink,
    ) -> Option<Page> {
        let handled = after.get().max(self.marks.trim_point);
        let page = Page::new(after, stored_offset(self.marks.tail()));
        let unread = self.marks.tail().saturating_sub(handled);
        let limit = bounds.records.get();
        let offsets = if self.covers(handled) && unread < receivers.len() as u64 {
            self.forwards(receivers, handled, limit, usize::MAX)
        } else {
            let evicted = |receiver| self.receivers.get(receiver).map(|newest| newest.evicted);
            if receivers.iter().filter_map(evicted).any(|evicted| evicted > handled) {
                return None;
            }
            self.find(receivers, handled, limit)
        };
        Some(self.write(page, &offsets, bounds, sink))
    }

    /// The first offsets behind `handled`, ascending, all of which are here.
    ///
    /// Backwards along the threads costs what is unread, forwards what lies between: whoever has little unread is found by
    /// the one, whoever has much by the other.
    fn find(&self, receivers: &[HerId], handled: u64, limit: usize) -> Vec<u64> {
        if let Some(offsets) = self.backwards(receivers, handled, FEW_STEPS) {
            return offsets;
        }
        let offsets = self.forwards(receivers, handled, limit, STEPS_MAX);
        if offsets.len() == limit {
            return offsets;
        }
        let all = self.backwards(receivers, handled, STEPS_MAX);
        all.unwrap_or_else(|| self.forwards(receivers, handled, limit, usize::MAX))
    }

    /// Follows the threads of `receivers` down to `handled`; `None` after so many steps.
    fn backwards(&self, receivers: &[HerId], handled: u64, steps_max: usize) -> Option<Vec<u64>> {
        let mut offsets = Vec::new();
        for receiver in receivers {
            let newest = self.receivers.get(receiver).map(|newest| newest.offset);
            let mut offset = newest.unwrap_or_default();
            while offset > handled {
                if offsets.len() == steps_max {
                    return None;
                }
                offsets.push(offset);
                let place = self.place(offset).expect("what was not evicted is here");
                offset = self.previous[place];
            }
        }
        offsets.sort_unstable();
        Some(offsets)
    }

    /// Goes through at most `slots_max` records behind `handled`, each of which is here if it is for one of `receivers`.
    fn forwards(
        &self,
        receivers: &[HerId],
        handled: u64,
        limit: usize,
        slots_max: usize,
    ) -> Vec<u64> {
        let start = self.place(handled + 1).unwrap_or(0).min(self.slots.len());
        let slots = self.slots.range(start..).take(slots_max).zip(self.first + start as u64..);
        let theirs = slots.filter(|(slot, _)| receivers.binary_search(&slot.receiver).is_ok());
        theirs.map(|(_, offset)| offset).take(limit).collect()
    }

    fn write(
        &self,
        mut page: Page,
        offsets: &[u64],
        bounds: PageBounds,
        sink: &mut dyn Sink,
    ) -> Page {
        let offsets = &offsets[..offsets.len().min(bounds.records.get())];
        let bodies = || {
            offsets.iter().map(|offset| {
                let place = self.place(*offset).expect("it was there a moment ago");
                &*self.slots[place].body
            })
        };
        let bytes: usize = bodies().map(<[u8]>::len).sum();
        // The last one may go beyond the bound.
        sink.reserve(offsets.len(), bytes.min(bounds.bytes.saturating_add(BODY_BYTES_USUAL)));
        for (offset, body) in offsets.iter().zip(bodies()) {
            if !page.push(stored_offset(*offset), body, bounds, sink) {
                break;
            }
        }
        page
    }

    /// The newest record's receiver and offset. Looks at every receiver.
    pub(crate) fn newest(&self) -> Option<(HerId, u64)> {
        let newest = self.receivers.iter().map(|(receiver, newest)| (*receiver, newest.offset));
        newest.max_by_key(|(_, offset)| *offset)
    }

    /// How many receivers have a record.
    pub(crate) fn receivers(&self) -> usize {
        self.receivers.len()
    }
}
