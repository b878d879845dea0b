//! A cluster: the order is an engine's, and this replica's view is a copy of it.
//!
//! ```text
//! sequencer ── append ─► engine ─► answer ──┐
//!                          └─► follower ────┴─► view, in the order of positions
//! ```
//!
//! A batch is appended right behind the one that the view holds last. Whoever comes second follows first, and numbers
//! again. What becomes of a batch without an answer is decided by what stands at its position, and by nothing else: a
//! publish may land after one has looked, so the same bytes are repeated on the same condition until something stands
//! there.

pub(crate) mod follower;
mod turns;
pub(crate) mod upkeep;

use std::{future::pending, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use herald_types::with_causes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use self::turns::Turns;
use super::{
    Order, OrderError, Position,
    condition::Shared,
    engine::{AppendFailure, Engine, EngineError, Entry, Followed, Identity, Place},
};
use crate::{
    frame::{Batch, Frame, Header, link},
    planted::{Bug, is_planted},
    surroundings,
    view::{View, receivers_of},
    watch::Watches,
};

/// How long a batch waits for the engine's word before its producers are told that the outcome is unknown.
const APPEND_WAIT: Duration = Duration::from_secs(7);
/// How long it waits for the outcome of an older batch whose producers have been told so.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
/// Between two tries of the same batch.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// A try that could be cut short by the deadline is not begun: its outcome would be unknown for nothing.
const TRY_MIN: Duration = Duration::from_millis(2500);
/// So much is decoded at once, in tens of microseconds; more is given to a thread that may take its time.
const DECODED_HERE_BYTES_MAX: usize = 128 << 10;
/// How often it is tried to read what a batch stands behind.
const READS_MAX: u32 = 2;
/// Between two tries to add to the view what the disk had no room for.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// The order of a cluster, as one replica sees it.
pub(crate) struct Replicated<E> {
    pub(crate) engine: Arc<E>,
    view: Arc<View>,
    watches: Arc<Watches>,
    shared: Arc<Shared>,
    identity: Identity,
    /// Where the view stands, or will when the backlog is added.
    newest: Position,
    /// Which batch that is; a view does not always remember.
    newest_id: Option<u128>,
    // Bounded by what the follower sends at a time; a few, so that it reads while the view is written.
    followed: mpsc::Receiver<Followed>,
    /// Batches that are safe in the engine and that the disk has had no room for.
    backlog: Vec<Frame>,
    /// When to try them again.
    room_at: Instant,
    /// A batch of this replica of which nobody knows yet what became; its producers have been told so.
    unsettled: Option<Own>,
    turns: Turns,
}

/// A batch of this replica: what the engine gets, and what the view does.
struct Own {
    entry: Entry,
    frame: Frame,
}

impl Own {
    fn position(&self) -> Position {
        self.frame.header.position
    }
}

/// What became of a batch.
enum Outcome {
    Stored,
    /// Another batch stands at its position.
    Lost,
    /// The engine said no, and it was never tried before.
    Refused(io::Error),
    /// The time is over. Whether it may still appear.
    GivenUp {
        may_appear: bool,
    },
}

/// What comes to a replica that appends nothing.
pub(crate) enum News {
    Followed(Followed),
    /// What the engine said of the batch that is not settled.
    Tried(Result<(), AppendFailure>),
    /// It is time to try the disk again.
    Room,
}

impl<E: Engine> Replicated<E> {
    pub(crate) fn new(
        engine: Arc<E>,
        view: Arc<View>,
        watches: Arc<Watches>,
        shared: Arc<Shared>,
        identity: Identity,
        followed: mpsc::Receiver<Followed>,
    ) -> Self {
        let newest = view.marks().position;
        let newest_id = if newest == Position(0) { Some(0) } else { view.newest().batch_id };
        let (backlog, unsettled, turns) = (Vec::new(), None, Turns::new());
        Self {
            engine,
            view,
            watches,
            shared,
            identity,
            newest,
            newest_id,
            followed,
            backlog,
            room_at: Instant::now(),
            unsettled,
            turns,
        }
    }

    /// Tries one batch until it is known what became of it, or until `deadline`. `may_appear`: it was tried before.
    async fn store(&mut self, own: &Own, deadline: Instant, may_appear: bool) -> Outcome {
        let mut is_repeated = may_appear;
        let outcome = self.try_storing(own, deadline, &mut is_repeated).await;
        if is_repeated && matches!(outcome, Outcome::Stored) {
            self.stands_right(own).await;
        }
        outcome
    }

    async fn try_storing(
        &mut self,
        own: &Own,
        deadline: Instant,
        may_appear: &mut bool,
    ) -> Outcome {
        let (engine, shared) = (Arc::clone(&self.engine), Arc::clone(&self.shared));
        let position = own.position();
        let (mut is_taken, mut next_wait) = (false, Duration::ZERO);
        loop {
            let (waits_for_others, wait) = (is_taken, next_wait);
            let attempt = async {
                if waits_for_others {
                    // Only what follows can tell by whom.
                    return pending().await;
                }
                // A wait for nothing would last until the timer's next millisecond.
                if !wait.is_zero() {
                    sleep(wait).await;
                }
                append_trusting(&*engine, &shared, &own.entry).await
            };
            let mut attempt = pin!(attempt);
            let answer = loop {
                tokio::select! {
                    biased;
                    followed = receive(&mut self.followed), if self.backlog.is_empty() => {
                        if let Some(id) = self.take_in(followed, position).await {
                            return if id == own.entry.batch_id { Outcome::Stored } else { Outcome::Lost };
                        }
                    }
                    answer = &mut attempt => break answer,
                    () = sleep_until(deadline) => {
                        // The try under way may land later.
                        return Outcome::GivenUp { may_appear: *may_appear || !is_taken };
                    }
                }
            };
            next_wait = RETRY_WAIT;
            match answer {
                Ok(()) => {
                    if self.newest < position {
                        self.add(vec![own.frame.clone()]).await;
                    }
                    return Outcome::Stored;
                }
                Err(AppendFailure::Conflict) if is_planted(Bug::ConflictIsSuccess) => {
                    return Outcome::Stored;
                }
                // Perhaps said by a leader that is none any more, so that only what stands there in the end tells.
                Err(AppendFailure::Conflict) => (is_taken, *may_appear) = (true, true),
                Err(AppendFailure::Refused(why)) if !*may_appear => {
                    return Outcome::Refused(io::Error::other(why));
                }
                Err(AppendFailure::Away(_)) if Instant::now() + TRY_MIN > deadline => {
                    return Outcome::GivenUp { may_appear: *may_appear };
                }
                Err(AppendFailure::Refused(_) | AppendFailure::Away(_)) => {}
                Err(AppendFailure::Unknown(why)) => {
                    if !*may_appear {
                        tracing::warn!(
                            error = with_causes(&*why),
                            position = position.0,
                            "no answer about a batch: it is repeated until something stands at its position",
                        );
                    }
                    *may_appear = true;
                }
            }
        }
    }

    /// Looks whether a batch that was repeated stands behind the one that it was made for. It may have waited while the engine's
    /// log became shorter and went on with others, and an engine that goes by positions alone takes it then.
    async fn stands_right(&self, own: &Own) {
        for _ in 0..READS_MAX {
            match other_batch(&*self.engine, own.entry.after, self.identity.salt).await {
                Ok(None) => return,
                Ok(Some(what)) => return self.shared.refuse(&format!("{what}. {WHAT_TO_DO}")),
                Err(error) => {
                    tracing::debug!(error = with_causes(&error), "a batch could not be read");
                    sleep(RETRY_WAIT).await;
                }
            }
        }
    }

    /// Takes in what was followed; says which batch stands at `awaited`, if that is known by now.
    async fn take_in(&mut self, followed: Followed, awaited: Position) -> Option<u128> {
        self.shared.heard(followed.newest);
        let salt = self.identity.salt;
        let (newest, newest_id, marks) = (self.newest, self.newest_id, self.view.marks());
        let behind = followed.batches.iter().filter(|(position, _)| *position > newest);
        let is_quick =
            behind.map(|(_, bytes)| bytes.len()).sum::<usize>() <= DECODED_HERE_BYTES_MAX;
        let decode = move || {
            decode_behind(followed.batches, newest, newest_id, salt).map(|(same, frames)| {
                // A view does not always remember its last batch; then that must fit all else that it knows.
                let is_same = same.is_none_or(|same| match newest_id {
                    Some(id) => same.batch_id == id,
                    None => {
                        same.next_offset() == marks.next_offset && same.time_ms == marks.time_ms
                    }
                });
                (same, is_same, frames)
            })
        };
        let decoded = if is_quick {
            decode()
        } else {
            surroundings::spawn_blocking(decode).await.expect("decoding does not panic")
        };
        let (same, frames) = match decoded {
            Ok((same, true, frames)) => (same, frames),
            Ok((_, false, _)) => {
                self.shared.refuse(&format!(
                    "the engine has another batch at position {newest} than this replica: it has lost what it had \
                     acknowledged, or is another log. {WHAT_TO_DO}"
                ));
                return None;
            }
            Err(what) => {
                self.shared.refuse(&format!("{what}. {WHAT_TO_DO}"));
                return None;
            }
        };
        if let Some(same) = same {
            self.newest_id = Some(same.batch_id);
            self.shared.set_verified();
        }
        if self.shared.is_refused_for_good() {
            return None;
        }
        let stands = frames.iter().find(|frame| frame.header.position == awaited);
        let stands = stands.map(|frame| frame.header.batch_id);
        // Also while the log is in doubt: each batch says which one it stands behind.
        if !frames.is_empty() {
            for frame in &frames {
                self.turns.other(frame.header.batch_id, Instant::now());
            }
            self.add(frames).await;
            self.shared.set_verified();
        }
        stands
    }

    /// Adds batches that are safe to the view, behind those that wait for room, and wakes whom they concern.
    async fn add(&mut self, frames: Vec<Frame>) {
        if let Some(last) = frames.last() {
            (self.newest, self.newest_id) = (last.header.position, Some(last.header.batch_id));
        }
        let is_first = self.backlog.is_empty();
        self.backlog.extend(frames);
        let (view, mut backlog) = (Arc::clone(&self.view), std::mem::take(&mut self.backlog));
        let added = surroundings::spawn_blocking(move || {
            let applied = view.apply(&backlog);
            let rest = backlog.split_off(applied.as_ref().map_or(0, |(taken, _)| *taken));
            (applied, backlog, rest)
        });
        let (applied, added, rest) = match added.await {
            Ok(added) => added,
            Err(panic) => {
                tracing::error!(error = with_causes(&panic), "adding batches to the view failed");
                self.view.poison();
                return;
            }
        };
        self.backlog = rest;
        for frame in &added {
            self.watches.wake(receivers_of(frame));
        }
        if let Some(last) = added.last() {
            self.shared.reached(last.header.position);
        }
        match applied {
            Ok((_, None)) => {}
            Ok((_, Some(error))) => {
                self.room_at = Instant::now() + ROOM_WAIT;
                // Once, not each time that it is tried again.
                if is_first {
                    let (waiting, error) = (self.backlog.len(), with_causes(&error));
                    tracing::error!(
                        error,
                        waiting,
                        "the disk does not take batches that the engine has stored"
                    );
                }
            }
            Err(what) => self
                .shared
                .refuse(&format!("a batch of the engine does not fit: {what}. {WHAT_TO_DO}")),
        }
    }

    /// Takes in all that has come, without waiting.
    async fn catch_up(&mut self) {
        while self.backlog.is_empty()
            && let Ok(followed) = self.followed.try_recv()
        {
            self.take_in(followed, Position(0)).await;
        }
        self.settle_followed().await;
    }

    /// The batch without an answer is settled once something stands at its position.
    async fn settle_followed(&mut self) {
        if let Some(own) = self.unsettled.take_if(|own| own.position() <= self.newest) {
            self.settled(&own);
            self.stands_right(&own).await;
        }
    }

    /// Tries to add what waits for room, when it is time to.
    async fn try_backlog(&mut self) {
        if !self.backlog.is_empty() && Instant::now() >= self.room_at {
            self.add(Vec::new()).await;
        }
    }

    /// Why nothing may be appended now.
    fn obstacle(&self) -> Option<OrderError> {
        if self.shared.refused().is_some() {
            Some(OrderError::OtherHistory)
        } else if self.view.is_poisoned() {
            Some(OrderError::Poisoned)
        } else if self.shared.is_suspicious() {
            Some(OrderError::Away)
        } else if !self.backlog.is_empty() {
            let what = "the disk has no room for what the engine has stored";
            Some(OrderError::Refused(io::Error::new(io::ErrorKind::StorageFull, what)))
        } else {
            None
        }
    }

    /// Waits until `deadline` for what the view must know before it can append: which batch it holds last, and that the engine
    /// has it.
    async fn know_newest(&mut self, deadline: Instant) -> bool {
        while self.newest_id.is_none() || !self.shared.is_verified() {
            let Ok(followed) = timeout_at(deadline, receive(&mut self.followed)).await else {
                return false;
            };
            self.take_in(followed, Position(0)).await;
            if self.shared.refused().is_some() {
                return false;
            }
        }
        true
    }

    async fn settle(&mut self, deadline: Instant) -> bool {
        let Some(own) = self.unsettled.take() else { return true };
        match self.store(&own, deadline, true).await {
            Outcome::Stored | Outcome::Lost => {
                self.settled(&own);
                true
            }
            Outcome::Refused(_) | Outcome::GivenUp { .. } => {
                self.unsettled = Some(own);
                false
            }
        }
    }

    fn settled(&mut self, own: &Own) {
        self.unsettled = None;
        self.shared.set_stuck(false);
        tracing::info!(position = own.position().0, "a batch without an answer is settled");
    }
}

/// What an operator does about a log that is not the replica's.
pub(crate) const WHAT_TO_DO: &str = "See docs/operations.md, \"When the log is another one\": restore the engine, or fill a \
    new one from this replica with `herald log seed`";

/// Appends once the engine's log is not in question. An engine that goes by positions alone would take a batch behind another
/// one than it was made for, where the log has become shorter and gone on.
async fn append_trusting<E: Engine>(
    engine: &E,
    shared: &Shared,
    entry: &Entry,
) -> Result<(), AppendFailure> {
    while shared.is_suspicious() || shared.refused().is_some() {
        sleep(RETRY_WAIT).await;
    }
    engine.append(entry).await
}

/// What is wrong when the engine has another batch in the place of one that was there. Nothing, when that has aged out.
pub(crate) async fn other_batch<E: Engine>(
    engine: &E,
    was: Place,
    salt: u64,
) -> Result<Option<String>, EngineError> {
    let position = was.position;
    if position == Position(0) {
        return Ok(None);
    }
    let Some(bytes) = engine.read(position).await? else { return Ok(None) };
    let is_other =
        Header::of_frame(&bytes, salt).is_ok_and(|header| header.batch_id != was.batch_id);
    Ok(is_other.then(|| {
        format!(
            "the engine has another batch at position {position} than this replica: it has lost what it had acknowledged, \
             and went on"
        )
    }))
}

/// The next thing that was followed. The follower ends only with the replica.
async fn receive(followed: &mut mpsc::Receiver<Followed>) -> Followed {
    match followed.recv().await {
        Some(followed) => followed,
        None => pending().await,
    }
}

/// Decodes the batches from `newest` on: the header of that one, if it is among them, and those behind it.
fn decode_behind(
    batches: Vec<(Position, Bytes)>,
    newest: Position,
    newest_id: Option<u128>,
    salt: u64,
) -> Result<(Option<Header>, Vec<Frame>), String> {
    let (mut same, mut frames) = (None, Vec::with_capacity(batches.len()));
    let (mut at, mut id) = (newest, newest_id);
    for (position, bytes) in batches.into_iter().filter(|(position, _)| *position >= newest) {
        let bad = |what| {
            format!("the engine's batch at position {position} is not as it was written: {what}")
        };
        let header = Header::of_frame(&bytes, salt).map_err(bad)?;
        if header.position != position {
            return Err(bad("it names another position"));
        }
        if position == newest {
            // Most often this replica's own batch, come back; its records need no second look.
            (same, id) = (Some(header), id.or(Some(header.batch_id)));
            continue;
        }
        if position != at.next() {
            return Err(format!("the engine has no batch at position {}", at.next()));
        }
        if id.is_some_and(|id| header.safe_through != link(id)) {
            return Err(format!(
                "the engine's batch at position {position} does not stand behind the one that this replica has at {at}: \
                 the engine has lost what it had acknowledged, and went on"
            ));
        }
        (at, id) = (position, Some(header.batch_id));
        frames.push(Frame::decode(bytes, salt).map_err(bad)?);
    }
    Ok((same, frames))
}

impl<E: Engine> Order for Replicated<E> {
    type News = News;

    async fn turn(&mut self) {
        let Some(until) = self.turns.wait(Instant::now()) else { return };
        while !self.turns.is_next() && self.backlog.is_empty() {
            tokio::select! {
                biased;
                followed = receive(&mut self.followed) => drop(self.take_in(followed, Position(0)).await),
                () = sleep_until(until) => return,
            }
        }
    }

    async fn append(&mut self, batch: Batch) -> Result<Frame, OrderError> {
        let began = Instant::now();
        self.try_backlog().await;
        if let Some(error) = self.obstacle() {
            return Err(error);
        }
        // Whatever is taken in from here on, the batch has been numbered, timed and looked up before it.
        let numbered_behind = self.newest;
        self.catch_up().await;
        if self.unsettled.is_some() {
            let is_settled = self.settle(began + SETTLE_WAIT).await;
            return Err(if is_settled {
                OrderError::Conflict(Box::new(batch))
            } else {
                OrderError::Away
            });
        }
        if !self.know_newest(began + APPEND_WAIT).await {
            return Err(self.obstacle().unwrap_or(OrderError::Away));
        }
        let marks = self.view.marks();
        let fits = self.newest == numbered_behind
            && self.newest == marks.position
            && batch.first_offset == marks.next_offset
            && batch.time_ms >= marks.time_ms
            && batch.trim_point >= marks.trim_point;
        if !fits {
            return Err(self.obstacle().unwrap_or(OrderError::Conflict(Box::new(batch))));
        }
        let newest_id = self.newest_id.expect("it is known by now");
        let frame = batch.encode(self.newest.next(), link(newest_id), self.identity.salt);
        let entry = Entry {
            log_id: self.identity.log_id,
            after: Place { position: self.newest, batch_id: newest_id },
            batch_id: batch.id,
            frame: frame.bytes.clone(),
            tail: frame.header.next_offset() - 1,
            time_ms: frame.header.time_ms,
        };
        let own = Own { entry, frame };
        if is_planted(Bug::TailMovesFirst) {
            self.add(vec![own.frame.clone()]).await;
        }
        match self.store(&own, began + APPEND_WAIT, false).await {
            Outcome::Stored
                if self.backlog.is_empty()
                    && !self.view.is_poisoned()
                    && !self.shared.is_refused_for_good() =>
            {
                self.turns.won(batch.id, began.elapsed(), Instant::now());
                Ok(own.frame)
            }
            Outcome::Stored => Err(OrderError::Unknown(io::Error::other(
                "it is stored, and the view does not take it",
            ))),
            Outcome::Lost => Err(OrderError::Conflict(Box::new(batch))),
            Outcome::Refused(why) => Err(OrderError::Refused(why)),
            Outcome::GivenUp { may_appear: false } => {
                self.shared.set_out();
                Err(self.obstacle().unwrap_or(OrderError::Away))
            }
            Outcome::GivenUp { may_appear: true } if is_planted(Bug::UnknownIsRefused) => {
                Err(OrderError::Away)
            }
            Outcome::GivenUp { may_appear: true } => {
                self.unsettled = Some(own);
                self.shared.set_stuck(true);
                Err(OrderError::Unknown(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    async fn news(&mut self) -> News {
        if !self.backlog.is_empty() {
            // A moment, not a span: commands that keep coming must not put it off.
            sleep_until(self.room_at).await;
            return News::Room;
        }
        let again = async {
            let Some(own) = &self.unsettled else { return pending().await };
            sleep(RETRY_WAIT).await;
            append_trusting(&*self.engine, &self.shared, &own.entry).await
        };
        tokio::select! {
            biased;
            followed = receive(&mut self.followed) => News::Followed(followed),
            tried = again => News::Tried(tried),
        }
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Room => self.add(Vec::new()).await,
            News::Followed(followed) => {
                let awaited = self.unsettled.as_ref().map_or(Position(0), Own::position);
                self.take_in(followed, awaited).await;
                self.settle_followed().await;
            }
            News::Tried(Ok(())) => {
                if let Some(own) = self.unsettled.take() {
                    self.add(vec![own.frame.clone()]).await;
                    self.settled(&own);
                    self.stands_right(&own).await;
                }
            }
            // What stands there comes to be followed; or nothing does yet.
            News::Tried(Err(_)) => {}
        }
    }

    fn is_stuck(&self) -> bool {
        self.shared.is_stuck() || self.shared.is_out()
    }

    fn idle(&self) {}
}
