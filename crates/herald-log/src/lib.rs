//! The log: order, view and tail; everything that must survive a crash.
//!
//! This crate refuses to know HTTP, JSON beyond a stored body, and who may read what: it takes [`Receivers`], which
//! only a grant can make.
//!
//! ```text
//! append ─► sequencer ─► order ─► view ─► read
//!           numbers,     safe     segments, indexes,
//!           groups       batches  recent memory ─► tail ─► watch
//! ```

mod append;
mod check;
mod disk;
mod error;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod meters;
mod order;
mod page;
mod planted;
mod retention;
mod seed;
mod sequencer;
mod surroundings;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use herald_types::{Draft, Offset, Receivers};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use self::{
    append::Appended,
    check::{Report, check},
    error::{AppendError, JoinError, OpenError, ReadError},
    meters::describe_metrics,
    order::{
        condition::Condition,
        join::{Progress, Step},
        place::{BadOrderPlace, EngineSettings, EngineUrl, OrderPlace},
    },
    page::{Page, PageBounds, Record, Sink},
    seed::{SeedError, SeedProgress, SeedStep, Seeded, seed},
    watch::Watch,
};
use self::{
    disk::{Access, DataDir, Disk},
    meters::{AppendMeters, ReadMeters, kinds_of},
    order::{Order, condition::Shared, jetstream::Jetstream, local::Local, postgres::Postgres},
    retention::Keeper,
    sequencer::{Handle, Sequencer},
    view::{View, ViewSettings, copy::Follows},
    watch::Watches,
};

/// A page of at most so many records is read where it is asked for if the system has it in memory: that takes some
/// 100 µs, and another thread would take as long to begin.
const CACHED_RECORDS_MAX: usize = 128;
/// Likewise for at most so many receivers: each of them is looked for in every index on the way.
const CACHED_RECEIVERS_MAX: usize = 64;

/// Milliseconds since 1970.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How the log keeps what it is given.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// How long a notification is kept; `None` keeps all.
    pub retention: Option<Duration>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { retention: Some(Duration::from_secs(30 * 24 * 60 * 60)) }
    }
}

/// A handle to an open log; clones are the same log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    view: Arc<View>,
    sequencer: Handle,
    watches: Arc<Watches>,
    /// How the engine of a cluster is; a single node has none.
    shared: Option<Arc<Shared>>,
    stopping: tokio::sync::watch::Sender<bool>,
    // Plain mutexes: held to take a handle out, never across a wait.
    sequencer_task: Mutex<Option<JoinHandle<()>>>,
    tasks: Mutex<Option<Vec<JoinHandle<()>>>>,
    append_meters: AppendMeters,
    read_meters: ReadMeters,
}

impl Log {
    /// Opens the log in `dir`, making it if there is none. Blocks while it reads what is there, about half a second
    /// at most after a crash.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the directory.
    ///
    /// # Panics
    /// Outside a tokio runtime, on which the log's tasks run.
    pub fn open(dir: &Path, settings: LogSettings) -> Result<Self, OpenError> {
        let disk = Arc::new(DataDir::open(dir)?);
        let clock = Arc::new(|| {
            // A clock before 1970 counts as 1970: frame times never go back anyway.
            u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
        });
        Self::start(disk, ViewSettings::default(), settings, clock)
    }

    /// Opens the log that `place` says: as [`Log::open`], or joins the cluster whose engine is there. `progress` tells how
    /// far that is; it waits for an engine that is away, for ever.
    ///
    /// # Errors
    /// [`JoinError`]: what is wrong with the directory or the engine, or that they do not go together.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open_at(
        place: &OrderPlace,
        engine: &EngineSettings,
        dir: &Path,
        settings: LogSettings,
        progress: &Progress,
    ) -> Result<Self, JoinError> {
        match place {
            OrderPlace::Local => {
                let dir = dir.to_owned();
                let opened = tokio::task::spawn_blocking(move || Self::open(&dir, settings)).await;
                Ok(opened.expect("opening a log does not panic")?)
            }
            OrderPlace::Jetstream(url) => {
                let engine = Jetstream::new(url, engine).map_err(JoinError::Settings)?;
                Self::join(dir, settings, engine, progress).await
            }
            OrderPlace::Postgres(url) => {
                let engine = Postgres::new(url, engine).map_err(JoinError::Settings)?;
                Self::join(dir, settings, engine, progress).await
            }
        }
    }

    fn start(
        disk: Arc<dyn Disk>,
        view_settings: ViewSettings,
        settings: LogSettings,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        if Follows::read(&*disk)?.is_some() {
            return Err(OpenError::Follows(disk.path("")));
        }
        let view = Arc::new(View::open(disk, view_settings)?);
        let watches = Arc::new(Watches::default());
        let order = Local { view: Arc::clone(&view) };
        let (sequencer, handle) = Sequencer::new(
            order,
            Arc::clone(&view),
            Arc::clone(&watches),
            Arc::clone(&clock),
            None,
        );
        let stopping = tokio::sync::watch::Sender::new(false);
        Ok(Self::run(view, watches, sequencer, handle, clock, settings, stopping, None))
    }

    /// Starts the tasks of a log.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of the one thing that is put together here"
    )]
    fn run<O: Order>(
        view: Arc<View>,
        watches: Arc<Watches>,
        sequencer: Sequencer<O>,
        handle: Handle,
        clock: Clock,
        settings: LogSettings,
        stopping: tokio::sync::watch::Sender<bool>,
        cluster: Option<(Arc<Shared>, Vec<JoinHandle<()>>)>,
    ) -> Self {
        let keeper = Keeper {
            view: Arc::clone(&view),
            sequencer: handle.clone(),
            clock,
            retention: settings.retention,
            stopping: stopping.subscribe(),
        };
        let (shared, mut tasks) =
            cluster.map_or((None, Vec::new()), |(shared, tasks)| (Some(shared), tasks));
        tasks.push(tokio::spawn(keeper.run()));
        Self(Arc::new(Inner {
            view,
            sequencer: handle,
            watches,
            shared,
            stopping,
            sequencer_task: Mutex::new(Some(tokio::spawn(sequencer.run()))),
            tasks: Mutex::new(Some(tasks)),
            append_meters: AppendMeters::new(),
            read_meters: ReadMeters::new(),
        }))
    }

    /// Appends `drafts`, 1 to 1000, all or none; answers in their order when they are durable. `now` becomes their
    /// `createdAt`.
    ///
    /// A draft whose `notificationId` is stored is not stored again; its answer has the first one's offset and time.
    /// Dropping the future does not undo an append that is under way.
    ///
    /// # Errors
    /// [`AppendError`] says whether nothing happened or whether the outcome is unknown.
    pub async fn append(
        &self,
        drafts: Vec<Draft>,
        now: Timestamp,
    ) -> Result<Vec<Appended>, AppendError> {
        let kinds = kinds_of(&drafts);
        let outcome = append::append(&self.0.view, &self.0.sequencer, drafts, now).await;
        self.0.append_meters.count(&kinds, &outcome);
        outcome
    }

    /// Writes one page for `receivers` to `sink`, oldest first, if that can be done without waiting; or `None`, with
    /// nothing written, where the disk must be asked: then call [`Log::read_disk`].
    ///
    /// From memory where that reaches back far enough: one map lookup for each receiver, and a copy of the page. A page of
    /// a usual size also from what the system has cached of the disk.
    ///
    /// # Errors
    /// [`ReadError`] when the disk cannot be read.
    pub fn read_now(
        &self,
        receivers: &Receivers,
        after: Offset,
        bounds: PageBounds,
        sink: &mut impl Sink,
    ) -> Result<Option<Page>, ReadError> {
        let (view, meters) = (&self.0.view, &self.0.read_meters);
        let her_ids = receivers.as_slice();
        if let Some(page) = view.with_recent(|recent| recent.read(her_ids, after, bounds, sink)) {
            meters.hits.increment(1);
            return Ok(Some(page));
        }
        meters.misses.increment(1);
        if bounds.records.get() > CACHED_RECORDS_MAX || her_ids.len() > CACHED_RECEIVERS_MAX {
            return Ok(None);
        }
        let mark = sink.mark();
        match view.read(receivers, after, bounds, sink, Access::Cached) {
            Err(error) if error.is_not_cached() => {
                sink.cut(mark);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Reads one page from the disk, on a thread for that, into a new sink.
    ///
    /// # Errors
    /// [`ReadError`] when the disk cannot be read.
    ///
    /// # Panics
    /// When the runtime is shut down under its readers.
    pub async fn read_disk<S: Sink + Default + 'static>(
        &self,
        receivers: &Receivers,
        after: Offset,
        bounds: PageBounds,
    ) -> Result<(Page, S), ReadError> {
        let (view, receivers) = (Arc::clone(&self.0.view), receivers.clone());
        let read = surroundings::spawn_blocking(move || {
            let mut sink = S::default();
            let page = view.read(&receivers, after, bounds, &mut sink, Access::Disk)?;
            Ok((page, sink))
        });
        read.await.expect("reading a page does not panic")
    }

    /// Reads one page for `receivers`, oldest first, into a new sink.
    ///
    /// The records are those with offsets in `(after, until]` that retention has left, each once; gaps are normal.
    /// `after = 0` starts at the oldest; past the tail is legal and gives an empty page.
    ///
    /// # Errors
    /// [`ReadError`] when the disk cannot be read. Receivers without records are not an error.
    pub async fn read<S: Sink + Default + 'static>(
        &self,
        receivers: &Receivers,
        after: Offset,
        bounds: PageBounds,
    ) -> Result<(Page, S), ReadError> {
        let mut sink = S::default();
        match self.read_now(receivers, after, bounds, &mut sink)? {
            Some(page) => Ok((page, sink)),
            None => self.read_disk(receivers, after, bounds).await,
        }
    }

    /// Registers for wake-ups: after any later append for one of `receivers`, the watch is ready once.
    #[must_use]
    pub fn watch(&self, receivers: &Receivers) -> Watch {
        self.0.watches.register(receivers.clone())
    }

    /// The newest offset visible here, 0 when there has been none.
    ///
    /// # Panics
    /// Never: a tail is an offset.
    #[must_use]
    pub fn tail(&self) -> Offset {
        Offset::new(self.0.view.marks().tail()).expect("a tail is an offset")
    }

    /// The newest offset that retention has removed, 0 when there is none.
    ///
    /// # Panics
    /// Never: a trim point is an offset.
    #[must_use]
    pub fn trim_point(&self) -> Offset {
        Offset::new(self.0.view.marks().trim_point).expect("a trim point is an offset")
    }

    /// The name of this space of offsets.
    #[must_use]
    pub fn history(&self) -> Uuid {
        self.0.view.history()
    }

    /// How the log gets on with the engine that keeps its order; always fine on a single node.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.0.shared.as_ref().map_or(Condition::Fine, |shared| shared.condition())
    }

    /// Waits until this replica has been left behind: the engine has removed batches that it has not taken in, so that its
    /// copy can only be built again, which opening the log does. Never on a single node.
    pub async fn outrun(&self) {
        match &self.0.shared {
            Some(shared) => shared.when_outrun().await,
            None => std::future::pending().await,
        }
    }

    fn shared(&self) -> Option<&Shared> {
        self.0.shared.as_deref()
    }

    fn position(&self) -> order::Position {
        self.0.view.marks().position
    }

    /// Whether a failed write or sync has poisoned the log: it refuses appends until it is opened again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.view.is_poisoned()
    }

    /// Refuses further appends, finishes those under way, and releases the directory. Reads go on as long as there
    /// are handles.
    pub async fn close(&self) {
        self.0.stopping.send_replace(true);
        self.0.sequencer.close().await;
        let task = take(&self.0.sequencer_task);
        if let Some(task) = task {
            // A sequencer that has panicked has nothing left to finish.
            let _ = task.await;
        }
        // Not aborted: its work on the disk would go on in a directory that is somebody else's by then.
        for task in take(&self.0.tasks).into_iter().flatten() {
            let _ = task.await;
        }
        let view = Arc::clone(&self.0.view);
        let _ = surroundings::spawn_blocking(move || view.close()).await;
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("history", &self.history()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
    }
}
