//! A cursor kept in a file: replaced as a whole, durable when saving returns, never moved back.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use herald_types::{HerId, Offset};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Cursor;

/// The first word of every checkpoint, with the version of what follows.
const FORMAT: &str = "herald-checkpoint-1";

/// A file that keeps a [`Cursor`]: two lines, the cursor as JSON and a checksum of that line.
///
/// Two processes that use the same file do not destroy it, but they take the same notifications.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    kept: Option<Cursor>,
}

/// Why a checkpoint cannot be used. Each names the file, which is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("the checkpoint {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is no checkpoint, or not a whole one.
    #[error("the checkpoint {} is damaged or is none ({what}); it was left as it is", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file is the checkpoint of other receivers.
    #[error(
        "the checkpoint {} is of other receivers than were asked for (it names {kept}, asked for were {asked}); it was left as it is",
        path.display()
    )]
    OtherReceivers {
        /// The file.
        path: PathBuf,
        /// How many receivers it names.
        kept: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// The file is the checkpoint of another log.
    #[error("the checkpoint {} belongs to another history; it was left as it is", path.display())]
    OtherHistory {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be replaced.
    #[error("the checkpoint {} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: String,
    history: Option<Uuid>,
    offsets: Vec<Offset>,
    receivers: Vec<HerId>,
}

impl CheckpointFile {
    /// Reads the file at `path`, if there is one.
    ///
    /// # Errors
    /// [`CheckpointError`] if there is one and it cannot be used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        let kept = read(&path)?;
        Ok(Self { path, kept })
    }

    /// Where the file is, or will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file keeps; `None` if there is no file.
    #[must_use]
    pub fn cursor(&self) -> Option<&Cursor> {
        self.kept.as_ref()
    }

    /// What the file keeps, for exactly these receivers; `None` if there is no file.
    ///
    /// # Errors
    /// [`CheckpointError::OtherReceivers`] if it names others.
    pub fn cursor_of(&self, receivers: &[HerId]) -> Result<Option<Cursor>, CheckpointError> {
        let Some(kept) = &self.kept else { return Ok(None) };
        let mut asked = receivers.to_vec();
        asked.sort_unstable();
        asked.dedup();
        if kept.receivers() != asked {
            let (kept, asked) = (kept.receivers().len(), asked.len());
            return Err(CheckpointError::OtherReceivers { path: self.path.clone(), kept, asked });
        }
        Ok(Some(kept.clone()))
    }

    /// Replaces what the file keeps; durable when this returns. An offset behind the one kept stays as it is kept.
    ///
    /// Blocks for two syncs, of the file and of its directory; does nothing if nothing has moved.
    ///
    /// # Errors
    /// [`CheckpointError`] if the file has become another's, or cannot be written.
    pub fn save(&mut self, cursor: &Cursor) -> Result<(), CheckpointError> {
        let mut next = cursor.clone();
        // Another process may have moved it on since.
        if let Some(kept) = read(&self.path)? {
            let path = || self.path.clone();
            if kept.receivers() != next.receivers() {
                let (kept, asked) = (kept.receivers().len(), next.receivers().len());
                return Err(CheckpointError::OtherReceivers { path: path(), kept, asked });
            }
            if kept.history().is_some() && kept.history() != next.history() {
                return Err(CheckpointError::OtherHistory { path: path() });
            }
            for (run, offset) in kept.offsets().iter().enumerate() {
                next.advance(run, *offset);
            }
            if kept == next {
                self.kept = Some(kept);
                return Ok(());
            }
        }
        write(&self.path, &encode(&next))
            .map_err(|source| CheckpointError::Write { path: self.path.clone(), source })?;
        self.kept = Some(next);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Cursor>, CheckpointError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Read { path: path.to_owned(), source }),
    };
    let damaged = |what| CheckpointError::Damaged { path: path.to_owned(), what };
    decode(&text).map(Some).map_err(damaged)
}

fn encode(cursor: &Cursor) -> Vec<u8> {
    let stored = Stored {
        format: FORMAT.to_owned(),
        history: cursor.history(),
        offsets: cursor.offsets().to_vec(),
        receivers: cursor.receivers().to_vec(),
    };
    let mut text = serde_json::to_vec(&stored).expect("numbers and text always serialise");
    let checksum = crc32c::crc32c(&text);
    writeln!(text, "\n{checksum:08x}").expect("writing into memory cannot fail");
    text
}

fn decode(text: &[u8]) -> Result<Cursor, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut lines = text.split(|byte| *byte == b'\n');
    let (line, checksum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let stored: Stored =
        crate::notification::read_object(line).map_err(|error| error.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("its format is {:?} and not {FORMAT:?}", stored.format));
    }
    let expected = format!("{:08x}", crc32c::crc32c(line));
    if checksum != expected.as_bytes() || lines.next() != Some(&[]) || lines.next().is_some() {
        return Err("its checksum does not fit".to_owned());
    }
    let (sorted, distinct) = (stored.receivers.clone(), stored.receivers.len());
    let cursor = Cursor::stored(stored.receivers, stored.offsets, stored.history)
        .map_err(|error| error.to_string())?;
    if cursor.receivers() != sorted || cursor.receivers().len() != distinct {
        return Err("its receivers are not sorted".to_owned());
    }
    Ok(cursor)
}

/// Write, sync, rename, sync the directory: at any moment the name stands for a whole checkpoint, old or new.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let beside = directory.join(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(number: u64) -> Offset {
        Offset::new(number).unwrap()
    }

    fn ids(range: std::ops::RangeInclusive<u32>) -> Vec<HerId> {
        range.filter_map(HerId::new).collect()
    }

    fn cursor(offsets: &[u64], history: Option<u128>) -> Cursor {
        let receivers = ids(1..=u32::try_from(offsets.len() * 1500).unwrap());
        let offsets = offsets.iter().copied().map(offset).collect();
        Cursor::stored(receivers, offsets, history.map(Uuid::from_u128)).unwrap()
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        (directory, path)
    }

    #[test]
    fn what_was_saved_is_there_after_opening_again() {
        let (_directory, path) = file();
        let mut file = CheckpointFile::open(&path).unwrap();
        assert_eq!(file.cursor(), None);
        for saved in
            [cursor(&[7, 9], None), cursor(&[8, 9], Some(1)), cursor(&[8, u64::MAX / 2], Some(1))]
        {
            file.save(&saved).unwrap();
            assert_eq!(CheckpointFile::open(&path).unwrap().cursor(), Some(&saved));
        }
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn it_never_moves_back_whoever_wrote_it() {
        let (_directory, path) = file();
        let mut ours = CheckpointFile::open(&path).unwrap();
        ours.save(&cursor(&[5, 5], Some(1))).unwrap();
        CheckpointFile::open(&path).unwrap().save(&cursor(&[9, 5], Some(1))).unwrap();
        ours.save(&cursor(&[7, 6], Some(1))).unwrap();
        let kept = CheckpointFile::open(&path).unwrap();
        assert_eq!(kept.cursor(), Some(&cursor(&[9, 6], Some(1))));
    }

    #[test]
    fn receivers_are_compared_as_a_set() {
        let (_directory, path) = file();
        CheckpointFile::open(&path).unwrap().save(&cursor(&[5], None)).unwrap();
        let file = CheckpointFile::open(&path).unwrap();
        let backwards: Vec<_> = ids(1..=1500).into_iter().rev().chain(ids(3..=3)).collect();
        assert!(file.cursor_of(&backwards).unwrap().is_some());
        for other in [ids(1..=1499), ids(2..=1501), ids(1..=1501)] {
            let refused = file.cursor_of(&other).unwrap_err();
            assert!(matches!(refused, CheckpointError::OtherReceivers { kept: 1500, .. }));
        }
    }

    #[test]
    fn saving_over_another_client_s_checkpoint_is_refused() {
        let (_directory, path) = file();
        let mut ours = CheckpointFile::open(&path).unwrap();
        CheckpointFile::open(&path).unwrap().save(&cursor(&[5], Some(1))).unwrap();
        let other_receivers = ours.save(&cursor(&[5, 5], Some(1))).unwrap_err();
        assert!(matches!(other_receivers, CheckpointError::OtherReceivers { .. }));
        let other_history = ours.save(&cursor(&[6], Some(2))).unwrap_err();
        assert!(matches!(other_history, CheckpointError::OtherHistory { .. }));
        assert_eq!(CheckpointFile::open(&path).unwrap().cursor(), Some(&cursor(&[5], Some(1))));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused_and_the_file_is_left_alone() {
        let (_directory, path) = file();
        let one = Cursor::stored(ids(7..=9), vec![offset(45459)], Some(Uuid::nil())).unwrap();
        let whole = encode(&one);
        let refuse = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            let refused = CheckpointFile::open(&path).unwrap_err();
            assert!(matches!(refused, CheckpointError::Damaged { .. }), "{refused}");
            assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), text);
        };
        for cut in 0..whole.len() {
            refuse(&whole[..cut]);
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            refuse(&changed);
        }
        refuse(&[&whole[..], b"x"].concat());
        refuse(&[&whole[..], &whole[..]].concat());
        refuse(b"45459\n");
        refuse(br#"{"offset":45459}"#);
    }

    #[test]
    fn a_path_that_cannot_be_read_or_written_is_said_with_its_name() {
        let (directory, path) = file();
        let error = CheckpointFile::open(directory.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Read { .. }));
        let missing = path.join("no/such");
        let error = CheckpointFile { path: missing, kept: None }.save(&cursor(&[5], None));
        assert!(error.unwrap_err().to_string().contains("no/such"));
    }
}
