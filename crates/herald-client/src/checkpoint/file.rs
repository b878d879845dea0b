//! A cursor kept in a file: replaced as a whole, durable when saving returns, never moved back.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Checkpoint;
use crate::Cursor;

/// More links one behind the other are a circle.
const LINKS_MAX: usize = 40;
/// How many others may have replaced the file just before: more are a file system that cannot tell files apart.
#[cfg(unix)]
const CLAIMS_MAX: usize = 1000;
/// The first word of every checkpoint, with the version of what follows.
const FORMAT: &str = "herald-checkpoint-1";

/// A file that keeps a [`Cursor`]: two lines, the cursor as JSON and a checksum of that line.
///
/// Two processes that use the same file do not destroy it, but they take the same notifications.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    /// A save that nobody waits for any more; the next one waits for it, so that there is never more than one.
    under_way: Option<JoinHandle<Result<(), CheckpointError>>>,
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

impl CheckpointError {
    /// Whether the same call may succeed later, once the system lets it: a full disk gets room again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    #[serde(flatten)]
    cursor: Cursor,
}

impl CheckpointFile {
    /// The checkpoint in the file at `path`, which need not be there yet. Nothing is read before [`Checkpoint::load`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), under_way: None }
    }

    /// Where the file is, or will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reading and writing block, so they happen on a thread for that; a write that is under way is finished even if nobody waits
/// for it any more.
impl Checkpoint for CheckpointFile {
    type Error = CheckpointError;

    async fn load(&mut self) -> Result<Option<Cursor>, CheckpointError> {
        let path = self.path.clone();
        let loading = spawn_blocking({
            let path = path.clone();
            move || read(&path)
        });
        let ended = |error| CheckpointError::Read { path, source: io::Error::other(error) };
        loading.await.map_err(ended)?
    }

    /// Costs two syncs, of the file and of its directory; only the second if the file keeps all of it already.
    async fn save(&mut self, cursor: &Cursor) -> Result<(), CheckpointError> {
        if let Some(before) = &mut self.under_way {
            // What went wrong then goes wrong now, or is over.
            let _ = before.await;
            self.under_way = None;
        }
        let (path, cursor) = (self.path.clone(), cursor.clone());
        let save = self.under_way.insert(spawn_blocking(move || replace(&path, cursor)));
        let saved = save.await;
        self.under_way = None;
        // A runtime that shuts down does not begin it.
        let ended = |error| {
            let path = self.path.clone();
            CheckpointError::Write { path, source: io::Error::other(error) }
        };
        saved.map_err(ended)?
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

/// Moves what the file keeps forward to `next`, run by run.
fn replace(path: &Path, mut next: Cursor) -> Result<(), CheckpointError> {
    let failed = |source| CheckpointError::Write { path: path.to_owned(), source };
    // A link stays a link: what it leads to is replaced.
    let target = target_of(path);
    let path = target.as_path();
    let (beside, directory) = (beside(path).map_err(failed)?, directory_of(path));
    // From here on nobody else replaces it, so that it never moves back, whoever else saves.
    let mut file = claim(&beside).map_err(failed)?;
    let merged = match read(path) {
        Ok(kept) => merge(path, kept.as_ref(), &mut next).map(|()| kept.as_ref() != Some(&next)),
        Err(error) => Err(error),
    };
    match merged {
        Ok(true) => {}
        // Nothing to write: neither is anything left beside it.
        unchanged => {
            fs::remove_file(&beside).map_err(failed)?;
            unchanged?;
            // It may be there by a rename whose sync failed.
            return sync_directory(directory).map_err(failed);
        }
    }
    write(&mut file, &encode(&next)).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    sync_directory(directory).map_err(failed)
}

fn merge(path: &Path, kept: Option<&Cursor>, next: &mut Cursor) -> Result<(), CheckpointError> {
    let Some(kept) = kept else { return Ok(()) };
    let path = || path.to_owned();
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
    Ok(())
}

fn encode(cursor: &Cursor) -> Vec<u8> {
    let stored = Stored { format: FORMAT.to_owned(), cursor: cursor.clone() };
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
    Ok(stored.cursor)
}

/// The file that is written, and then renamed to `path`: at any moment the name stands for a whole checkpoint, old or new.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    Ok(directory_of(path).join(name))
}

/// What a link leads to, also if that is not there yet.
fn target_of(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&target) {
            Ok(link) => target = directory_of(&target).join(link),
            Err(_) => break,
        }
    }
    target
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Opens the file at `beside` for one writer at a time; the end of a process, a kill too, lets it go.
#[cfg(unix)]
fn claim(beside: &Path) -> io::Result<File> {
    use std::os::unix::fs::MetadataExt as _;

    let no_file = || io::Error::other(format!("{} is no file", beside.display()));
    for _ in 0..CLAIMS_MAX {
        if fs::symlink_metadata(beside).is_ok_and(|there| !there.is_file()) {
            return Err(no_file());
        }
        let file = File::options().create(true).truncate(false).write(true).open(beside)?;
        // A file system without locks is for one process at a time.
        if let Err(error) = file.lock()
            && error.kind() == io::ErrorKind::Interrupted
        {
            continue;
        }
        let ours = file.metadata()?;
        match fs::symlink_metadata(beside) {
            Ok(there) if !there.is_file() => return Err(no_file()),
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            // Whoever had it before has renamed it or taken it away: then this is no longer the file beside.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{} is another file each time", beside.display())))
}

/// Elsewhere a checkpoint is for one process at a time.
#[cfg(not(unix))]
fn claim(beside: &Path) -> io::Result<File> {
    File::create(beside)
}

fn write(file: &mut File, text: &[u8]) -> io::Result<()> {
    // A kill may have left a part of an earlier one.
    file.set_len(0)?;
    file.write_all(text)?;
    file.sync_all()
}

/// A rename is durable only with its directory.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Where directories cannot be opened, renaming is as durable as the system makes it.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use herald_types::{HerId, Offset};
    use uuid::Uuid;

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

    fn load(path: &Path) -> Result<Option<Cursor>, CheckpointError> {
        read(path)
    }

    fn save(path: &Path, cursor: &Cursor) -> Result<(), CheckpointError> {
        replace(path, cursor.clone())
    }

    fn names(path: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[tokio::test]
    async fn what_was_saved_is_there_after_opening_again() {
        let (_directory, path) = file();
        let mut file = CheckpointFile::new(&path);
        assert_eq!(file.load().await.unwrap(), None);
        for saved in
            [cursor(&[7, 9], None), cursor(&[8, 9], Some(1)), cursor(&[8, u64::MAX / 2], Some(1))]
        {
            for _ in 0..2 {
                file.save(&saved).await.unwrap();
                assert_eq!(CheckpointFile::new(&path).load().await.unwrap(), Some(saved.clone()));
                assert_eq!(names(&path), ["checkpoint"], "nothing is left over");
            }
        }
    }

    #[test]
    fn it_never_moves_back_whoever_wrote_it() {
        let (_directory, path) = file();
        save(&path, &cursor(&[5, 5], Some(1))).unwrap();
        save(&path, &cursor(&[9, 5], Some(1))).unwrap();
        save(&path, &cursor(&[7, 6], Some(1))).unwrap();
        assert_eq!(load(&path).unwrap(), Some(cursor(&[9, 6], Some(1))));
    }

    #[test]
    fn many_that_save_at_once_neither_destroy_it_nor_move_it_back() {
        let (_directory, path) = file();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut before = 0;
                    for number in (writer..200).step_by(4) {
                        save(path, &cursor(&[number], None)).unwrap();
                        let kept = load(path).unwrap().unwrap().offsets()[0].get();
                        assert!(kept >= number.max(before), "{kept} after {number}, {before}");
                        before = kept;
                    }
                });
            }
        });
        assert_eq!(load(&path).unwrap(), Some(cursor(&[199], None)));
        assert_eq!(names(&path), ["checkpoint"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_neither_replaced_nor_followed_where_nobody_meant_them() {
        use std::os::unix::fs::symlink;

        let (directory, path) = file();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, beside(&path).unwrap()).unwrap();
        let refused = save(&path, &cursor(&[5], None)).unwrap_err();
        assert!(matches!(refused, CheckpointError::Write { .. }), "{refused}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");

        let link = directory.path().join("link");
        save(&directory.path().join("real"), &cursor(&[5], None)).unwrap();
        symlink("real", &link).unwrap();
        save(&link, &cursor(&[6], None)).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load(&directory.path().join("real")).unwrap(), Some(cursor(&[6], None)));

        // The first start, with the link made before.
        fs::create_dir(directory.path().join("volume")).unwrap();
        let dangling = directory.path().join("dangling");
        symlink("volume/checkpoint", &dangling).unwrap();
        save(&dangling, &cursor(&[7], None)).unwrap();
        assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink());
        assert_eq!(load(&dangling).unwrap(), Some(cursor(&[7], None)));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn saves_that_are_given_up_do_not_pile_up() {
        let (_directory, path) = file();
        let held = claim(&beside(&path).unwrap()).unwrap();
        let mut file = CheckpointFile::new(&path);
        let threads = || fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        for number in 1..100 {
            assert!(file.save(&cursor(&[number], None)).now_or_never().is_none());
        }
        // Another test of this process may have begun a few of its own.
        assert!(threads() < before + 50, "{before} and now {}", threads());
        drop(held);
        file.save(&cursor(&[100], None)).await.unwrap();
        assert_eq!(load(&path).unwrap(), Some(cursor(&[100], None)));
    }

    #[test]
    fn what_a_killed_writer_left_beside_it_does_no_harm() {
        let (_directory, path) = file();
        save(&path, &cursor(&[5], None)).unwrap();
        fs::write(beside(&path).unwrap(), vec![b'x'; 100_000]).unwrap();
        assert_eq!(load(&path).unwrap(), Some(cursor(&[5], None)));
        save(&path, &cursor(&[6], None)).unwrap();
        assert_eq!(load(&path).unwrap(), Some(cursor(&[6], None)));
        assert_eq!(names(&path), ["checkpoint"]);
    }

    #[test]
    fn saving_over_another_client_s_checkpoint_is_refused() {
        let (_directory, path) = file();
        save(&path, &cursor(&[5], Some(1))).unwrap();
        let other_receivers = save(&path, &cursor(&[5, 5], Some(1))).unwrap_err();
        assert!(matches!(other_receivers, CheckpointError::OtherReceivers { .. }));
        let other_history = save(&path, &cursor(&[6], Some(2))).unwrap_err();
        assert!(matches!(other_history, CheckpointError::OtherHistory { .. }));
        assert_eq!(load(&path).unwrap(), Some(cursor(&[5], Some(1))));
        assert_eq!(names(&path), ["checkpoint"]);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused_and_the_file_is_left_alone() {
        let (_directory, path) = file();
        let one = Cursor::stored(ids(7..=9), vec![offset(45459)], Some(Uuid::nil())).unwrap();
        let whole = encode(&one);
        let refuse = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            let refused = load(&path).unwrap_err();
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
    fn a_file_that_was_damaged_meanwhile_is_not_replaced() {
        let (_directory, path) = file();
        fs::write(&path, "45459").unwrap();
        let refused = save(&path, &cursor(&[5], None)).unwrap_err();
        assert!(matches!(refused, CheckpointError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"45459");
    }

    #[test]
    fn a_path_that_cannot_be_read_or_written_is_said_with_its_name() {
        let (directory, path) = file();
        assert!(matches!(load(directory.path()), Err(CheckpointError::Read { .. })));
        let error = save(&path.join("no/such"), &cursor(&[5], None));
        assert!(error.unwrap_err().to_string().contains("no/such"));
    }
}
