//! A file that is read again when it changes.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::io::AsyncReadExt as _;

/// How often a file is looked at: a change is noticed within 10 s, with room for a slow disk.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(4);

/// A file, and what was read from it last.
///
/// The content is compared, not the time of change: a file may be replaced by a link, on a disk without times, or twice in
/// one second, and what is watched is small.
pub struct WatchedFile {
    path: PathBuf,
    bytes_max: usize,
    last: Option<Vec<u8>>,
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its content may be a key.
        f.debug_struct("WatchedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl WatchedFile {
    /// A file of at most `bytes_max` bytes that has not been read.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes_max: usize) -> Self {
        Self { path: path.into(), bytes_max, last: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its content if that is not what was read last.
    ///
    /// # Errors
    /// When it cannot be read, or is larger than it may be; what was read last stays what the next call compares with.
    pub async fn changed(&mut self) -> io::Result<Option<&[u8]>> {
        // Opening a pipe would wait for whoever writes to it, perhaps for ever.
        if !tokio::fs::metadata(&self.path).await?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let file = tokio::fs::File::open(&self.path).await?;
        let mut bytes = Vec::new();
        file.take(self.bytes_max as u64 + 1).read_to_end(&mut bytes).await?;
        if bytes.len() > self.bytes_max {
            let error = format!("it is larger than {} bytes", self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        if self.last.as_ref() == Some(&bytes) {
            return Ok(None);
        }
        Ok(Some(self.last.insert(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_is_read_again_only_when_its_content_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watched");
        let mut file = WatchedFile::new(&path, 3);
        assert_eq!(file.changed().await.unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "one").unwrap();
        assert_eq!(file.changed().await.unwrap(), Some(&b"one"[..]));
        fs::write(&path, "one").unwrap();
        assert_eq!(file.changed().await.unwrap(), None);
        let other = dir.path().join("other");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(file.changed().await.unwrap(), Some(&b"two"[..]));
    }

    #[tokio::test]
    async fn what_is_in_a_file_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watched");
        fs::write(&path, [251; 3]).unwrap();
        let mut file = WatchedFile::new(&path, 3);
        file.changed().await.unwrap();
        assert!(!format!("{file:?}").contains("251"), "{file:?}");
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_is_refused_and_the_last_content_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watched");
        let mut file = WatchedFile::new(&path, 3);
        fs::write(&path, "abc").unwrap();
        assert!(file.changed().await.unwrap().is_some());
        fs::write(&path, "abcd").unwrap();
        assert_eq!(file.changed().await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, "abc").unwrap();
        assert_eq!(file.changed().await.unwrap(), None);
    }
}
