//! Who uses the library: calls `next`, drops it, pauses, acknowledges, crashes and begins again, and checks what it gets.

use std::fmt;

use futures_util::future::poll_fn;
use herald_types::RECEIVERS_MAX;
use tokio::time::{sleep, timeout};

use super::{
    judge::Judge,
    server::{HISTORY, Server, World},
    weather::{CAUGHT_UP_WITHIN, Kind, Log, Terminal, Weather},
    *,
};
use crate::{Cursor, Event, Notifications};

/// A future that is woken in vain more often than this while time stands still spins. Each run has a stream and a poll,
/// the call its patience; each may wake it once for its time and once more for what then comes at once.
const WAKES_PER_INSTANT_MAX: u32 = 24;

/// One run as its caller sees it.
struct Lane {
    world: Arc<World>,
    handed_out: u64,
    handled: u64,
    cursor: u64,
}

struct Caller {
    rng: StdRng,
    begun: Instant,
    calm: Duration,
    lanes: Vec<Lane>,
    notifications: Notifications,
    unhandled: Vec<Notification>,
    /// What is in the checkpoint.
    kept: Cursor,
    /// How often a call is dropped, followed by a pause or a crash, handled, or kept.
    drops: f64,
    pauses: f64,
    crashes: f64,
    handles: f64,
    keeps: f64,
    wakes: (Instant, u32),
    /// No other seed is run.
    alone: bool,
}

/// One seed from its beginning to long after the last fault.
pub(super) async fn live(seed: u64) {
    let mut caller = Caller::draw(StdRng::seed_from_u64(seed));
    let caught_up_by = caller.calm + CAUGHT_UP_WITHIN;
    caller.until(caught_up_by).await;
    for lane in &caller.lanes {
        let missing = lane.world.log.after(lane.handed_out, caller.calm).next();
        assert!(missing.is_none(), "not handed out: {}", missing.unwrap().offset);
    }
    // The last notification and a comment behind it have come then, and are read.
    caller.until(caught_up_by + seconds(380)).await;
    let looked: Vec<_> = caller.lanes.iter().map(|lane| lock(&lane.world.judge).after).collect();
    caller.until(caught_up_by + seconds(400)).await;
    caller.handle_all();
    for (lane, looked) in caller.lanes.iter().zip(looked) {
        let last = lane.world.log.0.last().unwrap().offset;
        assert_eq!(lane.handed_out, last, "nothing is missing");
        assert!(lane.cursor >= last.max(looked), "the cursor is left behind");
        let judge = lock(&lane.world.judge);
        let quiet = judge.last_request <= caught_up_by;
        assert!(quiet || lane.world.weather.beat.is_none(), "requests beside a good stream");
    }
    caller.crash();
}

impl Caller {
    fn draw(mut rng: StdRng) -> Self {
        let begun = Instant::now();
        let calm = drawn(&mut rng, 60_000..1_200_000);
        let kind = if rng.random_bool(0.6) { Kind::Herald } else { Kind::Bare };
        let known_history = kind == Kind::Herald && rng.random_bool(0.5);
        let lanes = if rng.random_bool(0.8) { 1 } else { rng.random_range(2..4) };
        let lanes: Vec<_> =
            (0..lanes).map(|_| Lane::draw(&mut rng, begun, calm, kind, known_history)).collect();
        let count = (lanes.len() - 1) * RECEIVERS_MAX + 1;
        let receivers = (1..).filter_map(HerId::new).take(count);
        let offsets = lanes.iter().map(|lane| offset(lane.cursor)).collect();
        let kept = Cursor::stored(receivers, offsets, known_history.then_some(HISTORY)).unwrap();
        let mut chance =
            |most: f64| if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..most) };
        let [drops, pauses, crashes] = [1.0, 0.1, 0.02].map(&mut chance);
        let [handles, keeps] = [rng.random(), rng.random()];
        for lane in &lanes {
            let attentive = drops == 0.0 && pauses == 0.0 && lanes.len() == 1;
            lock(&lane.world.judge).attentive = attentive;
        }
        let notifications = begin(&lanes, kept.clone());
        Self {
            rng,
            begun,
            calm,
            lanes,
            notifications,
            unhandled: Vec::new(),
            kept,
            drops,
            pauses,
            crashes,
            handles,
            keeps,
            wakes: (begun, 0),
            alone: setting(ALONE).is_some(),
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn until(&mut self, end: Duration) {
        while self.now() < end {
            self.call(end).await;
            if self.rng.random_bool(self.handles) {
                self.handle();
            }
            if self.rng.random_bool(self.keeps) {
                self.kept = self.notifications.cursor().clone();
            }
            self.check_cursor();
            if self.now() < self.calm && self.rng.random_bool(self.pauses) {
                let most = if self.rng.random_bool(0.1) { 400_000 } else { 20_000 };
                sleep(drawn(&mut self.rng, 0..most).min(self.calm - self.now())).await;
            }
            if self.now() < self.calm && self.rng.random_bool(self.crashes) {
                self.crash();
            }
        }
    }

    /// One call of `next`, which may be dropped.
    async fn call(&mut self, end: Duration) {
        for lane in &self.lanes {
            lock(&lane.world.judge).enters(self.now());
        }
        let dropped = self.rng.random_bool(self.drops);
        let patience = if dropped { drawn(&mut self.rng, 0..10_000) } else { end };
        let patience = patience.min(end - self.now());
        let (notifications, wakes) = (&mut self.notifications, &mut self.wakes);
        let outcome = timeout(patience, without_spinning(notifications.next(), wakes)).await;
        match outcome {
            Ok(Ok(Event::Notification(notification))) => self.take(notification),
            Ok(Ok(Event::Status(status))) => self.note(&status),
            Ok(Err(error)) => self.check_error(&error),
            Ok(Ok(Event::Moved)) | Err(_) => {}
        }
        for lane in &self.lanes {
            let judge = lock(&lane.world.judge);
            assert!(judge.given.is_empty(), "the caller has not heard of {:?}", judge.given);
        }
    }

    /// What comes out is what is next in the log.
    fn take(&mut self, notification: Notification) {
        let now = self.now();
        let lane = &mut self.lanes[notification.run];
        let found = notification.offset().get();
        let expected = lane.world.log.next(lane.handed_out).expect("the log has more");
        assert_eq!(found, expected.offset, "after {}", lane.handed_out);
        assert_eq!(notification.raw(), expected.body);
        lane.handed_out = found;
        if expected.at > self.calm {
            let late = now - expected.at;
            assert!(late <= lane.latest(), "{found} comes {late:?} late");
        }
        self.unhandled.push(notification);
    }

    /// Acknowledges one of those handed out, and with it those before it.
    fn handle(&mut self) {
        if self.unhandled.is_empty() {
            return;
        }
        let one = self.unhandled[self.rng.random_range(0..self.unhandled.len())].clone();
        self.notifications.ack(&one);
        let lane = &mut self.lanes[one.run];
        lane.handled = one.offset().get();
        self.unhandled.retain(|other| other.run != one.run || other.offset() > one.offset());
        self.notifications.ack(&one);
    }

    fn handle_all(&mut self) {
        while !self.unhandled.is_empty() {
            self.handle();
        }
        self.check_cursor();
    }

    /// The cursor never goes back, is not behind what is handled, and not ahead of what is not.
    fn check_cursor(&mut self) {
        let offsets = self.notifications.cursor().offsets();
        for (lane, cursor) in self.lanes.iter_mut().zip(offsets.iter().map(|offset| offset.get())) {
            assert!(cursor >= lane.cursor && cursor >= lane.handled, "the cursor goes back");
            let unhandled = lane.world.log.next(lane.handled);
            assert!(unhandled.is_none_or(|entry| cursor < entry.offset), "the cursor skips");
            lane.cursor = cursor;
        }
    }

    /// A diary of the one seed that is looked at.
    fn note(&self, what: &dyn fmt::Display) {
        if self.alone {
            println!("{:?}: {what}", self.now());
        }
    }

    fn check_error(&self, error: &Error) {
        self.note(error);
        let heard = self.lanes.iter().any(|lane| {
            let mut judge = lock(&lane.world.judge);
            let given = judge.given.front().copied();
            given.is_some_and(|(_, terminal)| is(error, terminal))
                && judge.given.pop_front().is_some()
        });
        assert!(heard, "nothing has ended it: {error}");
    }

    /// Begins again from the checkpoint: what was not handled comes again, what was kept does not.
    fn crash(&mut self) {
        self.note(&"it crashes");
        for lane in &self.lanes {
            lock(&lane.world.judge).crash();
        }
        self.notifications = begin(&self.lanes, self.kept.clone());
        self.unhandled.clear();
        for (lane, kept) in self.lanes.iter_mut().zip(self.kept.offsets()) {
            (lane.handed_out, lane.handled, lane.cursor) = (kept.get(), kept.get(), kept.get());
            let mut judge = lock(&lane.world.judge);
            *judge = Judge::new(self.begun.elapsed(), kept.get(), judge.attentive);
        }
    }
}

impl Lane {
    fn draw(
        rng: &mut StdRng,
        begun: Instant,
        calm: Duration,
        kind: Kind,
        known_history: bool,
    ) -> Self {
        let log = Log::draw(rng, calm);
        let weather = Weather::draw(rng, calm, kind, known_history);
        let begin = log.0[rng.random_range(0..log.0.len().div_ceil(2))].offset - 1;
        let begin = if rng.random_bool(0.5) { 0 } else { begin };
        let judge = Mutex::new(Judge::new(Duration::ZERO, begin, false));
        let rng = Mutex::new(StdRng::from_rng(rng));
        let world = Arc::new(World { begun, log, weather, rng, judge });
        Self { world, handed_out: begin, handled: begin, cursor: begin }
    }

    /// How long after the log has it a notification may come when all is well: with the replica that is furthest
    /// behind; and on a server without comments behind a `retry:` of 60 s and the least jitter.
    fn latest(&self) -> Duration {
        let weather = &self.world.weather;
        let behind = weather.replicas.iter().max().copied().unwrap();
        let again = if weather.beat.is_some() { Duration::ZERO } else { millis(60_500) };
        behind + again + millis(100)
    }
}

fn begin(lanes: &[Lane], cursor: Cursor) -> Notifications {
    let mut lanes = lanes.iter();
    Notifications::over(cursor, |_| {
        Box::new(Server(Arc::clone(&lanes.next().expect("one for each run").world)))
    })
}

/// Passes a future on, as long as it is not woken in vain again and again at one instant.
async fn without_spinning<T>(future: impl Future<Output = T>, wakes: &mut (Instant, u32)) -> T {
    let mut future = std::pin::pin!(future);
    poll_fn(|context| {
        let outcome = future.as_mut().poll(context);
        if outcome.is_pending() {
            let now = Instant::now();
            *wakes = if wakes.0 == now { (now, wakes.1 + 1) } else { (now, 1) };
            assert!(wakes.1 <= WAKES_PER_INSTANT_MAX, "it spins");
        }
        outcome
    })
    .await
}

fn is(error: &Error, terminal: Terminal) -> bool {
    match (error, terminal) {
        (Error::Refused(refusal), Terminal::Status(status)) => refusal.status.as_u16() == status,
        (Error::ContentType { .. }, Terminal::ContentType)
        | (Error::Undecodable { .. }, Terminal::Undecodable) => true,
        (Error::OtherHistory { expected, found }, Terminal::OtherHistory(other)) => {
            *expected == HISTORY && *found == other
        }
        _ => false,
    }
}
