//! Several receivers' postings of one segment as one ascending sequence.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use herald_types::HerId;

use super::index::{FileIndex, Index, Posting};
use crate::{ReadError, disk::Access, frame};

/// How many postings of a receiver are read from the file at a time.
const READ_AHEAD: u32 = 128;

/// The first `limit` postings of `receivers` with an offset in `(after, until]`, counted from the segment's first;
/// `after` is `None` where it lies before the segment.
///
/// A merge of sorted lists with a heap (Knuth, vol. 3, 5.4.1): each receiver's next posting waits in it.
pub(crate) fn first(
    index: &Index,
    receivers: &[HerId],
    after: Option<u64>,
    until: u64,
    limit: usize,
    access: Access,
) -> Result<Vec<Posting>, ReadError> {
    let mut cursors = Vec::new();
    let mut heap = BinaryHeap::new();
    for receiver in receivers {
        let Some(mut cursor) = Cursor::new(index, *receiver, after, access)? else { continue };
        if let Some(posting) = cursor.next()? {
            heap.push(Reverse((posting.delta, cursors.len())));
            cursors.push((cursor, posting));
        }
    }
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(Reverse((delta, number))) = heap.pop()
        && u64::from(delta) <= until
    {
        let (cursor, posting) = &mut cursors[number];
        found.push(*posting);
        if let Some(next) = cursor.next()? {
            *posting = next;
            heap.push(Reverse((next.delta, number)));
        }
    }
    Ok(found)
}

/// How far before its guessed place a posting is looked for at once.
const GUESS_MARGIN: u32 = 16;
/// How often a place is guessed from its neighbours before the rest is halved.
const GUESSES: u32 = 4;

/// Where those of the postings `range`, whose last one is `newest` and lies behind `after`, begin that lie behind `after`;
/// and the first ones of them, where they were read on the way.
///
/// Interpolation search (Knuth, vol. 3, 6.2.1): where offsets are spread evenly, or there are few of them, the first guess
/// is close, and what is read to see that is what is wanted.
fn behind(
    index: &FileIndex,
    mut range: Range<u32>,
    after: u64,
    newest: u32,
    access: Access,
) -> Result<(u32, Vec<Posting>), ReadError> {
    let is_handled = |posting: &Posting| u64::from(posting.delta) <= after;
    let guess = range.start + interpolate(after, u64::from(newest), range.end - range.start);
    let start = guess.saturating_sub(GUESS_MARGIN).max(range.start);
    let window = start..range.end.min(guess.saturating_add(READ_AHEAD));
    let mut read = index.postings(window.clone(), access)?;
    let (Some(first), Some(last)) = (read.first(), read.last()) else {
        return Ok((range.start, read));
    };
    let mut high_delta = u64::from(newest);
    if !is_handled(first) && window.start > range.start {
        (range.end, high_delta) = (window.start, u64::from(first.delta));
    } else if is_handled(last) && window.end < range.end {
        range.start = window.end;
    } else {
        let handled = read.partition_point(is_handled);
        read.drain(..handled);
        return Ok((window.start + frame::length(handled), read));
    }
    Ok((search(index, range, after, high_delta, access)?, Vec::new()))
}

/// How far into `len` postings with offsets up to `high`, spread evenly, the first one behind `after` stands.
fn interpolate(after: u64, high: u64, len: u32) -> u32 {
    let part = after.saturating_mul(u64::from(len)).checked_div(high).unwrap_or(0);
    u32::try_from(part).unwrap_or(u32::MAX).min(len.saturating_sub(1))
}

/// The first of the postings `range`, behind which one at `high_delta` stands, that lies behind `after`; its end if none
/// does.
fn search(
    index: &FileIndex,
    range: Range<u32>,
    after: u64,
    mut high_delta: u64,
    access: Access,
) -> Result<u32, ReadError> {
    let Range { start: mut low, end: mut high } = range;
    let (mut low_delta, mut guesses) = (0, 0);
    while low < high {
        let middle = if guesses < GUESSES && high_delta > low_delta {
            low + interpolate(after.saturating_sub(low_delta), high_delta - low_delta, high - low)
        } else {
            low.midpoint(high)
        };
        guesses += 1;
        let [posting] = index.postings(middle..middle + 1, access)?[..] else { break };
        let delta = u64::from(posting.delta);
        if delta <= after {
            (low, low_delta) = (middle + 1, delta);
        } else {
            (high, high_delta) = (middle, delta);
        }
    }
    Ok(low)
}

/// A receiver's postings behind some offset.
enum Cursor<'a> {
    Memory(std::slice::Iter<'a, Posting>),
    File {
        index: &'a FileIndex,
        rest: Range<u32>,
        read: std::vec::IntoIter<Posting>,
        access: Access,
    },
}

impl<'a> Cursor<'a> {
    fn new(
        index: &'a Index,
        receiver: HerId,
        after: Option<u64>,
        access: Access,
    ) -> Result<Option<Self>, ReadError> {
        let is_handled = |delta: u32| after.is_some_and(|after| u64::from(delta) <= after);
        match index {
            Index::Memory(index) => {
                let Some(postings) = index.receivers.get(&receiver) else { return Ok(None) };
                let start = postings.partition_point(|posting| is_handled(posting.delta));
                Ok(Some(Self::Memory(postings[start..].iter())))
            }
            Index::File(index) => {
                let Some((mut rest, newest)) = index.receiver(receiver) else { return Ok(None) };
                let mut read = Vec::new();
                if is_handled(newest) {
                    return Ok(None);
                }
                if let Some(after) = after {
                    (rest.start, read) = behind(index, rest.clone(), after, newest, access)?;
                    rest.start += frame::length(read.len());
                }
                Ok(Some(Self::File { index, rest, read: read.into_iter(), access }))
            }
        }
    }

    fn next(&mut self) -> Result<Option<Posting>, ReadError> {
        match self {
            Self::Memory(postings) => Ok(postings.next().copied()),
            Self::File { index, rest, read, access } => {
                if read.len() == 0 && rest.start < rest.end {
                    let end = rest.end.min(rest.start.saturating_add(READ_AHEAD));
                    *read = index.postings(rest.start..end, *access)?.into_iter();
                    rest.start = end;
                }
                Ok(read.next())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{
        disk::{Disk, memory::MemoryDisk},
        frame::{Batch, tests::prepared},
        order::Position,
        view::{index::MemoryIndex, segment::Marks},
    };

    const SALT: u64 = 7;

    /// The index of a segment whose record number n is for the receiver that `of` says, in memory and as a file.
    fn indexes(count: u64, of: impl Fn(u64) -> u32) -> [Index; 2] {
        let mut index = MemoryIndex::new(Marks::START);
        let records = (1..=count).map(|number| prepared(number, of(number), "x")).collect();
        let batch = Batch { id: 1, first_offset: 1, trim_point: 0, time_ms: 1, records };
        let frame = batch.encode(Position(1), Position(0), SALT);
        index.add(&frame.header, 72, &frame.records);
        let file = MemoryDisk::default().create("index").unwrap();
        file.write_all_at(&index.encode(SALT), 0).unwrap();
        let opened = FileIndex::open(Path::new("index"), file, SALT, Marks::START).unwrap();
        [Index::Memory(index), Index::File(Arc::new(opened))]
    }

    #[test]
    fn a_file_gives_what_memory_gives_however_offsets_are_spread() {
        let even = indexes(900, |_| 1);
        let few = indexes(900, |number| if number % 300 == 7 { 1 } else { 2 });
        let bunched = indexes(3000, |number| if (500..2700).contains(&number) { 2 } else { 1 });
        let late = indexes(3000, |number| if number > 2000 { 1 } else { 2 });
        let receivers = [HerId::new(1).unwrap()];
        for [memory, file] in [even, few, bunched, late] {
            for after in [None].into_iter().chain((0..3000).map(Some)) {
                for limit in [1, 200] {
                    let ask = |index| {
                        first(index, &receivers, after, u64::MAX, limit, Access::Disk).unwrap()
                    };
                    assert_eq!(ask(&file), ask(&memory), "after {after:?}");
                }
            }
        }
    }
}
