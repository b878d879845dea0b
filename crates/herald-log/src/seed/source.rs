//! The directory that a log is seeded from: read whole, and never changed.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::piece::Piece;
use crate::{
    OpenError,
    disk::{Disk, File},
    frame::{self, RecordAt},
    view::{
        open::{HEADER_FILE, Names, damaged, open_segment, segment_names},
        segment::{Header, Marks, Scan, ScanError, scan},
    },
};

/// So many pieces are read ahead: one is written while the next is made.
const PIECES_MAX: usize = 2;

/// What a directory holds that is going to be another log's beginning.
pub(crate) struct Source {
    disk: Arc<dyn Disk>,
    pub(crate) names: Names,
    segments: Vec<Header>,
    end: Marks,
    /// The newest offset that is not in the new log: the trim point, or the one before the first record that is left.
    pub(crate) trim_point: u64,
    /// How many records are above it.
    pub(crate) records: u64,
}

impl Source {
    /// Reads every byte, so that nothing is written anywhere from a directory that is damaged. A torn end is passed over: a
    /// server that opens the directory would cut it off.
    ///
    /// # Errors
    /// [`OpenError`]: damage, an unknown format, or no log at all.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let list = |source| OpenError::Io { doing: "list", path: disk.path(""), source };
        let names = segment_names(&*disk).map_err(list)?;
        let (Some(held), Some((last, older))) = (Names::read(&*disk)?, names.split_last()) else {
            return Err(damaged(&*disk, HEADER_FILE, 0, "there is no whole log here"));
        };
        let (last, last_file) = open_of(&*disk, last, held)?;
        let mut offsets = Offsets::default();
        let scanned = scan_of(&*disk, &*last_file, &last, |_, _, records| offsets.count(records))?;
        let end = scanned.marks;
        let (mut segments, mut next) = (vec![last], last.start);
        for name in older.iter().rev() {
            // As a server that opens the directory: what is trimmed is not looked at.
            if next.tail() <= end.trim_point {
                break;
            }
            let (segment, file) = open_of(&*disk, name, held)?;
            let scanned =
                scan_of(&*disk, &*file, &segment, |_, _, records| offsets.count(records))?;
            if scanned.marks != next {
                let what = scanned.torn.unwrap_or("it ends before the next segment begins");
                return Err(damaged(&*disk, name, scanned.end, what));
            }
            next = segment.start;
            segments.push(segment);
        }
        if next.tail() > end.trim_point {
            let first = segments.last().expect("the last one is in").name();
            return Err(damaged(&*disk, &first, 0, "the segment before it is missing"));
        }
        segments.reverse();
        let (records, first) = offsets.above(end.trim_point);
        let trim_point = first.map_or(end.trim_point, |first| first - 1);
        Ok(Self { disk, names: held, segments, end, trim_point, records })
    }

    /// The newest offset.
    pub(crate) const fn tail(&self) -> u64 {
        self.end.tail()
    }

    /// The newest time.
    pub(crate) const fn time_ms(&self) -> u64 {
        self.end.time_ms
    }

    /// The records behind `after`, oldest first, as pieces for frames whose checksums begin with `salt`; read in a thread of
    /// their own, which ends with the receiver.
    pub(crate) fn pieces(&self, after: u64, salt: u64) -> mpsc::Receiver<Result<Piece, OpenError>> {
        let (to, pieces) = mpsc::channel(PIECES_MAX);
        let after = after.max(self.trim_point);
        let ends = self.segments.iter().skip(1).map(|next| next.start.tail()).chain([self.tail()]);
        let segments = self.segments.iter().zip(ends).filter(|(_, tail)| *tail > after);
        let segments: Vec<Header> = segments.map(|(segment, _)| *segment).collect();
        let (disk, names, trim_point) = (Arc::clone(&self.disk), self.names, self.trim_point);
        tokio::task::spawn_blocking(move || {
            let time_ms = segments.first().map_or(0, |first| first.start.time_ms);
            let (jump_ms, piece) = (None, None);
            let mut reader = Reader { to, salt, trim_point, after, time_ms, jump_ms, piece };
            for segment in segments {
                if reader.to.is_closed() {
                    return;
                }
                let read = open_of(&*disk, &segment.name(), names).and_then(|(header, file)| {
                    scan_of(&*disk, &*file, &header, |frame, bytes, records| {
                        reader.take(frame, bytes, records);
                    })
                });
                if let Err(error) = read {
                    let _ = reader.to.blocking_send(Err(error));
                    return;
                }
            }
            reader.flush();
        });
        pieces
    }
}

fn open_of(
    disk: &dyn Disk,
    name: &str,
    names: Names,
) -> Result<(Header, Arc<dyn File>), OpenError> {
    let (file, header) = open_segment(disk, name)?;
    if header.log_id == names.log_id {
        return Ok((header, file));
    }
    Err(damaged(disk, name, 0, "it belongs to another log than the header file says"))
}

fn scan_of(
    disk: &dyn Disk,
    file: &dyn File,
    header: &Header,
    mut each: impl FnMut(&frame::Header, &[u8], &[RecordAt]),
) -> Result<Scan, OpenError> {
    let name = header.name();
    scan(file, header, |frame, _, bytes, records| each(frame, bytes, &records)).map_err(|error| {
        match error {
            ScanError::Io(source) => {
                OpenError::Io { doing: "read", path: disk.path(&name), source }
            }
            ScanError::Damaged { at, what } => damaged(disk, &name, at, what),
        }
    })
}

/// Runs of offsets that have a record, in whatever order the segments are read.
#[derive(Default)]
struct Offsets(Vec<std::ops::RangeInclusive<u64>>);

impl Offsets {
    fn count(&mut self, records: &[RecordAt]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        match self.0.last_mut() {
            Some(run) if *run.end() + 1 == first.offset => *run = *run.start()..=last.offset,
            _ => self.0.push(first.offset..=last.offset),
        }
    }

    /// How many are above `trim_point`, and the first of them.
    fn above(&self, trim_point: u64) -> (u64, Option<u64>) {
        let left = self.0.iter().filter(|run| *run.end() > trim_point);
        let left = left.map(|run| (trim_point + 1).max(*run.start())..=*run.end());
        let first = left.clone().map(|run| *run.start()).min();
        (left.map(|run| run.end() - run.start() + 1).sum(), first)
    }
}

/// Makes pieces of frames.
struct Reader {
    to: mpsc::Sender<Result<Piece, OpenError>>,
    salt: u64,
    trim_point: u64,
    /// The newest offset that was taken, or is not wanted.
    after: u64,
    /// The time of the last records.
    time_ms: u64,
    /// When offsets were passed over behind them.
    jump_ms: Option<u64>,
    piece: Option<Piece>,
}

impl Reader {
    fn take(&mut self, frame: &frame::Header, bytes: &[u8], records: &[RecordAt]) {
        if records.is_empty() && frame.first_offset > self.after + 1 {
            self.jump_ms.get_or_insert(frame.time_ms);
        }
        for record in records {
            if record.offset > self.after {
                self.push(frame, bytes, record);
            }
            self.time_ms = frame.time_ms;
        }
    }

    fn push(&mut self, frame: &frame::Header, bytes: &[u8], record: &RecordAt) {
        if record.offset != self.after + 1 {
            // A jump has a frame of its own, as it had when it was made: the files of a view depend on it. Its time is an old
            // one, so that retention passes it with what is before it.
            self.flush();
            let time_ms = self.jump_ms.unwrap_or(self.time_ms);
            self.send(Piece::new(record.offset, self.trim_point, time_ms));
        }
        (self.after, self.jump_ms) = (record.offset, None);
        if self.piece.as_ref().is_some_and(|piece| !piece.has_room(record, frame.time_ms)) {
            self.flush();
        }
        let begin = || Piece::new(record.offset, self.trim_point, frame.time_ms);
        let piece = self.piece.get_or_insert_with(begin);
        piece.push(record, bytes, frame.time_ms, self.salt);
    }

    fn flush(&mut self) {
        if let Some(piece) = self.piece.take() {
            self.send(piece);
        }
    }

    fn send(&self, piece: Piece) {
        // Nobody wants it any more where this fails, which is looked at between segments.
        let _ = self.to.blocking_send(Ok(piece));
    }
}
