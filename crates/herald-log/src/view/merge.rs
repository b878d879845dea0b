//! Several receivers' postings of one segment as one ascending sequence.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use herald_types::HerId;

use super::index::{FileIndex, Index, Posting};
use crate::ReadError;

/// How many postings of a receiver are read from the file at a time.
const READ_AHEAD: u32 = 64;

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
) -> Result<Vec<Posting>, ReadError> {
    let mut cursors = Vec::new();
    let mut heap = BinaryHeap::new();
    for receiver in receivers {
        let Some(mut cursor) = Cursor::new(index, *receiver, after)? else { continue };
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

/// A receiver's postings behind some offset.
enum Cursor<'a> {
    Memory(std::slice::Iter<'a, Posting>),
    File { index: &'a FileIndex, rest: Range<u32>, read: std::vec::IntoIter<Posting> },
}

impl<'a> Cursor<'a> {
    fn new(
        index: &'a Index,
        receiver: HerId,
        after: Option<u64>,
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
                let mut end = rest.end;
                while after.is_some() && rest.start < end {
                    let middle = rest.start.midpoint(end);
                    let posting = index.postings(middle..middle + 1)?;
                    if is_handled(posting[0].delta) {
                        rest.start = middle + 1;
                    } else {
                        end = middle;
                    }
                }
                Ok(Some(Self::File { index, rest, read: Vec::new().into_iter() }))
            }
        }
    }

    fn next(&mut self) -> Result<Option<Posting>, ReadError> {
        match self {
            Self::Memory(postings) => Ok(postings.next().copied()),
            Self::File { index, rest, read } => {
                if read.len() == 0 && rest.start < rest.end {
                    let end = rest.end.min(rest.start.saturating_add(READ_AHEAD));
                    *read = index.postings(rest.start..end)?.into_iter();
                    rest.start = end;
                }
                Ok(read.next())
            }
        }
    }
}
