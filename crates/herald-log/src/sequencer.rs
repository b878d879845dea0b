//! The one task that numbers drafts and writes the view: offsets are born here.
//!
//! It gathers what waits into one batch (group commit), numbers it from the tail, hands it to the order, and answers
//! when it is safe. It never waits for the disk to look something up: a request has looked its ids up itself, and what
//! came after that is in memory. What needs a second look goes back to the request.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use foldhash::{HashSet, HashSetExt as _};
use herald_types::{Offset, with_causes};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    AppendError, Clock,
    frame::{Batch, FRAME_BYTES_MAX, Frame, HEADER_BYTES, Prepared},
    meters::BatchMeters,
    order::{Order, OrderError, condition::Shared},
    planted::{Bug, is_planted},
    surroundings,
    view::{View, receivers_of, recent::Recent, segment::Marks},
    watch::Watches,
};

/// How many requests may wait; those beyond wait for a place, which is the back-pressure on producers.
const WAITING_MAX: usize = 1024;
/// How many bytes of records may be on their way from looking their ids up to being stored. With the frame under way
/// that is less than recent memory holds, so what came since a request looked is still there when its turn comes.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// Whatever the engine does, a producer in a cluster is answered within so long, which is below the 10 s that the contract
/// gives: a batch that took its time may come before its own, and others' before that.
const ANSWER_WAIT: Duration = Duration::from_secs(9);

/// What a request asks of the sequencer.
pub(crate) struct Request {
    /// The records that are new as far as the request has seen.
    pub(crate) records: Vec<Prepared>,
    /// Where the log stood when it looked.
    pub(crate) seen: Marks,
    /// The oldest of its drafts that were stored already: once that is trimmed they are new.
    pub(crate) oldest_duplicate: Option<Offset>,
    /// The room that it takes until it is answered.
    pub(crate) room: Room,
    /// When it must be answered; none on a single node, where only the disk is waited for.
    pub(crate) answer_by: Option<Instant>,
}

/// Room for a request's records among those that wait.
pub(crate) struct Room(
    #[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit,
);

/// What became of a request.
pub(crate) enum Verdict {
    /// Stored; the first record's offset, the others follow.
    Stored(Offset),
    /// What it had seen no longer holds; it keeps its room.
    LookAgain(Room),
    /// Not stored.
    Failed(AppendError),
}

enum Command {
    Append(Waiting),
    Trim(Offset, oneshot::Sender<()>),
    Carry,
    Close,
}

struct Waiting {
    request: Request,
    count: u64,
    bytes: usize,
    answer: oneshot::Sender<Verdict>,
}

/// Hands requests to the sequencer.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    /// How a cluster's engine is; a single node has none.
    shared: Option<Arc<Shared>>,
}

impl Handle {
    /// When a request that comes now must be answered.
    pub(crate) fn answer_by(&self) -> Option<Instant> {
        self.shared.as_ref().map(|_| Instant::now() + ANSWER_WAIT)
    }

    /// Waits until there is room for `bytes` of records.
    pub(crate) async fn room(
        &self,
        bytes: usize,
        answer_by: Option<Instant>,
    ) -> Result<Room, AppendError> {
        self.obstacle()?;
        let permits = u32::try_from(bytes.min(WAITING_BYTES_MAX)).expect("the bound fits 32 bits");
        let permit = within(answer_by, Arc::clone(&self.room).acquire_many_owned(permits)).await;
        let permit = permit.ok_or(AppendError::EngineAway)?;
        // Who waited for room while the engine went away is told so at once, or each would wait in vain in its turn.
        self.obstacle()?;
        permit.map(Room).map_err(|_| AppendError::Closed)
    }

    fn obstacle(&self) -> Result<(), AppendError> {
        match &self.shared {
            Some(shared) if shared.refused().is_some() => Err(AppendError::OtherHistory),
            Some(shared) if shared.is_stuck() || shared.is_out() => Err(AppendError::EngineAway),
            _ => Ok(()),
        }
    }

    /// Waits for its turn and the verdict.
    pub(crate) async fn append(&self, request: Request) -> Verdict {
        let closed = || Verdict::Failed(AppendError::Closed);
        let answer_by = request.answer_by;
        let bytes = request.records.iter().map(Prepared::bytes_max).sum();
        let count = request.records.len() as u64;
        let (answer, verdict) = oneshot::channel();
        let waiting = Waiting { request, count, bytes, answer };
        match within(answer_by, self.commands.send(Command::Append(waiting))).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return closed(),
            None => return Verdict::Failed(AppendError::EngineAway),
        }
        let verdict = within(answer_by, verdict).await;
        verdict.map_or_else(
            || Verdict::Failed(AppendError::Unknown(Arc::new(io::ErrorKind::TimedOut.into()))),
            |verdict| verdict.unwrap_or_else(|_| closed()),
        )
    }

    /// Moves the trim point to `offset` with the next batch, and waits until that is safe.
    pub(crate) async fn trim(&self, offset: Offset) {
        let (done, trimmed) = oneshot::channel();
        if self.commands.send(Command::Trim(offset, done)).await.is_ok() {
            // Without an answer the next round of retention tries again.
            let _ = trimmed.await;
        }
    }

    /// Appends a batch without records, which carries the next offset and the trim point.
    pub(crate) async fn carry(&self) {
        let _ = self.commands.send(Command::Carry).await;
    }

    /// Refuses what comes from now on; what waits is still stored.
    pub(crate) async fn close(&self) {
        let _ = self.commands.send(Command::Close).await;
    }
}

/// Waits until `deadline`, if there is one; `None` when it came first.
async fn within<T>(deadline: Option<Instant>, wanted: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, wanted).await.ok(),
        None => Some(wanted.await),
    }
}

/// The task's own side.
pub(crate) struct Sequencer<O> {
    pub(crate) order: O,
    pub(crate) view: Arc<View>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) clock: Clock,
    commands: mpsc::Receiver<Command>,
    waiting: VecDeque<Waiting>,
    trim_to: Option<Offset>,
    must_carry: bool,
    /// What every batch id of this process begins with.
    replica: u64,
    trimmers: Vec<oneshot::Sender<()>>,
    closing: bool,
    meters: BatchMeters,
}

/// The drafts of several requests that become one batch.
struct Group {
    requests: Vec<Waiting>,
    ids: HashSet<Uuid>,
    bytes: usize,
}

impl<O: Order> Sequencer<O> {
    /// The task and the handle to it.
    pub(crate) fn new(
        order: O,
        view: Arc<View>,
        watches: Arc<Watches>,
        clock: Clock,
        shared: Option<Arc<Shared>>,
    ) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(WAITING_MAX);
        let sequencer = Self {
            order,
            view,
            watches,
            clock,
            commands,
            waiting: VecDeque::new(),
            trim_to: None,
            must_carry: false,
            replica: surroundings::random(),
            trimmers: Vec::new(),
            closing: false,
            meters: BatchMeters::new(),
        };
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        (sequencer, Handle { commands: sender, room, shared })
    }

    /// Runs until it is closed or nobody is left who could ask.
    pub(crate) async fn run(mut self) {
        loop {
            if !self.has_work() {
                if self.closing {
                    break;
                }
                tokio::select! {
                    biased;
                    command = self.commands.recv() => match command {
                        Some(command) => self.take(command),
                        None => break,
                    },
                    news = self.order.news() => self.order.take(news).await,
                }
                continue;
            }
            self.order.turn().await;
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            let group = self.gather();
            self.commit(group).await;
        }
    }

    fn has_work(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            self.take(command);
        }
        !self.waiting.is_empty() || self.trim_to.is_some() || self.must_carry
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append(waiting) => self.waiting.push_back(waiting),
            Command::Trim(offset, done) => {
                self.trim_to = self.trim_to.max(Some(offset));
                self.trimmers.push(done);
            }
            Command::Carry => self.must_carry = true,
            Command::Close => {
                self.closing = true;
                self.commands.close();
            }
        }
    }

    /// Takes what fits into one batch, in turn. A request with an id that is in the batch already waits for the next.
    fn gather(&mut self) -> Group {
        let mut group = Group { requests: Vec::new(), ids: HashSet::new(), bytes: HEADER_BYTES };
        let mut put_off = Vec::new();
        self.view.with_recent(|recent| {
            while let Some(waiting) = self.waiting.pop_front() {
                if group.bytes + waiting.bytes > FRAME_BYTES_MAX {
                    self.waiting.push_front(waiting);
                    break;
                }
                if must_look_again(&waiting.request, &self.view, recent) {
                    // A request that is gone needs no answer.
                    let _ = waiting.answer.send(Verdict::LookAgain(waiting.request.room));
                } else if group.holds_any_of(&waiting.request.records) {
                    put_off.push(waiting);
                } else {
                    group.add(waiting);
                }
            }
        });
        for waiting in put_off.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        group
    }

    async fn commit(&mut self, mut group: Group) {
        let marks = self.view.marks();
        let next_offset = marks.next_offset;
        let (trim_to, must_carry) = (self.trim_to.take(), std::mem::take(&mut self.must_carry));
        let trim_point = trim_to.map_or(0, Offset::get).min(marks.tail()).max(marks.trim_point);
        if group.requests.is_empty() && trim_point == marks.trim_point && !must_carry {
            // Another replica was first to trim.
            return self.trimmed();
        }
        let records: Vec<Prepared> = group
            .requests
            .iter_mut()
            .flat_map(|waiting| waiting.request.records.drain(..))
            .collect();
        let batch = Batch {
            id: u128::from(self.replica) << 64 | u128::from(surroundings::random::<u64>()),
            first_offset: next_offset,
            trim_point,
            time_ms: (self.clock)().max(marks.time_ms),
            records,
        };
        self.meters.records.record(crate::meters::size(batch.records.len()));
        self.meters.bytes.record(crate::meters::size(group.bytes));
        let began = Instant::now();
        let stored = self.order.append(batch).await;
        self.meters.append_seconds.record(began.elapsed());
        match stored {
            Ok(frame) => self.answer(group, &frame),
            Err(OrderError::Conflict(batch)) => {
                self.meters.conflicts.increment(1);
                self.trim_to = self.trim_to.max(trim_to);
                return self.put_back(group, batch.records);
            }
            Err(error) => {
                refuse(group, error, self.view.is_poisoned());
                if self.order.is_stuck() {
                    for waiting in self.waiting.drain(..) {
                        let _ = waiting.answer.send(Verdict::Failed(AppendError::EngineAway));
                    }
                }
            }
        }
        self.trimmed();
        if self.waiting.is_empty() && self.commands.is_empty() {
            self.order.idle();
        }
    }

    fn trimmed(&mut self) {
        for done in self.trimmers.drain(..) {
            let _ = done.send(());
        }
    }

    /// Their batch was not stored: they wait again, in their old places, with their records.
    fn put_back(&mut self, group: Group, records: Vec<Prepared>) {
        let mut records = records.into_iter();
        let mut requests = group.requests;
        for waiting in &mut requests {
            let count = usize::try_from(waiting.count).expect("it was a length");
            waiting.request.records = records.by_ref().take(count).collect();
        }
        for waiting in requests.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
    }

    fn answer(&self, group: Group, frame: &Frame) {
        // Streams first: whoever is answered may look for its events at once, and nobody waits longer for an answer than
        // waking takes.
        let woken = self.watches.wake(receivers_of(frame));
        self.meters.wakes.increment(woken as u64);
        let mut offset = frame.header.first_offset;
        for waiting in group.requests {
            let first = Offset::new(offset).expect("the view has taken it");
            offset += waiting.count;
            let _ = waiting.answer.send(Verdict::Stored(first));
        }
    }
}

/// Whether what the request has seen no longer holds: an id of its own came since, a stored one went, or memory does not
/// reach back to what it saw.
fn must_look_again(request: &Request, view: &View, recent: &Recent) -> bool {
    let tail = request.seen.tail();
    let went =
        request.oldest_duplicate.is_some_and(|offset| offset.get() <= recent.marks.trim_point);
    let came = || {
        !is_planted(Bug::ConflictIsNotLookedAt)
            && recent.marks.tail() > tail
            && view.came_since(tail, &request.records)
    };
    went || !recent.covers(tail) || came()
}

impl Group {
    fn holds_any_of(&self, records: &[Prepared]) -> bool {
        records.iter().any(|record| self.ids.contains(&record.notification_id))
    }

    fn add(&mut self, waiting: Waiting) {
        self.bytes += waiting.bytes;
        self.ids.extend(waiting.request.records.iter().map(|record| record.notification_id));
        self.requests.push(waiting);
    }
}

fn refuse(group: Group, error: OrderError, is_poisoned: bool) {
    let again: Box<dyn Fn() -> AppendError> = match error {
        OrderError::Poisoned => Box::new(|| AppendError::Poisoned),
        OrderError::Conflict(_) => unreachable!("its requests wait again"),
        OrderError::Away => Box::new(|| AppendError::EngineAway),
        OrderError::OtherHistory => Box::new(|| AppendError::OtherHistory),
        OrderError::Refused(source) => {
            tracing::warn!(error = with_causes(&source), "a batch was refused");
            let source = Arc::new(source);
            Box::new(move || AppendError::Refused(Arc::clone(&source)))
        }
        OrderError::Unknown(source) => {
            let error = with_causes(&source);
            if is_poisoned {
                tracing::error!(
                    error,
                    "a write or sync failed: the log takes no appends until the server is started again",
                );
            } else {
                tracing::error!(
                    error,
                    "no word from the log's engine in time: the outcome is unknown"
                );
            }
            let source = Arc::new(source);
            Box::new(move || AppendError::Unknown(Arc::clone(&source)))
        }
    };
    for waiting in group.requests {
        let _ = waiting.answer.send(Verdict::Failed(again()));
    }
}
