//! Files behind a small trait, so that crashes and failures can be tried at every call.
//!
//! Two implementations: [`DataDir`] is a directory of the real disk; the tests' one lives in memory, tears, fails and
//! forgets what was not synced.

#[cfg(test)]
pub(crate) mod memory;

use std::{
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use crate::{OpenError, meters::sync_seconds};

/// A flat directory of files.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Makes a file, or empties one that exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; those who have it open may go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all that happened to names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// How messages call a file.
    fn path(&self, name: &str) -> PathBuf;
    /// Lets another process open the directory.
    fn release(&self);
}

/// An open file.
pub(crate) trait File: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from byte `at` on.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
    /// The same, if it can be done without waiting for the disk; else [`io::ErrorKind::WouldBlock`].
    fn read_cached_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let _ = (buffer, at);
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Writes all of `bytes` at byte `at`.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes what was written durable. Invariant of the callers: a failed one is never tried again.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes sure of room for the bytes `from..to`, lengthening the file with zeros to `to`.
    fn reserve(&self, from: u64, to: u64) -> io::Result<()>;
}

/// The name under which a file is made before it is synced and renamed; such files are leftovers when a log is opened.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// Writes a small file whole: under another name, synced, renamed, the directory synced.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    let new_name = format!("{name}{NEW_SUFFIX}");
    let file = disk.create(&new_name)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    disk.rename(&new_name, name)?;
    disk.sync_dir()?;
    Ok(file)
}

/// Removes a file, or finds that it is gone.
pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// All bytes of a file.
pub(crate) fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

const LOCK: &str = "lock";

/// A directory of the real disk, locked against other processes for as long as it is open.
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Option<fs::File>,
}

impl DataDir {
    /// Opens the directory for a server, making it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |doing| move |source| OpenError::Io { doing, path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed("make"))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_path(parent).map_err(failed("sync the directory of"))?;
        }
        let mut options = fs::File::options();
        let lock = options.create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(failed("make the lock of"))?;
        lock_or(lock.try_lock(), path)?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// Opens the directory to look at it: nothing is made, and a server that has it is an error.
    pub(crate) fn inspect(path: &Path) -> Result<Self, OpenError> {
        let failed = |doing| move |source| OpenError::Io { doing, path: path.to_owned(), source };
        fs::read_dir(path).map_err(failed("read"))?;
        let lock = match fs::File::open(path.join(LOCK)) {
            Ok(lock) => {
                lock_or(lock.try_lock_shared(), path)?;
                Some(lock)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read the lock of")(error)),
        };
        Ok(Self { path: path.to_owned(), lock })
    }
}

fn lock_or(locked: Result<(), fs::TryLockError>, path: &Path) -> Result<(), OpenError> {
    match locked {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(source)) => {
            Err(OpenError::Io { doing: "lock", path: path.to_owned(), source })
        }
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Disk for DataDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        // A look at a directory may have no right to write; the first write then says so.
        let path = self.path.join(name);
        let file = fs::File::options().read(true).write(true).open(&path);
        let file = file.or_else(|_| fs::File::open(&path))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::File::options();
        let options = options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(RealFile(options.open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_path(&self.path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn release(&self) {
        if let Some(lock) = &self.lock {
            // Closing the file unlocks it as well; this is only sooner.
            let _ = lock.unlock();
        }
    }
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only what the system has in memory; anything else is [`io::ErrorKind::WouldBlock`].
    Cached,
    /// As long as it takes.
    Disk,
}

impl Access {
    pub(crate) fn read(self, file: &dyn File, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::Cached => file.read_cached_at(buffer, at),
            Self::Disk => file.read_exact_at(buffer, at),
        }
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, at)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        while !buffer.is_empty() {
            let read =
                preadv2(&self.0, &mut [io::IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT);
            match read {
                Ok(read) if read > 0 => {
                    buffer = &mut buffer[read..];
                    at += read as u64;
                }
                Err(Errno::INTR) => {}
                // Not cached; or a system that cannot tell, or tells by an end that is none (Linux 5.9 and 5.10). A read
                // that may wait says what is wrong, if anything is.
                Ok(_) | Err(_) => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        let began = Instant::now();
        let synced = self.0.sync_data();
        sync_seconds().record(began.elapsed());
        synced
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        let mode = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&self.0, mode, from, to - from) {
            Ok(()) => Ok(()),
            // A file system that cannot reserve: zeros take the room just as well.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let zeros = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
                self.0.write_all_at(&zeros, from)
            }
            Err(error) => Err(error.into()),
        }
    }
}
