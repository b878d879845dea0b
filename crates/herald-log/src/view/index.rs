//! What finds records in a segment: always derived from it, in memory while it is written, in a file once it is sealed.
//!
//! docs/storage.md §5 has the file to the byte. Only receivers and the filter of ids stay in memory; the rest is read
//! from the page cache, block by block, each with a checksum.

mod blocks;
pub(crate) use blocks::in_blocks;
mod filter;

use std::{
    hash::Hasher as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use foldhash::{HashMap, HashMapExt as _};
use herald_types::HerId;
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use uuid::Uuid;

use self::{
    blocks::{Blocks, BlocksError},
    filter::Filter,
};
use super::segment::Marks;
use crate::{
    ReadError,
    disk::{Access, File},
    frame::{self, RECORD_HEADER_BYTES, RecordAt, length, u32_at, u64_at},
    order::Position,
};

const MAGIC: &[u8; 8] = b"HERALDIX";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 88;
const RECEIVER_BYTES: usize = 12;
const TIME_BYTES: usize = 16;
const POSTING_BYTES: usize = 12;
const ID_BYTES: usize = 8 + POSTING_BYTES;
/// Frames whose times are this close share an entry of the times, so that retention is late by no more.
const TIME_STEP_MS: u64 = 1000;
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const RECORD_HEADER_LEN: u32 = RECORD_HEADER_BYTES as u32;

/// Where a record stands in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Posting {
    /// Its offset, counted from the segment's first.
    pub(crate) delta: u32,
    /// The first byte of its header in the file.
    pub(crate) at: u32,
    pub(crate) body_bytes: u32,
}

impl Posting {
    /// The first byte behind it.
    pub(crate) const fn end(&self) -> u32 {
        self.at + RECORD_HEADER_LEN + self.body_bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { delta: u32_at(bytes, 0), at: u32_at(bytes, 4), body_bytes: u32_at(bytes, 8) }
    }

    fn encode(self, out: &mut Vec<u8>) {
        for number in [self.delta, self.at, self.body_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The index of one segment.
pub(crate) enum Index {
    /// Of the segment being written, and until a full one's file is written.
    Memory(MemoryIndex),
    /// Of a sealed segment.
    File(Arc<FileIndex>),
}

impl Index {
    pub(crate) fn end(&self) -> Marks {
        match self {
            Self::Memory(index) => index.end,
            Self::File(index) => index.end,
        }
    }

    pub(crate) fn may_hold(&self, id: Uuid) -> bool {
        match self {
            Self::Memory(index) => index.ids.contains_key(&id),
            Self::File(index) => index.filter.may_hold(index.hash(id)),
        }
    }

    pub(crate) fn find_id(&self, id: Uuid) -> Result<Vec<Posting>, ReadError> {
        match self {
            Self::Memory(index) => Ok(index.find(id).into_iter().collect()),
            Self::File(index) => index.find_id(id),
        }
    }

    /// The newest offset of each receiver, counted from the segment's first.
    pub(crate) fn newest(&self, mut each: impl FnMut(HerId, u32)) {
        match self {
            Self::Memory(index) => {
                for (receiver, postings) in &index.receivers {
                    each(*receiver, postings.last().expect("a receiver has a posting").delta);
                }
            }
            Self::File(index) => {
                for receiver in &index.receivers {
                    each(receiver.her_id, receiver.newest);
                }
            }
        }
    }

    /// Times and the newest offset of the frames up to each, ascending.
    pub(crate) fn times(&self) -> Result<Vec<TimeMark>, ReadError> {
        match self {
            Self::Memory(index) => Ok(index.times.clone()),
            Self::File(index) => index.times(),
        }
    }
}

/// Frames up to `time_ms` have offsets up to `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeMark {
    /// The first time of the entry's frames: what stays fixed while the entry grows.
    from_ms: u64,
    pub(crate) time_ms: u64,
    pub(crate) offset: u64,
}

/// The index of a segment, built frame by frame.
pub(crate) struct MemoryIndex {
    first_offset: u64,
    pub(crate) receivers: HashMap<HerId, Vec<Posting>>,
    ids: HashMap<Uuid, Posting>,
    times: Vec<TimeMark>,
    pub(crate) end: Marks,
}

impl MemoryIndex {
    /// Of a segment that begins at `start`.
    pub(crate) fn new(start: Marks) -> Self {
        Self {
            first_offset: start.next_offset,
            receivers: HashMap::new(),
            ids: HashMap::new(),
            times: Vec::new(),
            end: start,
        }
    }

    /// Where the record with this id stands.
    pub(crate) fn find(&self, id: Uuid) -> Option<Posting> {
        self.ids.get(&id).copied()
    }

    /// Adds the frame that stands at byte `frame_at`.
    pub(crate) fn add(&mut self, header: &frame::Header, frame_at: u64, records: &[RecordAt]) {
        let frame_at = u32::try_from(frame_at).expect("a segment is rolled long before 4 GiB");
        for record in records {
            let delta = u32::try_from(record.offset - self.first_offset)
                .expect("a segment is rolled before its offsets are so far apart");
            let posting =
                Posting { delta, at: frame_at + record.at, body_bytes: record.body_bytes };
            self.receivers.entry(record.receiver).or_default().push(posting);
            self.ids.insert(record.notification_id, posting);
        }
        // Offsets that were passed over grow old like those before them, or the trim point would stay below them.
        if header.next_offset() > self.end.next_offset {
            self.add_time(header.time_ms, header.next_offset() - 1);
        }
        self.end = self.end.after(header).expect("the order hands out frames in order");
    }

    fn add_time(&mut self, time_ms: u64, offset: u64) {
        match self.times.last_mut() {
            Some(last) if time_ms < last.from_ms + TIME_STEP_MS => {
                (last.time_ms, last.offset) = (time_ms, offset);
            }
            _ => self.times.push(TimeMark { from_ms: time_ms, time_ms, offset }),
        }
    }

    /// The file of this index, in blocks, for a segment whose checksums begin with `salt`.
    pub(crate) fn encode(&self, salt: u64) -> Vec<u8> {
        let mut receivers: Vec<_> = self.receivers.iter().collect();
        receivers.sort_unstable_by_key(|(her_id, _)| **her_id);
        let mut ids: Vec<(IdHash, Posting)> =
            self.ids.iter().map(|(id, posting)| (hash(*id, salt), *posting)).collect();
        ids.sort_unstable_by_key(|(hash, posting)| (hash.first, posting.delta));
        let filter = Filter::new(ids.iter().map(|(hash, _)| *hash), ids.len());
        let postings_len: usize = receivers.iter().map(|(_, postings)| postings.len()).sum();

        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for count in
            [receivers.len(), filter.words().len(), self.times.len(), postings_len, ids.len()]
        {
            out.extend_from_slice(&length(count).to_le_bytes());
        }
        let end = &self.end;
        let numbers =
            [self.first_offset, end.position.0, end.next_offset, end.trim_point, end.time_ms];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(HEADER_BYTES, 0);
        let mut start = 0;
        for (her_id, postings) in &receivers {
            let newest = postings.last().expect("a receiver has a posting").delta;
            for number in [her_id.get(), start, newest] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            start += length(postings.len());
        }
        for word in filter.words() {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for mark in &self.times {
            out.extend_from_slice(&mark.time_ms.to_le_bytes());
            out.extend_from_slice(&mark.offset.to_le_bytes());
        }
        for (_, postings) in &receivers {
            for posting in *postings {
                posting.encode(&mut out);
            }
        }
        for (hash, posting) in &ids {
            out.extend_from_slice(&hash.first.to_le_bytes());
            posting.encode(&mut out);
        }
        in_blocks(&out, salt)
    }
}

/// One receiver of a sealed segment.
struct FileReceiver {
    her_id: HerId,
    /// Its first posting.
    start: u32,
    /// Its newest offset, counted from the segment's first.
    newest: u32,
}

/// The index of a sealed segment.
pub(crate) struct FileIndex {
    path: PathBuf,
    blocks: Blocks,
    salt: u64,
    receivers: Vec<FileReceiver>,
    filter: Filter,
    times_at: usize,
    times_len: usize,
    postings_at: usize,
    postings_len: u32,
    ids_at: usize,
    ids_len: usize,
    pub(crate) end: Marks,
}

impl FileIndex {
    /// Opens the index file of a segment that begins at `start` and whose checksums begin with `salt`.
    pub(crate) fn open(
        path: &Path,
        file: Arc<dyn File>,
        salt: u64,
        start: Marks,
    ) -> Result<Self, ReadError> {
        let failed = |error: BlocksError| error.of(path);
        let blocks = Blocks::new(file, salt).map_err(failed)?;
        let damaged = |what| ReadError::Damaged { path: path.to_owned(), at: 0, what };
        let header = blocks.read(0, HEADER_BYTES, Access::Disk).map_err(failed)?;
        if header[0..8] != *MAGIC || u32_at(&header, 8) != VERSION {
            return Err(damaged("it is not an index of this version"));
        }
        if u64_at(&header, 32) != start.next_offset {
            return Err(damaged("it is the index of another segment"));
        }
        let [receivers_len, filter_len, times_len, postings_len, ids_len] =
            [12, 16, 20, 24, 28].map(|at| u32_at(&header, at) as usize);
        let filter_at = HEADER_BYTES + receivers_len * RECEIVER_BYTES;
        let times_at = filter_at + filter_len * 8;
        let postings_at = times_at + times_len * TIME_BYTES;
        let ids_at = postings_at + postings_len * POSTING_BYTES;
        if blocks.len() < ids_at + ids_len * ID_BYTES {
            return Err(damaged("its counts do not fit its length"));
        }

        let bytes =
            blocks.read(HEADER_BYTES, filter_at - HEADER_BYTES, Access::Disk).map_err(failed)?;
        let mut receivers = Vec::with_capacity(receivers_len);
        for bytes in bytes.chunks_exact(RECEIVER_BYTES) {
            let her_id = HerId::new(u32_at(bytes, 0));
            let her_id = her_id.ok_or_else(|| damaged("a receiver is impossible"))?;
            receivers.push(FileReceiver {
                her_id,
                start: u32_at(bytes, 4),
                newest: u32_at(bytes, 8),
            });
        }
        let words = blocks.read(filter_at, times_at - filter_at, Access::Disk).map_err(failed)?;
        let filter =
            Filter::from_words(words.chunks_exact(8).map(|word| u64_at(word, 0)).collect());
        let end = Marks {
            position: Position(u64_at(&header, 40)),
            next_offset: u64_at(&header, 48),
            trim_point: u64_at(&header, 56),
            time_ms: u64_at(&header, 64),
        };
        let (path, postings_len) = (path.to_owned(), length(postings_len));
        Ok(Self {
            path,
            blocks,
            salt,
            receivers,
            filter,
            times_at,
            times_len,
            postings_at,
            postings_len,
            ids_at,
            ids_len,
            end,
        })
    }

    fn hash(&self, id: Uuid) -> IdHash {
        hash(id, self.salt)
    }

    /// Which postings are this receiver's, and its newest offset.
    pub(crate) fn receiver(&self, receiver: HerId) -> Option<(std::ops::Range<u32>, u32)> {
        let at = self.receivers.binary_search_by_key(&receiver, |entry| entry.her_id).ok()?;
        let entry = &self.receivers[at];
        let end = self.receivers.get(at + 1).map_or(self.postings_len, |next| next.start);
        Some((entry.start..end, entry.newest))
    }

    /// Postings by their numbers.
    pub(crate) fn postings(
        &self,
        range: std::ops::Range<u32>,
        access: Access,
    ) -> Result<Vec<Posting>, ReadError> {
        let at = self.postings_at + range.start as usize * POSTING_BYTES;
        let bytes = self.read(at, range.len() * POSTING_BYTES, access)?;
        Ok(bytes.chunks_exact(POSTING_BYTES).map(Posting::decode).collect())
    }

    /// Binary search among the sorted hashes. Two ids may agree in 64 bits: the record itself tells them apart.
    fn find_id(&self, id: Uuid) -> Result<Vec<Posting>, ReadError> {
        let hash = self.hash(id);
        if !self.filter.may_hold(hash) {
            return Ok(Vec::new());
        }
        let (mut low, mut high) = (0, self.ids_len);
        while low < high {
            let middle = low.midpoint(high);
            if self.id(middle)?.0 < hash.first { low = middle + 1 } else { high = middle }
        }
        let mut found = Vec::new();
        while low < self.ids_len {
            let (first, posting) = self.id(low)?;
            if first != hash.first {
                break;
            }
            found.push(posting);
            low += 1;
        }
        Ok(found)
    }

    fn id(&self, number: usize) -> Result<(u64, Posting), ReadError> {
        let bytes = self.read(self.ids_at + number * ID_BYTES, ID_BYTES, Access::Disk)?;
        Ok((u64_at(&bytes, 0), Posting::decode(&bytes[8..])))
    }

    fn times(&self) -> Result<Vec<TimeMark>, ReadError> {
        let bytes = self.read(self.times_at, self.times_len * TIME_BYTES, Access::Disk)?;
        let mark = |bytes: &[u8]| {
            let (time_ms, offset) = (u64_at(bytes, 0), u64_at(bytes, 8));
            TimeMark { from_ms: time_ms, time_ms, offset }
        };
        Ok(bytes.chunks_exact(TIME_BYTES).map(mark).collect())
    }

    /// Reads every block, so that a damaged one is noticed.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        self.blocks.check().map_err(|error| error.of(&self.path))
    }

    fn read(&self, at: usize, len: usize, access: Access) -> Result<Vec<u8>, ReadError> {
        self.blocks.read(at, len, access).map_err(|error| error.of(&self.path))
    }
}

/// 128 bits of an id's hash: the first half is what the file sorts by.
#[derive(Clone, Copy, Debug)]
struct IdHash {
    first: u64,
    second: u64,
}

/// Keyed with the segment's salt, so that nobody outside can choose ids that collide.
fn hash(id: Uuid, salt: u64) -> IdHash {
    let mut hasher = SipHasher13::new_with_keys(salt, 0);
    hasher.write(id.as_bytes());
    let hash = hasher.finish128();
    IdHash { first: hash.h1, second: hash.h2 }
}
