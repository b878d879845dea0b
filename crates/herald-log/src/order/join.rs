//! Joining a cluster: which log the engine keeps, whether it is the one that this replica has a copy of, and catching up.

mod moved;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use herald_types::with_causes;
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Position,
    condition::{ConditionMeters, Shared},
    engine::{Engine, EngineError, Identity, Look, Source, kept_for},
    replicated::{Replicated, WHAT_TO_DO, follower::Follower, upkeep::Upkeep},
};
use crate::{
    Clock, JoinError, Log, LogSettings,
    disk::{DataDir, Disk},
    frame::Frame,
    sequencer::Sequencer,
    surroundings,
    view::{View, ViewSettings, copy::Found, open::Names, segment::Marks},
    watch::Watches,
};

/// Between two looks at an engine that is away, or whose log is not ready.
const AGAIN_WAIT: Duration = Duration::from_millis(500);
/// How often a long start says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// A log that does not go with what the directory holds is looked at again, so many times, before the start gives up.
const MISMATCHES_MAX: u32 = 5;
/// The follower reads ahead by so many pages of the engine.
const FOLLOWED_MAX: usize = 2;

/// How far a replica is in joining its cluster. Clones tell of the same.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Step>>);

/// One step of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// The data directory is being opened.
    #[default]
    Opening,
    /// The engine does not answer; it is asked again, for ever.
    EngineAway,
    /// The engine's log is being filled from a view.
    Seeding,
    /// The view follows what was there when the replica started.
    Following {
        /// How far it is, in batches.
        position: u64,
        /// How far it must come.
        newest: u64,
    },
}

impl Progress {
    /// Where it is now.
    #[must_use]
    pub fn step(&self) -> Step {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the step; says whether it is another kind of step than before.
    fn set(&self, step: Step) -> bool {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = std::mem::discriminant(&*now) != std::mem::discriminant(&step);
        *now = step;
        is_new
    }
}

impl Log {
    /// Joins the cluster whose log `engine` keeps, with a view in `dir`: waits until the engine answers, and until the view
    /// has all that the log held when it did.
    pub(crate) async fn join<E: Engine>(
        dir: &Path,
        settings: LogSettings,
        engine: E,
        progress: &Progress,
    ) -> Result<Self, JoinError> {
        let engine = Arc::new(engine);
        let own_clock: Clock =
            Arc::new(|| u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default());
        loop {
            // Anew each time: a log that is closed gives its directory back.
            let dir = dir.to_owned();
            let disk = tokio::task::spawn_blocking(move || DataDir::open(&dir));
            let disk = disk.await.expect("opening a directory does not panic")?;
            let joining = Joining {
                disk: Arc::new(disk),
                engine: Arc::clone(&engine),
                view_settings: ViewSettings::default(),
                settings,
                own_clock: Arc::clone(&own_clock),
                progress: progress.clone(),
            };
            if let Some(log) = joining.join().await? {
                return Ok(log);
            }
        }
    }
}

/// A replica on its way into a cluster.
pub(crate) struct Joining<E> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) engine: Arc<E>,
    pub(crate) view_settings: ViewSettings,
    pub(crate) settings: LogSettings,
    pub(crate) own_clock: Clock,
    pub(crate) progress: Progress,
}

/// A view that goes with the engine's log.
struct Ready {
    view: Arc<View>,
    look: Look,
    term: u64,
}

/// What came of one look.
enum Prepared {
    Ready(Ready),
    /// Look again, after so long.
    Again(Duration),
}

/// Why a view does not go with the engine's log.
enum Mismatch {
    /// May be what a node says that has just become the leader: worth another look.
    History(String),
    Other(JoinError),
}

impl<T: Into<JoinError>> From<T> for Mismatch {
    fn from(error: T) -> Self {
        Self::Other(error.into())
    }
}

impl From<EngineError> for JoinError {
    fn from(error: EngineError) -> Self {
        Self::Unfit(with_causes(&error))
    }
}

/// How catching up ended.
enum CaughtUp {
    Yes,
    /// The engine removed what came next before the view had it: begin again.
    Outrun,
}

impl<E: Engine> Joining<E> {
    /// The log, when the view has caught up; nothing when the engine outran it, so that one must begin again.
    pub(crate) async fn join(self) -> Result<Option<Log>, JoinError> {
        let (log, newest) = self.follow().await?;
        match self.catch_up(&log, newest).await {
            Ok(CaughtUp::Yes) => Ok(Some(log)),
            Ok(CaughtUp::Outrun) => {
                log.close().await;
                Ok(None)
            }
            Err(error) => {
                log.close().await;
                Err(error)
            }
        }
    }

    /// Opens a log that follows the engine, and says how far it must come.
    async fn follow(&self) -> Result<(Log, Position), JoinError> {
        let (Ready { view, look, term }, asked) = self.ready().await?;
        let shared = Arc::new(Shared::new(view.marks().position));
        shared.looked(&look, asked);
        let stopping = watch::Sender::new(false);
        let (to, followed) = mpsc::channel(FOLLOWED_MAX);
        let watches = Arc::new(Watches::default());
        let clock = shared.ages(Arc::clone(&self.own_clock));
        let order = Replicated::new(
            Arc::clone(&self.engine),
            Arc::clone(&view),
            Arc::clone(&watches),
            Arc::clone(&shared),
            look.identity,
            followed,
        );
        let (sequencer, handle) = Sequencer::new(
            order,
            Arc::clone(&view),
            Arc::clone(&watches),
            shared.stamps(),
            Some(Arc::clone(&shared)),
        );
        let follower = Follower {
            engine: Arc::clone(&self.engine),
            view: Arc::clone(&view),
            shared: Arc::clone(&shared),
            identity: look.identity,
            term,
            kept_ms: self.settings.retention.map(|retention| {
                u64::try_from(kept_for(retention).as_millis()).unwrap_or(u64::MAX)
            }),
            followed: None,
            to,
        };
        let upkeep = Upkeep {
            engine: Arc::clone(&self.engine),
            view: Arc::clone(&view),
            shared: Arc::clone(&shared),
            sequencer: handle.clone(),
            ages: Arc::clone(&clock),
            stamps: shared.stamps(),
            retention: self.settings.retention,
            log_id: look.identity.log_id,
            stopping: stopping.subscribe(),
        };
        let tasks = vec![tokio::spawn(follower.run()), tokio::spawn(upkeep.run())];
        let log = Log::run(
            view,
            watches,
            sequencer,
            handle,
            clock,
            self.settings,
            stopping,
            Some((shared, tasks)),
        );
        Ok((log, look.newest))
    }

    /// Waits for an engine that answers and a log that goes with what the directory holds; and when it was asked.
    async fn ready(&self) -> Result<(Ready, Instant), JoinError> {
        let mut mismatches = 0;
        loop {
            let (look, asked) = self.look().await?;
            match self.prepare(look).await {
                Ok(Prepared::Ready(ready)) => return Ok((ready, asked)),
                Ok(Prepared::Again(wait)) => sleep(wait).await,
                Err(Mismatch::Other(error)) => return Err(error),
                Err(Mismatch::History(what)) => {
                    mismatches += 1;
                    if mismatches == MISMATCHES_MAX {
                        return Err(JoinError::History(format!("{what}. {WHAT_TO_DO}")));
                    }
                    tracing::warn!(what, "the history does not seem to match, looking again");
                    sleep(AGAIN_WAIT * mismatches).await;
                }
            }
        }
    }

    /// Asks the engine until it answers.
    async fn look(&self) -> Result<(Option<Look>, Instant), JoinError> {
        loop {
            let asked = Instant::now();
            match self.engine.look().await {
                Ok(look) => return Ok((look, asked)),
                Err(EngineError::Away(why)) => self.is_away(&why).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn is_away(&self, why: &Source) {
        if self.progress.set(Step::EngineAway) {
            let engine = self.engine.address();
            tracing::warn!(
                error = with_causes(&**why),
                engine,
                "the log's engine does not answer: not ready until it does"
            );
        }
        sleep(AGAIN_WAIT).await;
    }

    /// Opens the view, builds it again or begins it, as it goes with the log. Or it is worth another look.
    async fn prepare(&self, look: Option<Look>) -> Result<Prepared, Mismatch> {
        let found = self.blocking(|disk| Found::on(&**disk)).await?;
        let Some(look) = look else { return self.begin_log(found).await };
        let names = Names { history: look.identity.history, log_id: look.identity.log_id };
        if look.identity.is_seeding {
            if self.progress.set(Step::Seeding) {
                tracing::info!("the engine's log is being seeded: not ready until that is done");
            }
            return Ok(Prepared::Again(AGAIN_WAIT));
        }
        if look.is_hollow() {
            return Err(Mismatch::History(format!(
                "the engine's log has a past, up to position {}, and nothing of it is left to read",
                look.newest
            )));
        }
        let term = found
            .follows
            .filter(|follows| follows.log_id == names.log_id)
            .map_or(0, |follows| follows.term);
        if look.term < term {
            return Err(Mismatch::History(format!(
                "the engine's term is {} and was {term} before: an old primary has come back",
                look.term
            )));
        }
        match found.names {
            Some(held) if held == names => {
                let view = self.open().await?;
                let position = view.marks().position;
                if look.newest < position {
                    let why = format!(
                        "the engine's log ends at position {}, and this replica has seen {position}: it has lost what it \
                         had acknowledged",
                        look.newest
                    );
                    return Err(Mismatch::History(why));
                }
                if look.first <= position.next() {
                    // The remembered term: the follower notes the newer one.
                    return Ok(Prepared::Ready(Ready { view: Arc::new(view), look, term }));
                }
                drop(view);
                tracing::warn!(
                    "the engine has removed batches that this replica has not: its view is built again"
                );
            }
            Some(held) if held.history == names.history => {
                match self.lost(&look).await? {
                    None => return Ok(Prepared::Again(Duration::ZERO)),
                    Some(Some(why)) => return Err(Mismatch::History(why)),
                    Some(None) => {}
                }
                tracing::warn!(
                    "the log has moved to another engine: this replica's view is built again"
                );
            }
            Some(held) => {
                if self.open().await?.marks().next_offset > 1 {
                    return Err(Mismatch::History(format!(
                        "the engine's log has the history {} and this data directory {}",
                        names.history, held.history
                    )));
                }
                tracing::info!(
                    "the data directory has never held a notification: it becomes a copy of the engine's log"
                );
            }
            None => {}
        }
        self.begin_view(names, look).await
    }

    /// The engine has no log: the first replica makes it, unless somebody has seen one.
    async fn begin_log(&self, found: Found) -> Result<Prepared, Mismatch> {
        if found.names.is_some() {
            let tail = self.open().await?.marks().tail();
            if tail > 0 || found.follows.is_some() {
                return Err(Mismatch::History(format!(
                    "the engine has no log, and this replica holds one up to offset {tail}: the engine has been emptied, \
                     or is another one"
                )));
            }
        }
        let identity = Identity {
            history: surroundings::random_uuid(),
            log_id: surroundings::random_uuid(),
            salt: surroundings::random(),
            is_seeding: false,
        };
        match self.engine.create(&identity).await {
            Ok(()) => tracing::info!(
                engine = self.engine.address(),
                "the engine had no log: a new history begins"
            ),
            Err(EngineError::Away(why)) => self.is_away(&why).await,
            Err(error) => return Err(JoinError::from(error).into()),
        }
        Ok(Prepared::Again(Duration::ZERO))
    }

    /// Begins a copy at the oldest batch that readers may be shown something of. What is older is about to be removed.
    async fn begin_view(&self, names: Names, look: Look) -> Result<Prepared, Mismatch> {
        let start = if look.newest == Position(0) {
            Marks::START
        } else {
            let first = self.frame_at(&look, look.first).await?;
            let newest = self.frame_at(&look, look.newest).await?;
            // They go while one looks.
            let (Some(first), Some(newest)) = (first, newest) else {
                return Ok(Prepared::Again(Duration::ZERO));
            };
            let removed = first.header.first_offset - 1;
            // After a stop longer than the engine keeps what is trimmed, nobody has trimmed what has gone, and all of it is due.
            let is_due = self.settings.retention.is_some_and(|retention| {
                let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
                first.header.time_ms.saturating_add(retention_ms) <= look.time_ms
            });
            if newest.header.trim_point < removed && !is_due {
                return Err(Mismatch::History(format!(
                    "the engine has removed notifications up to offset {removed}, and only those up to {} may be: its \
                     retention is shorter than Herald's",
                    newest.header.trim_point
                )));
            }
            let shown = newest.header.trim_point.max(removed) + 1;
            let Some(start) = self.frame_of(&look, newest, shown).await? else {
                return Ok(Prepared::Again(Duration::ZERO));
            };
            let position = Position(start.header.position.0 - 1);
            // The batch before it may come to be followed, and must then be the one that the copy begins behind.
            let before =
                if position < look.first { None } else { self.frame_at(&look, position).await? };
            Marks {
                position,
                next_offset: start.header.first_offset,
                trim_point: start.header.first_offset - 1,
                time_ms: before.map_or(0, |before| before.header.time_ms),
            }
        };
        let (settings, term) = (self.view_settings, look.term);
        let view = self
            .blocking(move |disk| View::begin_copy(Arc::clone(disk), settings, names, start, term))
            .await?;
        Ok(Prepared::Ready(Ready { view: Arc::new(view), look, term }))
    }

    async fn frame_at(&self, look: &Look, position: Position) -> Result<Option<Frame>, Mismatch> {
        let read = loop {
            match self.engine.read(position).await {
                Ok(read) => break read,
                Err(EngineError::Away(why)) => self.is_away(&why).await,
                Err(error) => return Err(JoinError::from(error).into()),
            }
        };
        let frame = read.map(|bytes| Frame::decode(bytes, look.identity.salt)).transpose();
        frame.map_err(|what| {
            Mismatch::History(format!(
                "the engine's batch at position {position} is not as it was written: {what}"
            ))
        })
    }

    async fn open(&self) -> Result<View, JoinError> {
        let settings = self.view_settings;
        Ok(self.blocking(move |disk| View::open(Arc::clone(disk), settings)).await?)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<dyn Disk>) -> T + Send + 'static,
    ) -> T {
        let disk = Arc::clone(&self.disk);
        surroundings::spawn_blocking(move || work(&disk))
            .await
            .expect("work on the disk does not panic")
    }

    /// Waits until the view has reached `newest`.
    async fn catch_up(&self, log: &Log, newest: Position) -> Result<CaughtUp, JoinError> {
        let meters = ConditionMeters::new();
        let (began, mut said) = (Instant::now(), Instant::now());
        let shared = log.shared().expect("a cluster's log has one");
        loop {
            let position = log.position();
            if let Some(what) = shared.refused() {
                return Err(JoinError::History(what.to_string()));
            }
            if shared.is_outrun() {
                return Ok(CaughtUp::Outrun);
            }
            if log.is_poisoned() {
                let source = io::Error::other("a write or sync failed while following");
                let (doing, path) = ("write to", self.disk.path(""));
                return Err(crate::OpenError::Io { doing, path, source }.into());
            }
            meters.set(shared);
            // What the engine had then may have gone since, where it was not safe: a look tells.
            let newest = newest.min(shared.looked_newest());
            if position >= newest && shared.is_verified() {
                let (batches, tail) = (position.0, log.tail().get());
                tracing::info!(batches, tail, took = ?began.elapsed(), "caught up with the log");
                return Ok(CaughtUp::Yes);
            }
            let is_new =
                self.progress.set(Step::Following { position: position.0, newest: newest.0 });
            if is_new || said.elapsed() >= PROGRESS_INTERVAL {
                tracing::info!(position = position.0, newest = newest.0, "following the log");
                said = Instant::now();
            }
            sleep(CATCH_UP_LOOK).await;
        }
    }
}

/// How often catching up looks how far it is.
const CATCH_UP_LOOK: Duration = Duration::from_millis(20);
