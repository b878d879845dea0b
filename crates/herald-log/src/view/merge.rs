//! Several receivers' postings of one segment as one ascending sequence.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use herald_types::HerId;

use super::index::{FileIndex, Index, Posting};
use crate::{ReadError, disk::Access};

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

/// How often the place of a posting is guessed from its neighbours before the rest is halved.
const GUESSES: u32 = 4;

/// The first of the postings `range`, whose last one is `newest`, that lies behind `after`.
///
/// Interpolation search (Knuth, vol. 3, 6.2.1), which finds its place in one or two blocks where offsets are spread
/// evenly, and binary search where they are not.
fn search(
    index: &FileIndex,
    range: Range<u32>,
    after: u64,
    newest: u32,
    access: Access,
) -> Result<u32, ReadError> {
    let Range { start: mut low, end: mut high } = range;
    let (mut low_delta, mut high_delta) = (0, u64::from(newest));
    let mut guesses = 0;
    while low < high {
        let middle = if guesses < GUESSES && high_delta > low_delta {
            let part = after.saturating_sub(low_delta) * u64::from(high - low);
            let steps = part / (high_delta - low_delta);
            low + u32::try_from(steps).unwrap_or(u32::MAX).min(high - low - 1)
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
                if is_handled(newest) {
                    return Ok(None);
                }
                if let Some(after) = after {
                    rest.start = search(index, rest.clone(), after, newest, access)?;
                }
                Ok(Some(Self::File { index, rest, read: Vec::new().into_iter(), access }))
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
