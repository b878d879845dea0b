//! A segment: a file of frames, one after the other, in space that is reserved in small steps.
//!
//! docs/storage.md §2 has the header to the byte, §4 how its end is found.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, RwLock, RwLockReadGuard},
};

use herald_types::HerId;
use uuid::Uuid;

use super::{
    index::{Index, MemoryIndex, Posting},
    merge,
};
use crate::{
    ReadError,
    disk::{Access, Disk, File},
    frame::{self, FRAME_BYTES_MAX, RECORD_HEADER_BYTES, RecordAt, array_at, u32_at, u64_at},
    order::Position,
};

/// The newest format of segments, indexes and the header file that this version reads, and the one that it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 72;
const MAGIC: &[u8; 8] = b"HERALDSG";
const SUFFIX: &str = ".segment";
/// Records that stand together are read together, up to so many bytes.
const RUN_BYTES_MAX: u32 = 64 << 10;
/// How much a scan reads at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// What a segment file says before its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Random; every checksum in the file begins with it.
    pub(crate) salt: u64,
    /// The log that its positions belong to.
    pub(crate) log_id: Uuid,
    pub(crate) start: Marks,
}

/// Where the log stands between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The last frame's place.
    pub(crate) position: Position,
    /// The offset that the next record gets.
    pub(crate) next_offset: u64,
    pub(crate) trim_point: u64,
    /// The last frame's time.
    pub(crate) time_ms: u64,
}

impl Marks {
    /// Before everything.
    pub(crate) const START: Self =
        Self { position: Position(0), next_offset: 1, trim_point: 0, time_ms: 0 };

    /// The newest offset.
    pub(crate) const fn tail(&self) -> u64 {
        self.next_offset - 1
    }

    /// Where the log stands behind `frame`, or why the frame cannot stand here.
    pub(crate) fn after(&self, frame: &frame::Header) -> Result<Self, &'static str> {
        if frame.position != self.position.next() {
            return Err("a frame has another's position");
        }
        if frame.first_offset < self.next_offset || frame.time_ms < self.time_ms {
            return Err("a frame's offset or time goes back");
        }
        let next_offset = frame.next_offset();
        if frame.trim_point < self.trim_point || frame.trim_point >= next_offset {
            return Err("a frame's trim point is impossible");
        }
        let (trim_point, time_ms) = (frame.trim_point, frame.time_ms);
        Ok(Self { position: frame.position, next_offset, trim_point, time_ms })
    }
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..40].copy_from_slice(self.log_id.as_bytes());
        bytes[40..48].copy_from_slice(&self.start.position.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.start.next_offset.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.start.trim_point.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.start.time_ms.to_le_bytes());
        let checksum = frame::checksum(0, &[&bytes[..12], &bytes[16..]]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadHeader> {
        check_file_header(bytes, MAGIC)?;
        Ok(Self {
            salt: u64_at(bytes, 16),
            log_id: Uuid::from_bytes(array_at(bytes, 24)),
            start: Marks {
                position: Position(u64_at(bytes, 40)),
                next_offset: u64_at(bytes, 48),
                trim_point: u64_at(bytes, 56),
                time_ms: u64_at(bytes, 64),
            },
        })
    }

    /// The file's name, which sorts by position.
    pub(crate) fn name(&self) -> String {
        format!("{:020}{SUFFIX}", self.start.position.0 + 1)
    }
}

/// Whether a file of this name is a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|stem| stem.len() == 20)
}

/// The name of the index beside a segment.
pub(crate) fn index_name(segment_name: &str) -> String {
    format!("{}.index", segment_name.trim_end_matches(SUFFIX))
}

/// Why a file's header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged(&'static str),
    UnknownFormat(u32),
}

/// Checks what every file of Herald begins with: 8 bytes that name its kind, the format version, and a checksum over
/// all but itself. This much is the same in every version.
pub(crate) fn check_file_header(bytes: &[u8], magic: &[u8; 8]) -> Result<(), BadHeader> {
    if bytes[0..8] != *magic {
        return Err(BadHeader::Damaged("it does not begin like a file of this kind"));
    }
    if u32_at(bytes, 12) != frame::checksum(0, &[&bytes[..12], &bytes[16..]]) {
        return Err(BadHeader::Damaged("the header's checksum is wrong"));
    }
    match u32_at(bytes, 8) {
        FORMAT_VERSION => Ok(()),
        other => Err(BadHeader::UnknownFormat(other)),
    }
}

/// A segment of an open view.
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) file: Arc<dyn File>,
    // Many readers, and one writer for the time of adding a batch. In memory until the segment is sealed.
    pub(crate) index: RwLock<Index>,
}

const LOCK: &str = "nothing panics while it holds the index";

impl Segment {
    pub(crate) fn new(disk: &dyn Disk, header: Header, file: Arc<dyn File>, index: Index) -> Self {
        let name = header.name();
        Self { path: disk.path(&name), name, header, file, index: RwLock::new(index) }
    }

    /// Where the log stands behind its last frame.
    pub(crate) fn end(&self) -> Marks {
        self.index.read().expect(LOCK).end()
    }

    /// Adds a frame that stands at byte `at`.
    pub(crate) fn add(&self, header: &frame::Header, at: u64, records: &[RecordAt]) {
        match &mut *self.index.write().expect(LOCK) {
            Index::Memory(index) => index.add(header, at, records),
            Index::File(_) => unreachable!("only the segment being written gets frames"),
        }
    }

    /// Where the first `limit` records of `receivers` in `(after, until]` stand, ascending by offset.
    pub(crate) fn find(
        &self,
        receivers: &[HerId],
        after: u64,
        until: u64,
        limit: usize,
        access: Access,
    ) -> Result<Vec<Posting>, ReadError> {
        let after = after.checked_sub(self.header.start.next_offset);
        let Some(until) = until.checked_sub(self.header.start.next_offset) else {
            return Ok(Vec::new());
        };
        self.with_index(access, |index| merge::first(index, receivers, after, until, limit, access))
    }

    /// Where records whose id may be this one stand.
    pub(crate) fn find_id(&self, id: Uuid) -> Result<Vec<Posting>, ReadError> {
        self.with_index(Access::Disk, |index| index.find_id(id))
    }

    /// The index as it is now.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().expect(LOCK)
    }

    /// Asks the index, and once more after building it again where its file is damaged: it is derived data.
    pub(crate) fn with_index<T>(
        &self,
        access: Access,
        ask: impl Fn(&Index) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let answer = ask(&self.index.read().expect(LOCK));
        let Err(ReadError::Damaged { path, at, what }) = answer else { return answer };
        if access == Access::Cached {
            return Err(self.io(io::ErrorKind::WouldBlock.into()));
        }
        tracing::warn!(path = %path.display(), at, what, "building a damaged index again");
        let mut index = MemoryIndex::new(self.header.start);
        self.scan(|frame, at, _, records| index.add(frame, at, &records))?;
        let index = Index::Memory(index);
        let answer = ask(&index);
        *self.index.write().expect(LOCK) = index;
        answer
    }

    /// The offset of a posting.
    pub(crate) const fn offset(&self, posting: &Posting) -> u64 {
        self.header.start.next_offset + posting.delta as u64
    }

    /// Reads and checks the records at `postings` (ascending) one after the other, until `take` says that it is enough.
    pub(crate) fn read(
        &self,
        postings: &[Posting],
        access: Access,
        mut take: impl FnMut(&RecordAt, &[u8]) -> bool,
    ) -> Result<bool, ReadError> {
        let (mut rest, mut bytes) = (postings, Vec::new());
        while let Some(first) = rest.first() {
            let mut end = first.end();
            let mut count = 1;
            while let Some(next) = rest.get(count)
                && next.at == end
                && next.end() - first.at <= RUN_BYTES_MAX
            {
                end = next.end();
                count += 1;
            }
            let run;
            (run, rest) = rest.split_at(count);
            bytes.resize((end - first.at) as usize, 0);
            let read = access.read(&*self.file, &mut bytes, first.at.into());
            read.map_err(|error| self.io(error))?;
            for posting in run {
                let record_bytes = &bytes[(posting.at - first.at) as usize..];
                let offset = self.offset(posting);
                let (record, len) = frame::decode_record(record_bytes, offset, self.header.salt)
                    .map_err(|what| self.damaged(posting.at.into(), what))?;
                if !take(&record, &record_bytes[RECORD_HEADER_BYTES..len]) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Goes through all frames, checking every byte; see [`scan`].
    pub(crate) fn scan(
        &self,
        each: impl FnMut(&frame::Header, u64, &[u8], Vec<RecordAt>),
    ) -> Result<Scan, ReadError> {
        scan(&*self.file, &self.header, each).map_err(|error| match error {
            ScanError::Io(source) => self.io(source),
            ScanError::Damaged { at, what } => self.damaged(at, what),
        })
    }

    fn io(&self, source: io::Error) -> ReadError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return self.damaged(0, "it is shorter than its index says");
        }
        ReadError::Io { path: self.path.clone(), source }
    }

    fn damaged(&self, at: u64, what: &'static str) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), at, what }
    }
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The first byte behind the last good frame or end mark.
    pub(crate) end: u64,
    /// From here on nothing says that the disk was synced: the end of the last frame of which something behind it says
    /// so. A mark between it and the next frame is not meant: nobody waited for its sync.
    pub(crate) unsafe_from: u64,
    /// Whether an end mark stands at the end.
    pub(crate) is_marked: bool,
    /// Where the log stands there.
    pub(crate) marks: Marks,
    /// What stands behind the end, if it is more than zeros: an append that nobody was told about.
    pub(crate) torn: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    Damaged { at: u64, what: &'static str },
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Goes through all frames of a segment file, checking every byte.
///
/// A bad frame is damage if a valid one behind it says that it was safe; else it is the torn end of an append that
/// nobody was told about.
pub(crate) fn scan(
    file: &dyn File,
    header: &Header,
    mut each: impl FnMut(&frame::Header, u64, &[u8], Vec<RecordAt>),
) -> Result<Scan, ScanError> {
    let mut window = Window::new(file)?;
    let start = HEADER_BYTES as u64;
    let marks = header.start;
    let mut scan = Scan { end: start, unsafe_from: start, is_marked: false, marks, torn: None };
    // Where the frames end of which nothing has said yet that they were safe.
    let mut unsafe_ends: VecDeque<(Position, u64)> = VecDeque::new();
    loop {
        let at = scan.end;
        let bad = match next_frame(&mut window, at, header.salt)? {
            Ok((frame, bytes)) if frame.is_end_mark() => {
                if frame.safe_through != scan.marks.position {
                    return Err(ScanError::Damaged { at, what: "an end mark is out of place" });
                }
                scan.unsafe_from =
                    newest_safe(&mut unsafe_ends, &frame).unwrap_or(scan.unsafe_from);
                scan.end += bytes.len() as u64;
                scan.is_marked = true;
                continue;
            }
            Ok((frame, bytes)) => match frame::decode_records(&frame, bytes, header.salt) {
                Ok(records) => {
                    let damaged = |what| ScanError::Damaged { at, what };
                    let safe = newest_safe(&mut unsafe_ends, &frame);
                    scan.unsafe_from = safe.unwrap_or(scan.unsafe_from);
                    scan.marks = scan.marks.after(&frame).map_err(damaged)?;
                    scan.end += bytes.len() as u64;
                    scan.is_marked = false;
                    unsafe_ends.push_back((scan.marks.position, scan.end));
                    each(&frame, at, bytes, records);
                    continue;
                }
                Err(bad) => bad,
            },
            Err(bad) => bad,
        };
        let rest = look_behind(&mut window, at, header.salt)?;
        if rest.safe_through > scan.marks.position {
            return Err(ScanError::Damaged { at, what: bad });
        }
        scan.torn = rest.any_bytes.then_some(bad);
        return Ok(scan);
    }
}

/// Where the newest of these frames ends that `frame` says was safe; forgets those that were.
fn newest_safe(unsafe_ends: &mut VecDeque<(Position, u64)>, frame: &frame::Header) -> Option<u64> {
    let mut newest = None;
    while unsafe_ends.front().is_some_and(|(at, _)| *at <= frame.safe_through) {
        newest = unsafe_ends.pop_front().map(|(_, end)| end);
    }
    newest
}

type Found<'a> = Result<(frame::Header, &'a [u8]), &'static str>;

fn next_frame<'a>(window: &'a mut Window<'_>, at: u64, salt: u64) -> io::Result<Found<'a>> {
    let Some(bytes) = window.get(at, frame::HEADER_BYTES)? else {
        return Ok(Err("a frame header is cut short"));
    };
    let header = bytes.first_chunk().expect("the window gives what was asked for");
    let header = match frame::Header::decode(header, salt) {
        Ok(header) => header,
        Err(bad) => return Ok(Err(bad)),
    };
    let bytes = window.get(at, header.bytes as usize)?;
    Ok(bytes.map(|bytes| (header, bytes)).ok_or("a frame is cut short"))
}

struct Rest {
    any_bytes: bool,
    safe_through: Position,
}

/// Looks through all that stands from `at` on for valid frame headers and what they say was safe.
fn look_behind(window: &mut Window<'_>, at: u64, salt: u64) -> io::Result<Rest> {
    let mut rest = Rest { any_bytes: false, safe_through: Position(0) };
    let mut from = at;
    while from < window.file_len {
        let left = window.file_len - from;
        let piece = usize::try_from(left).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        let len = piece as u64;
        let bytes = window.get(from, piece)?.unwrap_or_default();
        rest.any_bytes |= bytes.iter().any(|byte| *byte != 0);
        for found in memchr::memmem::find_iter(bytes, &frame::MAGIC) {
            if let Some(header) = bytes[found..].first_chunk()
                && let Ok(header) = frame::Header::decode(header, salt)
            {
                rest.safe_through = rest.safe_through.max(header.safe_through);
            }
        }
        // The next piece begins before this one's end, so that a header across the border is seen whole.
        let step = if len == left { len } else { len - frame::HEADER_BYTES as u64 };
        from += step;
    }
    Ok(rest)
}

/// Reads ahead in a file.
struct Window<'a> {
    file: &'a dyn File,
    file_len: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn File) -> io::Result<Self> {
        Ok(Self { file, file_len: file.len()?, from: 0, bytes: Vec::new() })
    }

    /// `len` bytes from `at` on, or `None` where the file has fewer.
    fn get(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        debug_assert!(len <= FRAME_BYTES_MAX, "a window is bounded by a frame");
        if at + len as u64 > self.file_len {
            return Ok(None);
        }
        let have = at >= self.from && at + len as u64 <= self.from + self.bytes.len() as u64;
        if !have {
            let left = self.file_len - at;
            let ahead = left.min(WINDOW_BYTES.max(len) as u64);
            self.bytes.resize(usize::try_from(ahead).map_err(io::Error::other)?, 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.from = at;
        }
        let start = usize::try_from(at - self.from).map_err(io::Error::other)?;
        Ok(Some(&self.bytes[start..start + len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_header_reads_back_and_any_flipped_byte_is_noticed() {
        let start = Marks { position: Position(41), next_offset: 7, trim_point: 3, time_ms: 5 };
        let header = Header { salt: 1, log_id: Uuid::from_u128(2), start };
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        assert_eq!(header.name(), "00000000000000000042.segment");
        assert_eq!(index_name(&header.name()), "00000000000000000042.index");
        for at in 0..HEADER_BYTES {
            let mut bytes = header.encode();
            bytes[at] ^= 0x10;
            assert!(matches!(Header::decode(&bytes), Err(BadHeader::Damaged(_))), "{at}");
        }
    }

    #[test]
    fn another_format_version_is_named() {
        let header = Header { salt: 1, log_id: Uuid::nil(), start: Marks::START };
        let mut bytes = header.encode();
        bytes[8] = 2;
        let checksum = frame::checksum(0, &[&bytes[..12], &bytes[16..]]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(BadHeader::UnknownFormat(2)));
    }
}
