//! A view that is a copy of a cluster's log: how it begins, and what it remembers of the engine.
//!
//! It can be built again from the engine at any time, so nothing of it is synced before it is shown; and it is a full copy,
//! so that an engine can be filled again from it.

use std::{io, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    LOCK, View, ViewSettings,
    open::{HEADER_FILE, Names, damaged, remove_segment, remove_unused, segment_names},
    recent::Recent,
    segment::{FORMAT_VERSION, Header, Marks, check_file_header},
};
use crate::{
    OpenError, ReadError,
    disk::{self, Access, Disk},
    frame::{self, array_at, u64_at},
    page::{Record, stored_offset},
    surroundings,
};

/// The file that says that the directory follows an engine.
const FOLLOWS_FILE: &str = "follows";
const FOLLOWS_MAGIC: &[u8; 8] = b"HERALDFO";
const FOLLOWS_BYTES: usize = 40;

/// What the directory remembers of the engine that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Follows {
    /// The log whose positions its frames have.
    pub(crate) log_id: Uuid,
    /// The highest term that the engine has shown.
    pub(crate) term: u64,
}

impl Follows {
    fn encode(&self) -> [u8; FOLLOWS_BYTES] {
        let mut bytes = [0; FOLLOWS_BYTES];
        bytes[0..8].copy_from_slice(FOLLOWS_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.log_id.as_bytes());
        bytes[32..40].copy_from_slice(&self.term.to_le_bytes());
        let checksum = frame::checksum(0, &[&bytes[..12], &bytes[16..]]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the file, `None` if there is none: then the directory is a log of its own.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let failed =
            |source| OpenError::Io { doing: "read", path: disk.path(FOLLOWS_FILE), source };
        let file = match disk.open(FOLLOWS_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let bytes = disk::read_all(&*file).map_err(failed)?;
        if bytes.len() != FOLLOWS_BYTES {
            return Err(damaged(disk, FOLLOWS_FILE, 0, "it has the wrong length"));
        }
        check_file_header(&bytes, FOLLOWS_MAGIC)
            .map_err(|bad| super::open::bad_header(disk, FOLLOWS_FILE, &bad))?;
        let log_id = Uuid::from_bytes(array_at(&bytes, 16));
        Ok(Some(Self { log_id, term: u64_at(&bytes, 32) }))
    }

    /// Replaces the file.
    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        disk::replace(disk, FOLLOWS_FILE, &self.encode()).map(drop)
    }
}

/// What a data directory holds before anything is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Whose frames these are; `None` where there are none.
    pub(crate) names: Option<Names>,
    /// The engine that it follows; `None` for a log of its own.
    pub(crate) follows: Option<Follows>,
}

impl Found {
    /// Looks, and changes nothing.
    pub(crate) fn on(disk: &dyn Disk) -> Result<Self, OpenError> {
        Ok(Self { names: Names::read(disk)?, follows: Follows::read(disk)? })
    }
}

impl View {
    /// Begins a copy of the log `names` at `start`, in place of what the directory holds, and opens it.
    ///
    /// # Errors
    /// [`OpenError`]; what is half done is done again by the next start.
    pub(crate) fn begin_copy(
        disk: Arc<dyn Disk>,
        settings: ViewSettings,
        names: Names,
        start: Marks,
        term: u64,
    ) -> Result<Self, OpenError> {
        let failed = |doing| {
            let path = disk.path("");
            move |source| OpenError::Io { doing, path, source }
        };
        let segments = segment_names(&*disk).map_err(failed("list"))?;
        if Found::on(&*disk)? == (Found { names: None, follows: None }) {
            // Whatever stands there without a header was nobody's copy, and is not ours to remove.
            remove_unused(&*disk, &segments)?;
        }
        // In this order, so that after a crash at any point the next start finds the old log, or none and that what is there
        // may go, or this one.
        Follows { log_id: names.log_id, term }.write(&*disk).map_err(failed("write in"))?;
        disk::remove_if_there(&*disk, HEADER_FILE).map_err(failed("clear"))?;
        disk.sync_dir().map_err(failed("clear"))?;
        for name in &segments {
            remove_segment(&*disk, name)?;
        }
        let header = Header { salt: surroundings::random(), log_id: names.log_id, start };
        let begin = disk::replace(&*disk, &header.name(), &header.encode())
            .and_then(|_| disk::replace(&*disk, HEADER_FILE, &names.encode()));
        begin.map_err(failed("begin a copy in"))?;
        Self::open(disk, settings)
    }

    /// Remembers that the engine has shown `term`.
    ///
    /// # Errors
    /// What the disk said; the old one is still remembered.
    pub(crate) fn remember_term(&self, term: u64) -> io::Result<()> {
        Follows { log_id: self.log_id, term }.write(&*self.disk)
    }

    /// The newest record that readers are shown, if any is left.
    ///
    /// # Errors
    /// When a file cannot be read or is damaged.
    pub(crate) fn newest_record(&self) -> Result<Option<Record>, ReadError> {
        let newest = self.with_recent(Recent::newest);
        let Some((receiver, offset)) =
            newest.filter(|(_, offset)| *offset > self.marks().trim_point)
        else {
            return Ok(None);
        };
        let segments = self.segments.read().expect(LOCK).clone();
        let holds = segments.partition_point(|segment| segment.end().tail() < offset);
        let Some(segment) = segments.get(holds) else { return Ok(None) };
        let found = segment.find(&[receiver], offset - 1, offset, 1, Access::Disk)?;
        let mut record = None;
        segment.read(&found, Access::Disk, |at, body| {
            let body = Bytes::copy_from_slice(body);
            record = Some(Record { offset: stored_offset(at.offset), body });
            true
        })?;
        Ok(record)
    }
}
