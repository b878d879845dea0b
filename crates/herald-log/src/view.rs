//! What this replica can answer from: segments on its disk, their indexes, and the newest records in memory.
//!
//! Synchronous; it knows no clock, no network and no runtime. One writer adds batches, any number of readers read.

pub(crate) mod copy;
pub(crate) mod index;
pub(crate) mod merge;
pub(crate) mod open;
pub(crate) mod recent;
pub(crate) mod segment;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use herald_types::{HerId, Offset, Receivers, with_causes};
use uuid::Uuid;

use self::{
    index::{FileIndex, Index, MemoryIndex},
    recent::Recent,
    segment::{Header, Marks, Segment, index_name},
};
use crate::{
    ReadError,
    disk::{self, Access, Disk},
    frame::{self, Batch, FRAME_BYTES_MAX, Frame, Prepared, RecordAt},
    order::{OrderError, Position},
    page::{Page, PageBounds, Record, Sink, stored_offset},
    surroundings,
};

/// Room that only frames without records may use, so that a full disk cannot keep retention from freeing it.
const HEADROOM_BYTES: u64 = 4 << 10;
/// An index file is written and synced in pieces of so many bytes, so that appends do not wait behind all of it.
const SEAL_PIECE_BYTES: usize = 1 << 20;

/// A segment that cannot be rolled takes no more frames from here on: places in it are numbers of 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// How far a segment's offsets may lie apart, for the same reason.
const SEGMENT_OFFSETS_MAX: u64 = 1 << 31;

/// How the view keeps its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewSettings {
    /// A segment is full when it has so many bytes.
    pub(crate) segment_bytes: u64,
    /// Room in a segment is reserved in steps of so many bytes.
    pub(crate) reserve_step_bytes: u64,
    /// The newest records stay in memory up to so many bytes.
    pub(crate) recent_bytes: usize,
}

impl Default for ViewSettings {
    fn default() -> Self {
        // 128 MiB are scanned in about half a second when the server starts, and make some 80 segments of ten million
        // records' 10 GB: a filter test each for an unknown id.
        Self { segment_bytes: 128 << 20, reserve_step_bytes: 1 << 20, recent_bytes: 64 << 20 }
    }
}

/// The local copy of the log, which a single node's log *is*.
pub(crate) struct View {
    disk: Arc<dyn Disk>,
    settings: ViewSettings,
    history: Uuid,
    log_id: Uuid,
    /// Ascending; the last one is being written. Readers take a copy of the list and let go.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Many readers for the time of a lookup, one writer for the time of adding a batch.
    recent: RwLock<Recent>,
    /// Only the sequencer writes, and the keeper when it rolls a segment that has grown old.
    writer: Mutex<Writer>,
    /// Held while a segment is synced; taken after the writer's lock, where both are.
    syncing: Mutex<()>,
    /// After a failed write or sync nobody knows what the disk holds: nothing more is written. Set by the writer only;
    /// an atomic because health asks while a sync holds the writer's lock.
    poisoned: AtomicBool,
}

struct Writer {
    marks: Marks,
    /// The last frame's header: what an end mark repeats.
    last: Option<frame::Header>,
    /// The first byte behind the last frame or end mark.
    end: u64,
    /// Up to here there is room.
    reserved: u64,
    /// The time of the segment's first frame.
    segment_time_ms: Option<u64>,
    /// Everything up to this position is on the disk.
    synced_through: Position,
    /// Which batch stands last, where that is known: a segment without a frame does not tell.
    newest_id: Option<u128>,
}

/// The batch that stands last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) position: Position,
    /// Which one it is, where that is known: a segment without a frame does not tell.
    pub(crate) batch_id: Option<u128>,
}

const LOCK: &str = "nothing panics while it holds a lock of the view";

/// What the view holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    pub(crate) receivers: usize,
}

impl View {
    /// The name of the offsets.
    pub(crate) const fn history(&self) -> Uuid {
        self.history
    }

    /// Where the log stands.
    pub(crate) fn marks(&self) -> Marks {
        self.recent.read().expect(LOCK).marks
    }

    /// Asks the recent memory, in which all newest records are.
    pub(crate) fn with_recent<T>(&self, ask: impl FnOnce(&Recent) -> T) -> T {
        ask(&self.recent.read().expect(LOCK))
    }

    /// Stores a batch right behind the last one: one write, one sync; then it is visible.
    ///
    /// # Errors
    /// [`OrderError`] says whether nothing happened. After a failed sync the view takes no more batches.
    pub(crate) fn commit(&self, batch: &Batch) -> Result<Frame, OrderError> {
        let mut writer = self.writer()?;
        let segment = self.segment_for(&mut writer, batch.first_offset)?;
        let position = writer.marks.position;
        let frame = batch.encode(position.next(), position, segment.header.salt);
        let marks =
            writer.marks.after(&frame.header).expect("the sequencer numbers from the marks");
        self.store(&mut writer, &segment, &frame)?;
        self.sync_or_poison(&segment)?;
        writer.synced_through = marks.position;
        self.show(&mut writer, &segment, &frame, marks);
        Ok(frame)
    }

    /// Adds batches that are safe elsewhere, in their order: nothing is synced here. Says how many it took; fewer than all
    /// only when there is no room on the disk, or a failure has poisoned the view.
    ///
    /// # Errors
    /// When a frame cannot stand where it stands.
    pub(crate) fn apply(
        &self,
        frames: &[Frame],
    ) -> Result<(usize, Option<OrderError>), &'static str> {
        for (taken, frame) in frames.iter().enumerate() {
            if let Err(error) = self.apply_one(frame)? {
                return Ok((taken, Some(error)));
            }
        }
        Ok((frames.len(), None))
    }

    fn apply_one(&self, frame: &Frame) -> Result<Result<(), OrderError>, &'static str> {
        let mut writer = match self.writer() {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(error)),
        };
        let segment = match self.segment_for(&mut writer, frame.header.first_offset) {
            Ok(segment) => segment,
            Err(error) => return Ok(Err(error)),
        };
        // What a view that began in the middle of the log lacks is trimmed for it.
        let trim_point = writer.marks.trim_point;
        let kept = frame.kept(segment.header.salt, writer.synced_through, trim_point);
        let marks = writer.marks.after(&kept.header)?;
        if let Err(error) = self.store(&mut writer, &segment, &kept) {
            return Ok(Err(error));
        }
        self.show(&mut writer, &segment, &kept, marks);
        Ok(Ok(()))
    }

    /// The segment that the next frame goes into, whose first record would have this offset.
    fn segment_for(
        &self,
        writer: &mut Writer,
        first_offset: u64,
    ) -> Result<Arc<Segment>, OrderError> {
        let start = self.written_segment().header.start.next_offset;
        let offsets = first_offset.saturating_sub(start);
        if writer.end >= self.settings.segment_bytes || offsets > SEGMENT_OFFSETS_MAX {
            self.roll(writer)?;
        }
        Ok(self.written_segment())
    }

    /// Makes a stored frame visible.
    fn show(&self, writer: &mut Writer, segment: &Segment, frame: &Frame, marks: Marks) {
        let at = writer.end;
        writer.end += frame.bytes.len() as u64;
        writer.marks = marks;
        writer.last = Some(frame.header);
        writer.newest_id = Some(frame.header.batch_id);
        writer.segment_time_ms.get_or_insert(frame.header.time_ms);
        segment.add(&frame.header, at, &frame.records);
        // Memory is filled before anyone can be woken; the tail moves under the same lock.
        self.recent.write().expect(LOCK).add(frame, marks);
    }

    fn store(
        &self,
        writer: &mut Writer,
        segment: &Segment,
        frame: &Frame,
    ) -> Result<(), OrderError> {
        let frame_end = writer.end + frame.bytes.len() as u64;
        let headroom = if frame.records.is_empty() { 0 } else { HEADROOM_BYTES };
        let needed = frame_end + headroom;
        if needed > writer.reserved {
            let step = needed.next_multiple_of(self.settings.reserve_step_bytes);
            let reserve = |to| segment.file.reserve(writer.reserved, to).map(|()| to);
            writer.reserved =
                reserve(step).or_else(|_| reserve(needed)).map_err(OrderError::Refused)?;
        }
        if let Err(error) = segment.file.write_all_at(&frame.bytes, writer.end) {
            // What was written of the frame is cut off again, and with it the room.
            if segment.file.set_len(writer.end).is_err() {
                self.poison();
                return Err(OrderError::Unknown(error));
            }
            writer.reserved = writer.end;
            return Err(OrderError::Refused(error));
        }
        Ok(())
    }

    fn sync_or_poison(&self, segment: &Segment) -> Result<(), OrderError> {
        // One at a time: a failed sync is told to one caller only, and whoever comes second must find the view poisoned.
        let _syncing = self.syncing.lock().expect(LOCK);
        if self.is_poisoned() {
            return Err(OrderError::Poisoned);
        }
        segment.file.sync_data().map_err(|error| {
            self.poison();
            OrderError::Unknown(error)
        })
    }

    /// Syncs what was added without a sync.
    ///
    /// # Errors
    /// [`OrderError`] after a failed sync, which poisons the view.
    pub(crate) fn sync(&self) -> Result<(), OrderError> {
        let (segment, position) = {
            let writer = self.writer()?;
            if writer.synced_through == writer.marks.position {
                return Ok(());
            }
            (self.written_segment(), writer.marks.position)
        };
        // Without the lock: what is added meanwhile need not wait for the disk. A segment before this one was synced when
        // this one began.
        self.sync_or_poison(&segment)?;
        let mut writer = self.writer()?;
        writer.synced_through = writer.synced_through.max(position);
        Ok(())
    }

    /// The batch that stands last.
    pub(crate) fn newest(&self) -> Newest {
        let writer = self.writer.lock().expect(LOCK);
        Newest { position: writer.marks.position, batch_id: writer.newest_id }
    }

    /// The writer, as long as something may be written. Whoever panicked as the writer left it as a failed write does.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>, OrderError> {
        let writer = self.writer.lock();
        if self.is_poisoned() { Err(OrderError::Poisoned) } else { Ok(writer.expect(LOCK)) }
    }

    /// Nothing is written any more.
    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }

    /// Notes behind the last frame that it was answered for, when nothing else waits. No sync.
    pub(crate) fn mark_end(&self) {
        let Ok(mut writer) = self.writer() else { return };
        let Some(last) = writer.last else { return };
        let segment = self.written_segment();
        let mark = frame::end_mark(&last, segment.header.salt);
        if writer.end + mark.len() as u64 <= writer.reserved
            && segment.file.write_all_at(&mark, writer.end).is_ok()
        {
            writer.end += mark.len() as u64;
            writer.last = None;
        }
    }

    /// Syncs the end mark, refuses further batches, and lets another process open the directory.
    pub(crate) fn close(&self) {
        // The mark says that what stands before it is on the disk.
        if self.sync().is_ok() {
            self.mark_end();
        }
        if !self.is_poisoned() {
            // Only the mark is not synced; without it the log opens as after a crash.
            let _ = self.written_segment().file.sync_data();
        }
        self.disk.release();
    }

    /// Whether nothing can be written any more.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn written_segment(&self) -> Arc<Segment> {
        Arc::clone(self.segments.read().expect(LOCK).last().expect("there is always one"))
    }

    /// Begins a new segment. The old one goes on for a while if there is no room for another.
    fn roll(&self, writer: &mut Writer) -> Result<(), OrderError> {
        if writer.synced_through < writer.marks.position {
            // Only the segment being written may lose its end.
            self.sync_or_poison(&self.written_segment())?;
            writer.synced_through = writer.marks.position;
        }
        let header =
            Header { salt: surroundings::random(), log_id: self.log_id, start: writer.marks };
        let name = header.name();
        let new_name = format!("{name}{}", disk::NEW_SUFFIX);
        let prepared = self.disk.create(&new_name).and_then(|file| {
            file.write_all_at(&header.encode(), 0)?;
            file.sync_data()?;
            Ok(file)
        });
        let file = match prepared {
            Ok(file) => file,
            Err(_) if writer.end < SEGMENT_BYTES_MAX => return Ok(()),
            Err(error) => return Err(OrderError::Refused(error)),
        };
        let published = self.disk.rename(&new_name, &name).and_then(|()| self.disk.sync_dir());
        if let Err(error) = published {
            // Nobody knows now which of two segments a restart would find last.
            self.poison();
            tracing::error!(error = with_causes(&error), "could not publish a segment");
            return Err(OrderError::Poisoned);
        }
        writer.end = segment::HEADER_BYTES as u64;
        writer.reserved = writer.end;
        writer.last = None;
        writer.segment_time_ms = None;
        let index = Index::Memory(MemoryIndex::new(writer.marks));
        let segment = Segment::new(&*self.disk, header, file, index);
        self.segments.write().expect(LOCK).push(Arc::new(segment));
        Ok(())
    }

    /// Begins a new segment if the one being written has frames from before `time_ms`, so that retention can give its
    /// disk space back.
    ///
    /// # Errors
    /// [`OrderError::Poisoned`] if the directory is in doubt.
    pub(crate) fn roll_if_older(&self, time_ms: u64) -> Result<(), OrderError> {
        let mut writer = self.writer()?;
        let is_old = writer.segment_time_ms.is_some_and(|first| first < time_ms);
        if is_old { self.roll(&mut writer) } else { Ok(()) }
    }

    /// Writes the index files of full segments that have none. Calls `go_on` between pieces; `false` ends it.
    ///
    /// # Errors
    /// What the disk said; the indexes stay in memory, and it may be tried again.
    pub(crate) fn seal(&self, go_on: impl Fn() -> bool) -> io::Result<()> {
        let segments = self.segments.read().expect(LOCK).clone();
        let (_, full) = segments.split_last().expect("there is always one");
        for segment in full {
            if !go_on() {
                return Ok(());
            }
            let encoded = match &*segment.index.read().expect(LOCK) {
                Index::Memory(index) => index.encode(segment.header.salt),
                Index::File(_) => continue,
            };
            let name = index_name(&segment.name);
            let new_name = format!("{name}{}", disk::NEW_SUFFIX);
            let file = self.disk.create(&new_name)?;
            let mut at = 0;
            for piece in encoded.chunks(SEAL_PIECE_BYTES) {
                if !go_on() {
                    return Ok(());
                }
                file.write_all_at(piece, at)?;
                file.sync_data()?;
                at += piece.len() as u64;
            }
            self.disk.rename(&new_name, &name)?;
            self.disk.sync_dir()?;
            let (path, header) = (self.disk.path(&name), &segment.header);
            let index = FileIndex::open(&path, file, header.salt, header.start);
            let index = index.map_err(io::Error::other)?;
            *segment.index.write().expect(LOCK) = Index::File(Arc::new(index));
        }
        Ok(())
    }

    /// Removes the segments of which nothing is left to read, oldest first.
    ///
    /// # Errors
    /// What the disk said; what is left is tried again later, or removed when the log is opened.
    pub(crate) fn remove_trimmed(&self) -> io::Result<usize> {
        let trim_point = self.marks().trim_point;
        let mut removed = 0;
        let segments = self.segments.read().expect(LOCK).clone();
        let (_, full) = segments.split_last().expect("there is always one");
        let trimmed = full.iter().take_while(|segment| segment.end().tail() <= trim_point);
        if trimmed.clone().next().is_some() {
            // A power cut must not take the trim point back that sets these segments free.
            self.sync().map_err(io::Error::other)?;
        }
        for segment in trimmed {
            // Readers who have it open go on reading it. It leaves the list last, so that a failure is tried again.
            disk::remove_if_there(&*self.disk, &segment.name)?;
            disk::remove_if_there(&*self.disk, &index_name(&segment.name))?;
            self.segments.write().expect(LOCK).remove(0);
            removed += 1;
        }
        if removed > 0 {
            self.recent.write().expect(LOCK).forget_trimmed();
        }
        Ok(removed)
    }

    /// The newest offset whose frame's time is `time_ms` or before, if it is above the trim point.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub(crate) fn offset_at(&self, time_ms: u64) -> Result<Option<Offset>, ReadError> {
        let trim_point = self.marks().trim_point;
        let mut newest = None;
        let segments = self.segments.read().expect(LOCK).clone();
        for segment in segments {
            let times = segment.with_index(Access::Disk, Index::times)?;
            let count = times.partition_point(|mark| mark.time_ms <= time_ms);
            newest = count.checked_sub(1).map(|last| times[last].offset).or(newest);
            if count < times.len() {
                break;
            }
        }
        Ok(newest.filter(|offset| *offset > trim_point).and_then(Offset::new))
    }

    /// Writes one page for `receivers` from the disk to `sink`, oldest first.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged. With [`Access::Cached`] also, of the kind `WouldBlock`, when the system does
    /// not have all of it in memory; then `sink` holds only a part.
    pub(crate) fn read(
        &self,
        receivers: &Receivers,
        after: Offset,
        bounds: PageBounds,
        sink: &mut dyn Sink,
        access: Access,
    ) -> Result<Page, ReadError> {
        // The upper end is fixed before anything is looked at, so that the page is a consistent cut.
        let marks = self.marks();
        let tail = Offset::new(marks.tail()).expect("tails are offsets");
        let handled = after.get().max(marks.trim_point);
        let mut page = Page::new(after, tail);
        let segments = self.segments.read().expect(LOCK).clone();
        let first = segments.partition_point(|segment| segment.end().tail() <= handled);
        for segment in &segments[first..] {
            let limit = bounds.records.get() - page.len();
            let found = segment.find(receivers.as_slice(), handled, tail.get(), limit, access)?;
            let bytes = found.iter().map(|posting| posting.body_bytes as usize).sum::<usize>();
            sink.reserve(found.len(), bytes.min(bounds.bytes));
            let take = |record: &RecordAt, body: &[u8]| {
                page.push(stored_offset(record.offset), body, bounds, sink)
            };
            if !segment.read(&found, access, take)? {
                break;
            }
        }
        Ok(page)
    }

    /// Which of `ids` may be stored; asks nothing but memory.
    pub(crate) fn may_hold(&self, ids: &[Uuid]) -> Vec<bool> {
        let segments = self.segments.read().expect(LOCK).clone();
        let mut held = vec![false; ids.len()];
        for segment in segments.iter().rev() {
            // Once for all ids, and for no longer: the index of the segment being written is wanted by the writer.
            let index = segment.index();
            for (held, id) in held.iter_mut().zip(ids) {
                *held = *held || index.may_hold(*id);
            }
        }
        held
    }

    /// Whether the id of one of `records` may have been stored behind `tail`; asks nothing but memory.
    pub(crate) fn came_since(&self, tail: u64, records: &[Prepared]) -> bool {
        let segments = self.segments.read().expect(LOCK);
        let later = segments.iter().rev().take_while(|segment| segment.end().tail() > tail);
        later.into_iter().any(|segment| match &*segment.index() {
            Index::Memory(index) => records.iter().any(|record| {
                let posting = index.find(record.notification_id);
                posting.is_some_and(|posting| segment.offset(&posting) > tail)
            }),
            // Sealed in the meantime, which is rare: its ids are on disk.
            Index::File(_) => true,
        })
    }

    /// The stored record with this id, unless it is trimmed or not yet visible: an answer that names it would otherwise
    /// come before the tail has moved.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged.
    pub(crate) fn find_id(&self, id: Uuid) -> Result<Option<Record>, ReadError> {
        let marks = self.marks();
        let visible = marks.trim_point + 1..=marks.tail();
        let segments = self.segments.read().expect(LOCK).clone();
        for segment in segments.iter().rev() {
            let mut found = None;
            for posting in segment.find_id(id)? {
                segment.read(&[posting], Access::Disk, |record, body| {
                    let is_it = record.notification_id == id;
                    found = is_it.then(|| (record.offset, Bytes::copy_from_slice(body)));
                    found.is_none()
                })?;
            }
            if let Some((offset, body)) = found {
                let is_visible = visible.contains(&offset);
                return Ok(is_visible.then(|| Record { offset: stored_offset(offset), body }));
            }
        }
        Ok(None)
    }

    /// How much there is.
    pub(crate) fn held(&self) -> Held {
        let segments = self.segments.read().expect(LOCK).clone();
        let file_bytes = |segment: &Arc<Segment>| segment.file.len().unwrap_or_default();
        Held {
            segments: segments.len(),
            bytes: segments.iter().map(file_bytes).sum(),
            receivers: self.with_recent(Recent::receivers),
        }
    }
}

const _: () = assert!(SEGMENT_BYTES_MAX + FRAME_BYTES_MAX as u64 <= u32::MAX as u64);

/// The receivers of a frame, distinct.
pub(crate) fn receivers_of(frame: &Frame) -> Vec<HerId> {
    let mut receivers: Vec<HerId> = frame.records.iter().map(|record| record.receiver).collect();
    receivers.sort_unstable();
    receivers.dedup();
    receivers
}
