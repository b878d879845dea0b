//! Fills an engine that is empty from a view: a single node becomes a cluster, a lost engine is restored, a cluster moves to
//! another engine.
//!
//! The offsets keep their name, the history; the positions get another one. Until the last batch is in and all has been read
//! back, the log says that it is being seeded, and no replica follows it. Whatever ends a seeding, the next one finds what
//! stands there, and goes on behind it:
//!
//! ```text
//! look ─► compare what stands there with the source ─► all of it: say so, done
//!  ▲                          └─► a part: append the rest ─┐
//!  └────────────────────────────────────────────────────────┘
//! ```

mod compare;
mod piece;
mod source;

use std::{path::Path, sync::Arc, time::Duration};

use herald_types::{Offset, with_causes};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use self::{
    compare::{Comparison, Held, Unlike},
    piece::Piece,
    source::Source,
};
use crate::{
    EngineSettings, OpenError, OrderPlace,
    disk::{DataDir, Disk},
    frame::Frame,
    order::{
        Position,
        engine::{
            AppendFailure, Engine, EngineError, Entry, Follow as _, Identity, Look, Place,
            SILENCE_MAX,
        },
        jetstream::Jetstream,
        postgres::Postgres,
    },
};

/// The log goes on so far above the view's tail: what was answered and is not in the view must not have its offset given to
/// something else.
const JUMP: u64 = 1_000_000;
/// The largest offset that a log may go on at: half of all are left.
const NEXT_OFFSET_MAX: u64 = 1 << 62;
/// An engine that does not answer is asked again for so long, counted from its last answer.
const AWAY_MAX: Duration = Duration::from_secs(30);
const AGAIN_WAIT: Duration = Duration::from_millis(500);
/// Looks at what stands in the engine, before it is given up that somebody else writes there: one to begin with, one at the end,
/// and one for each batch of an earlier try that came late.
const ROUNDS_MAX: u32 = 8;

/// What was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The name of the offsets, the source's.
    pub history: Uuid,
    /// The name of the new log's positions.
    pub log_id: Uuid,
    /// How many notifications it holds.
    pub records: u64,
    /// The newest offset of the source.
    pub tail: Offset,
    /// The offset that the next notification gets.
    pub next_offset: Offset,
}

/// How far a seeding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedProgress {
    /// What is being done.
    pub step: SeedStep,
    /// With how many notifications.
    pub records: u64,
    /// Of how many.
    pub records_all: u64,
}

/// What a seeding does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedStep {
    /// The source is read, to see that it is whole.
    Checking,
    /// The engine does not answer; it is asked again for a while.
    EngineAway,
    /// What the engine has is compared with the source.
    Comparing,
    /// The engine is filled.
    Filling,
}

/// Why an engine was not seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// There is no engine to be seeded.
    #[error("a local log is not seeded: its data directory is the log; serve a copy of it")]
    Local,
    /// What `--log` and its settings say cannot be used.
    #[error("could not use the log's engine: {0}")]
    Settings(String),
    /// The log cannot go on there.
    #[error("the log may go on at an offset from {least} to {most}, and not at {asked}")]
    NextOffset {
        /// What was asked for.
        asked: u64,
        /// One above the source's tail.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// The engine answers, and something about it must be changed first.
    #[error("the log's engine cannot be used as it is: {0}")]
    Unfit(String),
    /// The engine has a log.
    #[error(
        "the engine has a log of history {history} already, up to position {position}: {what}. Only an empty engine is seeded; \
         if nobody needs that log, remove it there (docs/operations.md, \"Seeding an engine\")"
    )]
    Taken {
        /// Its history.
        history: Uuid,
        /// Its newest position.
        position: u64,
        /// Why it is not this seed.
        what: String,
    },
    /// The engine did not answer.
    #[error("the log's engine did not answer for {} s; the same command goes on where this one ended", waited.as_secs())]
    Away {
        /// For so long.
        waited: Duration,
        /// What was said last.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine took no more.
    #[error(
        "the log's engine refused a batch; once that is mended, the same command goes on where this one ended"
    )]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody else writes there.
    #[error(
        "somebody else writes to the engine's log; once that has ended, the same command goes on where this one ended"
    )]
    Busy,
}

impl SeedError {
    /// Whether the same may succeed later, with nothing else changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Busy)
    }

    /// Whether what was asked for can never be.
    #[must_use]
    pub const fn is_wrong_usage(&self) -> bool {
        matches!(self, Self::Local | Self::Settings(_) | Self::NextOffset { .. })
    }
}

/// Fills the engine at `place`, which must be empty, from the view in `from`, which is not changed: offsets, bytes, times, trim
/// point and history stay; the log goes on at `next_offset`, or 1,000,000 above the view's tail. `progress` is told how far
/// it is. Dropping the future stops it; the next one goes on where it stopped.
///
/// # Errors
/// [`SeedError`]; as long as it has not succeeded no replica follows the log.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn seed(
    from: &Path,
    place: &OrderPlace,
    settings: &EngineSettings,
    next_offset: Option<Offset>,
    progress: impl FnMut(SeedProgress) + Send,
) -> Result<Seeded, SeedError> {
    match place {
        OrderPlace::Local => Err(SeedError::Local),
        OrderPlace::Jetstream(url) => {
            let engine = Jetstream::new(url, settings).map_err(SeedError::Settings)?;
            fill(Arc::new(DataDir::inspect(from)?), engine, next_offset, progress).await
        }
        OrderPlace::Postgres(url) => {
            let engine = Postgres::new(url, settings).map_err(SeedError::Settings)?;
            fill(Arc::new(DataDir::inspect(from)?), engine, next_offset, progress).await
        }
    }
}

/// Fills `engine` from what `disk` holds.
pub(crate) async fn fill<E: Engine>(
    disk: Arc<dyn Disk>,
    engine: E,
    next_offset: Option<Offset>,
    mut progress: impl FnMut(SeedProgress) + Send,
) -> Result<Seeded, SeedError> {
    progress(SeedProgress { step: SeedStep::Checking, records: 0, records_all: 0 });
    let source = tokio::task::spawn_blocking(move || Source::open(disk)).await;
    let source = source.expect("reading a directory does not panic")?;
    let asked = next_offset.map(Offset::get);
    let next_offset = asked.unwrap_or(source.tail() + JUMP);
    let (least, most) = (source.tail() + 1, NEXT_OFFSET_MAX);
    if !(least..=most).contains(&next_offset) {
        return Err(SeedError::NextOffset { asked: next_offset, least, most });
    }
    Seeding { source, engine, asked, next_offset, progress, away_since: None }.run().await
}

struct Seeding<E, P> {
    source: Source,
    engine: E,
    /// Where the log is to go on, if somebody said so.
    asked: Option<u64>,
    next_offset: u64,
    progress: P,
    /// Since when the engine has not answered.
    away_since: Option<Instant>,
}

/// How an append ended.
enum Appended {
    Stored,
    /// Another batch stands there.
    Other,
}

impl<E: Engine, P: FnMut(SeedProgress) + Send> Seeding<E, P> {
    async fn run(mut self) -> Result<Seeded, SeedError> {
        for _ in 0..ROUNDS_MAX {
            let look = self.look().await?;
            let held = self.compare(&look).await?;
            let Some(next_offset) = held.next_offset else {
                self.append_rest(&look.identity, held).await?;
                continue;
            };
            if self.asked.is_some_and(|asked| asked != next_offset) {
                return Err(taken(&look, format!("it goes on at offset {next_offset}")));
            }
            if look.identity.is_seeding {
                self.end(&look.identity).await?;
            }
            let offset = |number| Offset::new(number).expect("it was an offset in a frame");
            return Ok(Seeded {
                history: look.identity.history,
                log_id: look.identity.log_id,
                records: held.records,
                tail: offset(self.source.tail()),
                next_offset: offset(next_offset),
            });
        }
        Err(SeedError::Busy)
    }

    /// The engine's log, made if there is none, if it may be this seed.
    async fn look(&mut self) -> Result<Look, SeedError> {
        let history = self.source.names.history;
        loop {
            let look = match self.engine.look().await {
                Ok(look) => look,
                Err(error) => {
                    self.wait(error).await?;
                    continue;
                }
            };
            self.away_since = None;
            let Some(look) = look else {
                let (log_id, salt, is_seeding) = (Uuid::new_v4(), rand::random(), true);
                let identity = Identity { history, log_id, salt, is_seeding };
                if let Err(error) = self.engine.create(&identity).await {
                    self.wait(error).await?;
                }
                continue;
            };
            let is_own = look.identity.log_id == self.source.names.log_id;
            return match (look.identity.history == history, look.first > Position(1)) {
                (false, _) => Err(taken(&look, "it is another one".into())),
                (true, _) if is_own => Err(taken(&look, "the directory is a copy of it".into())),
                (true, true) => Err(taken(&look, "its first batches are gone".into())),
                (true, false) => Ok(look),
            };
        }
    }

    /// Reads what the engine has beside what the source has.
    async fn compare(&mut self, look: &Look) -> Result<Held, SeedError> {
        let mut comparison = Comparison::new(&self.source, look.identity.salt);
        'follow: while comparison.held.at.position < look.newest {
            let from = comparison.held.at.position.next();
            let mut follow = match self.engine.follow(from).await {
                Ok(follow) => follow,
                Err(error) => {
                    self.wait(error).await?;
                    continue;
                }
            };
            while comparison.held.at.position < look.newest {
                let followed = match timeout(SILENCE_MAX, follow.next()).await {
                    Ok(Ok(followed)) => followed,
                    Ok(Err(error)) => {
                        self.wait(error).await?;
                        continue 'follow;
                    }
                    Err(silent) => {
                        self.wait(EngineError::Away(silent.into())).await?;
                        continue 'follow;
                    }
                };
                if followed.batches.is_empty() {
                    let silent = "it does not give what it has".to_owned();
                    self.wait(EngineError::Broken(silent)).await?;
                    continue;
                }
                self.away_since = None;
                for (position, bytes) in followed.batches {
                    if !look.identity.is_seeding && comparison.held.next_offset.is_some() {
                        // What replicas have appended since is not looked at.
                        return Ok(comparison.held);
                    }
                    match comparison.add(position, bytes).await {
                        Ok(()) => {}
                        Err(Unlike::Source(error)) => return Err(error.into()),
                        Err(Unlike::Engine(what)) => return Err(taken(look, what)),
                    }
                    self.tell(SeedStep::Comparing, comparison.held.records);
                }
            }
        }
        let held = comparison.held;
        if held.next_offset.is_none() && !look.identity.is_seeding {
            let what = format!("it has only {} of the notifications", held.records);
            return Err(taken(look, what));
        }
        Ok(held)
    }

    /// Appends what the engine has not, and the batch that ends it; or less, when another batch comes between.
    async fn append_rest(&mut self, identity: &Identity, mut held: Held) -> Result<(), SeedError> {
        let mut pieces = self.source.pieces(held.offset, identity.salt);
        while let Some(piece) = pieces.recv().await {
            let count = piece.as_ref().map_or(0, |piece| piece.records.len() as u64);
            if let Appended::Other = self.append(identity, &mut held, piece?).await? {
                return Ok(());
            }
            held.records += count;
            self.tell(SeedStep::Filling, held.records);
        }
        let next_offset = self.next_offset;
        // Where nothing is left the jump counts as trimmed, as all before it is. The time is that of the last records: with
        // them it is passed by retention, and a log of which they are gone begins with it.
        let trim_point = if held.records == 0 { next_offset - 1 } else { self.source.trim_point };
        let end = Piece::new(next_offset, trim_point, self.source.time_ms());
        self.append(identity, &mut held, end).await.map(drop)
    }

    /// Tries one batch until it is known what became of it.
    async fn append(
        &mut self,
        identity: &Identity,
        held: &mut Held,
        piece: Piece,
    ) -> Result<Appended, SeedError> {
        let batch_id = rand::random();
        let frame = piece.into_frame(held.at, batch_id, identity.salt);
        let entry = Entry {
            log_id: identity.log_id,
            after: held.at,
            batch_id,
            frame: frame.bytes,
            tail: frame.header.next_offset() - 1,
            time_ms: frame.header.time_ms,
        };
        let mut may_appear = false;
        loop {
            match self.engine.append(&entry).await {
                Ok(()) => break,
                Err(AppendFailure::Conflict) => match self.stands(identity, &entry).await? {
                    Some(true) => break,
                    Some(false) => return Ok(Appended::Other),
                    // What the engine has refused it for is not there to be read yet, or never will be.
                    None => {
                        may_appear = true;
                        let what = "it has another batch that cannot be read".to_owned();
                        self.wait(EngineError::Broken(what)).await?;
                    }
                },
                Err(AppendFailure::Refused(why)) if !may_appear => {
                    return Err(SeedError::Refused(why));
                }
                Err(AppendFailure::Away(why)) => self.wait(EngineError::Away(why)).await?,
                // It may land after one has looked, so the same bytes are repeated until something stands there.
                Err(AppendFailure::Refused(why) | AppendFailure::Unknown(why)) => {
                    // The first time at once: most often only the answer was lost.
                    if std::mem::replace(&mut may_appear, true) {
                        self.wait(EngineError::Away(why)).await?;
                    }
                }
            }
        }
        self.away_since = None;
        held.at = Place { position: frame.header.position, batch_id };
        Ok(Appended::Stored)
    }

    /// Whether it is this batch that stands at its position; `None` where nothing does.
    async fn stands(
        &mut self,
        identity: &Identity,
        entry: &Entry,
    ) -> Result<Option<bool>, SeedError> {
        loop {
            match self.engine.read(entry.after.position.next()).await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => {
                    let frame = Frame::decode(bytes, identity.salt);
                    return Ok(Some(
                        frame.is_ok_and(|frame| frame.header.batch_id == entry.batch_id),
                    ));
                }
                Err(error) => self.wait(error).await?,
            }
        }
    }

    /// Lets replicas follow it.
    async fn end(&mut self, identity: &Identity) -> Result<(), SeedError> {
        loop {
            match self.engine.seeded(identity).await {
                Ok(()) => return Ok(()),
                Err(error) => self.wait(error).await?,
            }
        }
    }

    /// Waits for an engine that does not answer, as long as that is worth it.
    async fn wait(&mut self, error: EngineError) -> Result<(), SeedError> {
        let why = match error {
            EngineError::Unfit(what) => return Err(SeedError::Unfit(what)),
            EngineError::Away(why) => why,
            EngineError::Broken(what) => what.into(),
        };
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= AWAY_MAX {
            return Err(SeedError::Away { waited: since.elapsed(), source: why });
        }
        tracing::debug!(error = with_causes(&*why), "the engine did not answer, trying again");
        self.tell(SeedStep::EngineAway, 0);
        sleep(AGAIN_WAIT).await;
        Ok(())
    }

    fn tell(&mut self, step: SeedStep, records: u64) {
        let records_all = self.source.records;
        (self.progress)(SeedProgress { step, records, records_all });
    }
}

fn taken(look: &Look, what: String) -> SeedError {
    let (history, position) = (look.identity.history, look.newest.0);
    SeedError::Taken { history, position, what }
}
