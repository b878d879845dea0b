//! Tells the truth about a data directory, and changes nothing in it.

use std::path::Path;

use herald_types::Offset;
use uuid::Uuid;

use crate::{
    OpenError,
    disk::{DataDir, Disk, NEW_SUFFIX},
    view::{
        index::{FileIndex, MemoryIndex},
        open::{HEADER_FILE, Names, damaged, open_segment, segment_names},
        segment::{Header, Marks, ScanError, index_name, scan},
    },
};

/// What was found in a data directory in which nothing is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The name of the offsets.
    pub history: Uuid,
    /// How many segment files there are.
    pub segments: usize,
    /// How many frames they hold.
    pub frames: u64,
    /// How many records they hold, those at or below the trim point included.
    pub records: u64,
    /// The newest offset, 0 when there has been none.
    pub tail: Offset,
    /// The newest offset that retention has removed.
    pub trim_point: Offset,
    /// What a server mends by itself when it starts: a torn end, a missing index, leftovers.
    pub notes: Vec<String>,
}

/// Reads every byte of the log in `dir`.
///
/// # Errors
/// [`OpenError`]: the first damage in a header, a frame or an index, an unknown format, no log at all, or a server that
/// has the directory open.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    check_disk(&DataDir::inspect(dir)?)
}

pub(crate) fn check_disk(disk: &dyn Disk) -> Result<Report, OpenError> {
    let io = |source| OpenError::Io { doing: "list", path: disk.path(""), source };
    let segments = segment_names(disk).map_err(io)?;
    let names = Names::read(disk)?.ok_or_else(|| {
        let what = if segments.is_empty() { "there is no log here" } else { "the file is missing" };
        damaged(disk, HEADER_FILE, 0, what)
    })?;
    let mut report = Report {
        history: names.history,
        segments: segments.len(),
        frames: 0,
        records: 0,
        tail: Offset::ZERO,
        trim_point: Offset::ZERO,
        notes: Vec::new(),
    };
    for name in disk.list().map_err(io)? {
        if name.ends_with(NEW_SUFFIX) {
            report.notes.push(format!("{name} is a leftover, the next start removes it"));
        }
    }
    let mut checked: Vec<Checked> = Vec::new();
    for (number, name) in segments.iter().enumerate() {
        let is_last = number + 1 == segments.len();
        checked.push(report.check_segment(disk, name, names, is_last)?);
    }
    let Some(last) = checked.last().map(|last| last.end) else {
        return Err(damaged(disk, HEADER_FILE, 0, "there is no segment beside it"));
    };
    // Only trimmed records may be missing: their segments are removed one by one.
    let before = std::iter::once(None).chain(checked.iter().map(Some));
    for (before, segment) in before.zip(&checked) {
        let start = segment.header.start;
        if before.is_some_and(|before| before.end == start) || start.tail() <= last.trim_point {
            continue;
        }
        return Err(match before {
            Some(Checked { header, torn: Some((at, what)), .. }) => {
                damaged(disk, &header.name(), *at, what)
            }
            _ => damaged(disk, &segment.header.name(), 0, "the segment before it is missing"),
        });
    }
    let offset = |number| Offset::new(number).unwrap_or_default();
    (report.tail, report.trim_point) = (offset(last.tail()), offset(last.trim_point));
    Ok(report)
}

/// One segment, every frame of which is good.
struct Checked {
    header: Header,
    end: Marks,
    /// What stands behind its last frame, and where.
    torn: Option<(u64, &'static str)>,
}

impl Report {
    fn check_segment(
        &mut self,
        disk: &dyn Disk,
        name: &str,
        names: Names,
        is_last: bool,
    ) -> Result<Checked, OpenError> {
        let (file, header) = open_segment(disk, name)?;
        if header.log_id != names.log_id {
            return Err(damaged(
                disk,
                name,
                0,
                "it belongs to another log than the header file says",
            ));
        }
        let mut index = MemoryIndex::new(header.start);
        let scanned = scan(&*file, &header, |frame, at, _, records| {
            self.frames += 1;
            self.records += u64::from(frame.count);
            index.add(frame, at, &records);
        });
        let scanned = scanned.map_err(|error| match error {
            ScanError::Io(source) => OpenError::Io { doing: "read", path: disk.path(name), source },
            ScanError::Damaged { at, what } => damaged(disk, name, at, what),
        })?;
        let torn = scanned.torn.map(|what| (scanned.end, what));
        if let Some((at, what)) = torn {
            self.notes.push(format!(
                "{name} is torn at byte {at} ({what}): what stands there was not answered for, a start passes it over"
            ));
        }
        if !is_last {
            self.check_index(disk, name, &header, scanned.marks)?;
        }
        Ok(Checked { header, end: scanned.marks, torn })
    }

    fn check_index(
        &mut self,
        disk: &dyn Disk,
        segment_name: &str,
        header: &Header,
        end: Marks,
    ) -> Result<(), OpenError> {
        let name = index_name(segment_name);
        let path = disk.path(&name);
        let file = match disk.open(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.notes.push(format!("{name} is missing, the next start builds it again"));
                return Ok(());
            }
            file => {
                file.map_err(|source| OpenError::Io { doing: "read", path: path.clone(), source })?
            }
        };
        let index = FileIndex::open(&path, file, header.salt, header.start)?;
        index.check()?;
        if index.end == end {
            return Ok(());
        }
        Err(damaged(disk, &name, 0, "it is not the index of what its segment holds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::damage::closed_log;

    #[test]
    fn a_whole_log_is_counted() {
        let (disk, model) = closed_log();
        let report = check_disk(&disk).unwrap();
        assert_eq!(report.records, model.all().len() as u64);
        assert_eq!(report.tail.get(), report.records);
        assert!(report.segments >= 3 && report.notes.is_empty(), "{report:?}");
    }

    #[test]
    fn a_missing_index_and_a_torn_end_are_notes() {
        let (disk, _) = closed_log();
        let whole = check_disk(&disk).unwrap();
        let names = segment_names(&disk).unwrap();
        disk.remove(&index_name(&names[0])).unwrap();
        // Behind the end mark, where the room is reserved.
        disk.edit(&names[names.len() - 1], |bytes| *bytes.last_mut().unwrap() = 1);
        let report = check_disk(&disk).unwrap();
        assert_eq!(report.notes.len(), 2, "{report:?}");
        assert_eq!(Report { notes: Vec::new(), ..report }, whole);
    }

    #[test]
    fn a_flipped_byte_in_any_file_is_damage_or_a_torn_end() {
        let (disk, _) = closed_log();
        let mut found = 0;
        for name in disk.list().unwrap() {
            let mut len = 0;
            disk.copy().edit(&name, |bytes| len = bytes.len());
            for at in (0..len).step_by(37) {
                let damaged = disk.copy();
                damaged.edit(&name, |bytes| bytes[at] ^= 0x20);
                let is_sound = |report: &Report| report.notes.is_empty();
                assert!(
                    !check_disk(&damaged).is_ok_and(|report| is_sound(&report)),
                    "{name} byte {at}"
                );
                found += 1;
            }
        }
        assert!(found > 500);
    }

    #[test]
    fn an_empty_directory_holds_no_log() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check(dir.path()), Err(OpenError::Damaged { .. })));
        assert!(matches!(check(&dir.path().join("none")), Err(OpenError::Io { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
