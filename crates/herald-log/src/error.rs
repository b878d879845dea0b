//! What can go wrong: one enum per operation.

use std::{io, path::PathBuf, sync::Arc};

use uuid::Uuid;

/// Why an append was not answered with offsets.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A `notificationId` is stored with other content; nothing of the request is stored.
    #[error("{} of the notification ids are stored with other content", drafts.len())]
    ContentDiffers {
        /// The place in the request and the id of each.
        drafts: Vec<(usize, Uuid)>,
    },
    /// The disk, or the engine of a cluster, did not take the batch, often because it is full; nothing happened.
    #[error("the batch was not taken")]
    Refused(#[source] Arc<io::Error>),
    /// The engine that keeps the cluster's log does not answer; nothing happened.
    #[error("the log's engine does not answer")]
    EngineAway,
    /// The engine keeps another log than this replica, or has lost something that it had; nothing happened.
    #[error("the engine's log is not the one that this replica holds: its history is another")]
    OtherHistory,
    /// An earlier write or sync failed, so the log takes no appends until it is opened again; nothing happened.
    #[error("the log takes no appends after a failed write or sync")]
    Poisoned,
    /// The log is being closed; nothing happened.
    #[error("the log is being closed")]
    Closed,
    /// The log could not be read to look for the ids; nothing happened.
    #[error("could not look up the notification ids")]
    Lookup(#[from] ReadError),
    /// The write or the sync of this very batch failed: it may still appear after a restart.
    #[error("the outcome is unknown, the batch may still appear")]
    Unknown(#[source] Arc<io::Error>),
}

impl AppendError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::ContentDiffers { .. })
    }

    /// Whether nothing happened; otherwise the batch may still appear.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk did not give what it should hold.
    #[error("could not read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("{path} is damaged at byte {at}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

impl ReadError {
    /// Whether the same read may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// Whether only the disk could have answered, which was not to be waited for.
    pub(crate) fn is_not_cached(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// It is a replica's copy of a cluster's log.
    #[error(
        "{0} is a replica's copy of a cluster's log: give the --log that it follows, or another directory"
    )]
    Follows(PathBuf),
    /// A file operation failed.
    #[error("could not {doing} {path}")]
    Io {
        /// What was tried, a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Written by a newer version, or not by Herald at all.
    #[error("{path} has format version {found}, this version reads up to {known}")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// Stored bytes are not what was written, and were promised to be safe.
    #[error("{path} is damaged at byte {at}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        what: String,
    },
}

/// Why the log of an engine could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What `--log` says cannot be used.
    #[error("could not use the log's engine: {0}")]
    Settings(String),
    /// The engine answers, and something about it must be changed first.
    #[error("the log's engine cannot be used as it is: {0}")]
    Unfit(String),
    /// The engine's log and what the data directory holds do not go together. The text says what happened and what to do.
    #[error("the history does not match: {0}")]
    History(String),
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { path, source } => Self::Io { doing: "read", path, source },
            ReadError::Damaged { path, at, what } => {
                Self::Damaged { path, at, what: what.to_owned() }
            }
        }
    }
}
