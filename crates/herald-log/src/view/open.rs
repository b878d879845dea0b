//! Opening a data directory: what is there, what of it is safe, and where the log goes on.

use std::{
    io,
    sync::{Arc, Mutex, RwLock, atomic::AtomicBool},
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    View, ViewSettings, Writer,
    index::{FileIndex, Index, MemoryIndex},
    recent::Recent,
    segment::{
        self, BadHeader, FORMAT_VERSION, Header, Marks, Segment, check_file_header, index_name,
    },
};
use crate::{
    OpenError,
    disk::{self, Disk, File, NEW_SUFFIX},
    frame::{self, Frame, array_at},
    surroundings,
};

/// The file that names the history.
pub(crate) const HEADER_FILE: &str = "header";
const HEADER_MAGIC: &[u8; 8] = b"HERALDLG";
const HEADER_FILE_BYTES: usize = 48;

/// What the directory's header file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The name of the offsets.
    pub(crate) history: Uuid,
    /// The name of the positions.
    pub(crate) log_id: Uuid,
}

impl Names {
    pub(super) fn encode(&self) -> [u8; HEADER_FILE_BYTES] {
        let mut bytes = [0; HEADER_FILE_BYTES];
        bytes[0..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.history.as_bytes());
        bytes[32..48].copy_from_slice(self.log_id.as_bytes());
        let checksum = frame::checksum(0, &[&bytes[..12], &bytes[16..]]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header file, `None` if there is none.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let path = disk.path(HEADER_FILE);
        let io = |source| OpenError::Io { doing: "read", path: path.clone(), source };
        let file = match disk.open(HEADER_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io)?,
        };
        let bytes = disk::read_all(&*file).map_err(io)?;
        if bytes.len() != HEADER_FILE_BYTES {
            return Err(damaged(disk, HEADER_FILE, 0, "it has the wrong length"));
        }
        check_file_header(&bytes, HEADER_MAGIC)
            .map_err(|bad| bad_header(disk, HEADER_FILE, &bad))?;
        let [history, log_id] = [16, 32].map(|at| Uuid::from_bytes(array_at(&bytes, at)));
        Ok(Some(Self { history, log_id }))
    }
}

pub(super) fn bad_header(disk: &dyn Disk, name: &str, bad: &BadHeader) -> OpenError {
    match *bad {
        BadHeader::Damaged(what) => damaged(disk, name, 0, what),
        BadHeader::UnknownFormat(found) => {
            OpenError::UnknownFormat { path: disk.path(name), found, known: FORMAT_VERSION }
        }
    }
}

pub(crate) fn damaged(disk: &dyn Disk, name: &str, at: u64, what: &str) -> OpenError {
    OpenError::Damaged { path: disk.path(name), at, what: what.to_owned() }
}

/// The names of the segments, ascending by position.
pub(crate) fn segment_names(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let mut names = disk.list()?;
    names.retain(|name| segment::is_segment(name));
    names.sort_unstable();
    Ok(names)
}

/// Opens a segment file and reads its header.
pub(crate) fn open_segment(
    disk: &dyn Disk,
    name: &str,
) -> Result<(Arc<dyn File>, Header), OpenError> {
    let io = |source| OpenError::Io { doing: "read", path: disk.path(name), source };
    let file = disk.open(name).map_err(io)?;
    let mut bytes = [0; segment::HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(disk, name, 0, "the header is cut short"),
        _ => io(error),
    })?;
    let header = Header::decode(&bytes).map_err(|bad| bad_header(disk, name, &bad))?;
    if header.name() != name {
        return Err(damaged(disk, name, 0, "the header belongs to a file of another name"));
    }
    Ok((file, header))
}

impl View {
    /// Opens what is on `disk`, or begins a new log if nothing is.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed that was promised to anyone.
    pub(crate) fn open(disk: Arc<dyn Disk>, settings: ViewSettings) -> Result<Self, OpenError> {
        let io = |doing| {
            let path = disk.path("");
            move |source| OpenError::Io { doing, path, source }
        };
        for name in disk.list().map_err(io("list"))? {
            if name.ends_with(NEW_SUFFIX) {
                disk.remove(&name).map_err(io("clear leftovers in"))?;
            }
        }
        let segments = segment_names(&*disk).map_err(io("list"))?;
        match (Names::read(&*disk)?, segments.is_empty()) {
            (Some(names), false) => Self::load(disk, settings, names, &segments),
            (Some(_), true) => {
                let what = "there is no segment beside it: the log's files have been removed";
                Err(damaged(&*disk, HEADER_FILE, 0, what))
            }
            (None, _) => {
                remove_unused(&*disk, &segments)?;
                let (names, segment) = begin(&*disk).map_err(io("begin a log in"))?;
                Self::load(disk, settings, names, &[segment])
            }
        }
    }

    fn load(
        disk: Arc<dyn Disk>,
        settings: ViewSettings,
        names: Names,
        segment_names: &[String],
    ) -> Result<Self, OpenError> {
        let (last_name, older_names) = segment_names.split_last().expect("there is a segment");
        let (file, header) = open_segment(&*disk, last_name)?;
        let mut last = Last::new(header.start, settings.recent_bytes);
        let segment =
            Segment::new(&*disk, header, file, Index::Memory(MemoryIndex::new(header.start)));
        let scan = segment.scan(|frame, at, bytes, records| last.add(frame, at, bytes, records))?;
        check_log_id(&*disk, &segment, names)?;
        let reserved = settle(&segment, &scan)?;
        let Last { index, mut recent, last_frame, first_time_ms } = last;
        *segment.index.write().expect("nobody else has it yet") = Index::Memory(index);

        let mut segments = vec![segment];
        for name in older_names.iter().rev() {
            let next = segments.last().expect("the last one is in").header.start;
            if next.tail() <= scan.marks.trim_point {
                remove_segment(&*disk, name)?;
                continue;
            }
            let segment = load_sealed(&*disk, name, next)?;
            check_log_id(&*disk, &segment, names)?;
            segments.push(segment);
        }
        segments.reverse();
        if segments[0].header.start.tail() > scan.marks.trim_point {
            return Err(damaged(&*disk, &segments[0].name, 0, "the segment before it is missing"));
        }
        remove_stray_indexes(&*disk, &segments)?;
        let (_, sealed) = segments.split_last().expect("the last one is in");
        tie(&mut recent, sealed, scan.marks.trim_point);
        recent.marks = scan.marks;

        let writer = Writer {
            marks: scan.marks,
            last: last_frame.filter(|_| !scan.is_marked),
            end: scan.end,
            reserved,
            segment_time_ms: first_time_ms,
            // What was found is written and synced.
            synced_through: scan.marks.position,
            newest_id: last_frame.map(|frame| frame.batch_id),
        };
        Ok(Self {
            disk,
            settings,
            history: names.history,
            log_id: names.log_id,
            segments: RwLock::new(segments.into_iter().map(Arc::new).collect()),
            recent: RwLock::new(recent),
            writer: Mutex::new(writer),
            syncing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
        })
    }
}

/// What the scan of the last segment gathers.
struct Last {
    index: MemoryIndex,
    recent: Recent,
    last_frame: Option<frame::Header>,
    first_time_ms: Option<u64>,
}

impl Last {
    fn new(start: Marks, recent_bytes: usize) -> Self {
        let (index, recent) = (MemoryIndex::new(start), Recent::new(recent_bytes, start));
        Self { index, recent, last_frame: None, first_time_ms: None }
    }

    fn add(
        &mut self,
        header: &frame::Header,
        at: u64,
        bytes: &[u8],
        records: Vec<frame::RecordAt>,
    ) {
        self.index.add(header, at, &records);
        self.first_time_ms.get_or_insert(header.time_ms);
        self.last_frame = Some(*header);
        let frame = Frame { header: *header, bytes: Bytes::copy_from_slice(bytes), records };
        self.recent.add(&frame, self.index.end);
    }
}

/// Cuts the torn end off, and makes sure that the disk has what the page cache shows: after a failed sync it may not.
/// Says up to where there is room: zeros behind the end are room that was reserved, and a full disk may have no other.
fn settle(segment: &Segment, scan: &segment::Scan) -> Result<u64, OpenError> {
    let io = |doing| {
        let path = segment.path.clone();
        move |source| OpenError::Io { doing, path, source }
    };
    let mut reserved = segment.file.len().map_err(io("read"))?;
    if let Some(what) = scan.torn {
        let (path, torn_bytes) = (segment.path.display(), reserved - scan.end);
        tracing::warn!(
            %path, at = scan.end, torn_bytes, what,
            "cutting off an append that nobody was told about",
        );
        segment.file.set_len(scan.end).map_err(io("cut"))?;
        reserved = scan.end;
    }
    if scan.unsafe_from < scan.end {
        let unsafe_bytes =
            usize::try_from(scan.end - scan.unsafe_from).expect("a frame fits in memory");
        let mut bytes = vec![0; unsafe_bytes];
        segment.file.read_exact_at(&mut bytes, scan.unsafe_from).map_err(io("read"))?;
        segment.file.write_all_at(&bytes, scan.unsafe_from).map_err(io("write"))?;
    }
    segment.file.sync_data().map_err(io("sync"))?;
    Ok(reserved)
}

/// A full segment with its index, from the index's file or, where that is missing or damaged, from the segment.
fn load_sealed(disk: &dyn Disk, name: &str, next: Marks) -> Result<Segment, OpenError> {
    let (file, header) = open_segment(disk, name)?;
    let index = open_index(disk, name, &header);
    if let Some(index) = index.filter(|index| index.end == next) {
        return Ok(Segment::new(disk, header, file, Index::File(Arc::new(index))));
    }
    tracing::warn!(segment = name, "building an index again that is missing or damaged");
    let segment = Segment::new(disk, header, file, Index::Memory(MemoryIndex::new(header.start)));
    let mut index = MemoryIndex::new(header.start);
    let scan = segment.scan(|frame, at, _, records| index.add(frame, at, &records))?;
    if scan.marks != next {
        let what = scan.torn.unwrap_or("it ends before the next segment begins");
        return Err(damaged(disk, name, scan.end, what));
    }
    *segment.index.write().expect("nobody else has it yet") = Index::Memory(index);
    Ok(segment)
}

/// The index file of a segment, if it is there and whole as far as opening reads it.
fn open_index(disk: &dyn Disk, segment_name: &str, header: &Header) -> Option<FileIndex> {
    let name = index_name(segment_name);
    let file = disk.open(&name).ok()?;
    FileIndex::open(&disk.path(&name), file, header.salt, header.start).ok()
}

fn check_log_id(disk: &dyn Disk, segment: &Segment, names: Names) -> Result<(), OpenError> {
    if segment.header.log_id == names.log_id {
        return Ok(());
    }
    Err(damaged(disk, &segment.name, 0, "it belongs to another log than the header file says"))
}

/// Tells `recent` of each receiver's newest offset in `segments`, if it is above the trim point.
fn tie(recent: &mut Recent, segments: &[Segment], trim_point: u64) {
    for segment in segments {
        let start = segment.header.start.next_offset;
        segment.index().newest(|receiver, delta| {
            let offset = start + u64::from(delta);
            if offset > trim_point {
                recent.tie(receiver, offset);
            }
        });
    }
}

/// Begins a log: its first segment, then the header file that makes it one.
fn begin(disk: &dyn Disk) -> io::Result<(Names, String)> {
    let names = Names { history: surroundings::random_uuid(), log_id: Uuid::new_v4() };
    let header = Header { salt: surroundings::random(), log_id: names.log_id, start: Marks::START };
    disk::replace(disk, &header.name(), &header.encode())?;
    disk::replace(disk, HEADER_FILE, &names.encode())?;
    Ok((names, header.name()))
}

/// Removes the one empty segment that a crash between the two steps of [`begin`] leaves; refuses anything else.
pub(super) fn remove_unused(disk: &dyn Disk, segment_names: &[String]) -> Result<(), OpenError> {
    let Some(name) = segment_names.first() else { return Ok(()) };
    let (file, header) = open_segment(disk, name)?;
    let segment = Segment::new(disk, header, file, Index::Memory(MemoryIndex::new(header.start)));
    let scan = segment.scan(|_, _, _, _| {})?;
    if segment_names.len() > 1 || scan.marks != Marks::START || scan.torn.is_some() {
        return Err(damaged(
            disk,
            HEADER_FILE,
            0,
            "it is missing beside segments that hold records",
        ));
    }
    remove_segment(disk, name)
}

pub(super) fn remove_segment(disk: &dyn Disk, name: &str) -> Result<(), OpenError> {
    for name in [name.to_owned(), index_name(name)] {
        disk::remove_if_there(disk, &name).map_err(|source| {
            let path = disk.path(&name);
            OpenError::Io { doing: "remove", path, source }
        })?;
    }
    Ok(())
}

/// Removes indexes without a full segment, which a crash may leave.
fn remove_stray_indexes(disk: &dyn Disk, segments: &[Segment]) -> Result<(), OpenError> {
    let (_, full) = segments.split_last().expect("there is a segment");
    let wanted: Vec<String> = full.iter().map(|segment| index_name(&segment.name)).collect();
    let io = |source| OpenError::Io { doing: "clear leftovers in", path: disk.path(""), source };
    for name in disk.list().map_err(io)? {
        if name.ends_with(".index") && !wanted.contains(&name) {
            disk.remove(&name).map_err(io)?;
        }
    }
    Ok(())
}
