//! Whether a request came when docs/client.md says that it comes: the table of waits, kept beside the client.

use std::collections::VecDeque;

use super::weather::Terminal;
use super::*;

/// More requests in a minute than this are a busy loop. Waits bounded by 0.5, 1, 2, 4, 8, 16 s and then 30 s make 6
/// quick tries and, with a chance of 1 in 100,000, 12 more (twelve even draws of up to 30 s have a sum below 60 s);
/// good connections can start that again once in a minute; polls are 13. Pages that brought something are not counted.
const REQUESTS_PER_MINUTE_MAX: usize = 2 * (6 + 12) + 13;

/// What one run has asked and been answered.
pub(super) struct Judge {
    /// When the caller came back to wait: what was due earlier comes now.
    pub(super) entered: Duration,
    /// The caller never drops a call that waits, never pauses, and has one run.
    pub(super) attentive: bool,
    /// What ended the client for good, and when, until the caller hears of it.
    pub(super) given: VecDeque<(Duration, Terminal)>,
    /// When the stream last began to keep the client waiting.
    pub(super) waiting_since: Duration,
    /// The caller has crashed: nothing counts until it is back.
    crashed: bool,
    failures: u32,
    hint: Duration,
    connected_at: Option<Duration>,
    /// Since when streams open and none of them has connected; one that cannot be opened is another matter.
    held_back_since: Option<Duration>,
    comments: Comments,
    /// What the next request has to ask for: all up to here has come, or is known not to exist.
    pub(super) after: u64,
    /// A failure whose wait is still to be drawn: when, its floor and its bound.
    failed: Option<(Duration, Duration, Duration)>,
    /// A stream was held back, which ended it: when the next one comes is the second draw.
    held_back_at: Option<Duration>,
    /// When the caller first came back to a silence that was over already.
    late_since: Option<Duration>,
    /// The same of a poll.
    page_failed: Option<(Duration, Duration, Duration)>,
    page_failures: u32,
    last_draw: f64,
    /// When the next stream is due; none while there is one.
    open_due: Option<Duration>,
    opened_at: Duration,
    polling: bool,
    page_asked: bool,
    brought_something: bool,
    page_due: Duration,
    requests: VecDeque<Duration>,
    pub(super) last_request: Duration,
}

/// The comments of one stream with no event between them.
#[derive(Default)]
struct Comments {
    /// When the last one arrived, and the longest time between two: silence for more than three of these is death.
    last: Option<Duration>,
    longest_gap: Duration,
    /// The same of those that the client was waiting for: of the others it cannot know.
    last_seen: Option<Duration>,
    longest_seen: Duration,
}

impl Judge {
    pub(super) fn new(now: Duration, after: u64, attentive: bool) -> Self {
        Self {
            entered: now,
            attentive,
            given: VecDeque::new(),
            waiting_since: now,
            crashed: false,
            failures: 0,
            hint: Duration::ZERO,
            connected_at: None,
            held_back_since: None,
            comments: Comments::default(),
            after,
            failed: None,
            held_back_at: None,
            late_since: None,
            page_failed: None,
            page_failures: 0,
            last_draw: 0.0,
            open_due: Some(now),
            opened_at: now,
            polling: false,
            page_asked: false,
            brought_something: false,
            page_due: now,
            requests: VecDeque::new(),
            last_request: now,
        }
    }

    pub(super) fn crash(&mut self) {
        self.crashed = true;
    }

    /// The caller waits again.
    pub(super) fn enters(&mut self, now: Duration) {
        self.entered = now;
        if now > self.waiting_since + self.silence() {
            self.late_since.get_or_insert(now);
        }
    }

    /// An open stream has nothing for the moment.
    pub(super) fn keeps_waiting(&mut self, now: Duration) {
        (self.waiting_since, self.late_since) = (now, None);
    }

    /// The longest time that any client could bear.
    fn silence(&self) -> Duration {
        seconds(45).max(3 * self.comments.longest_gap)
    }

    /// A stream is asked for: exactly when it is due, or when the caller is back if that is later.
    pub(super) fn open(&mut self, now: Duration, after: u64) {
        assert_eq!(after, self.after, "what a stream is asked for");
        let polled = self.page_asked || whole_millis(self.page_due) >= now || now == self.entered;
        assert!(!self.polling || polled, "no poll since {:?}", self.page_due);
        let due = self.open_due.take().expect("one stream at a time, each after a wait");
        let due = whole_millis(due);
        assert!(now == due || now > due && now == self.entered, "open at {now:?}, due at {due:?}");
        self.opened_at = now;
        self.last_request = now;
        self.connected_at = None;
        self.comments = Comments::default();
        self.count(now);
    }

    /// A page is asked for: only while streams do not deliver, and every 5 s.
    pub(super) fn page(&mut self, now: Duration, after: u64) {
        assert_eq!(after, self.after, "what a poll is asked for");
        self.page_asked = true;
        assert!(self.polling, "a poll at {now:?} while streams deliver");
        let due = whole_millis(self.page_due);
        let on_time = now == due || now > due && now == self.entered;
        assert!(on_time, "a poll at {now:?}, due at {due:?}");
        self.last_request = now;
        if !std::mem::take(&mut self.brought_something) {
            self.count(now);
        }
        self.page_due = now + seconds(5);
    }

    fn count(&mut self, now: Duration) {
        self.requests.push_back(now);
        while self.requests[0] + seconds(60) < now {
            self.requests.pop_front();
        }
        let count = self.requests.len();
        assert!(count <= REQUESTS_PER_MINUTE_MAX, "{count} requests in a minute at {now:?}");
    }

    pub(super) fn paged(&mut self, now: Duration, brought_something: bool) {
        self.page_failures = 0;
        let pause = if brought_something { Duration::ZERO } else { seconds(5) };
        self.page_due = now + pause;
        self.brought_something = brought_something;
    }

    pub(super) fn page_failed(&mut self, now: Duration, retry_after: Duration) {
        let floor = retry_after.min(seconds(300));
        self.page_failed = Some((now, floor, bound(self.page_failures)));
        self.page_failures += 1;
    }

    /// A poll is over. If it is not answered, then because streams deliver now.
    pub(super) fn page_let_go(&mut self, answered: bool) {
        self.page_asked = false;
        assert!(answered || self.crashed || !self.polling, "a poll is lost");
    }

    /// The client draws its jitter, at the moment of the failure.
    pub(super) fn draw(&mut self, random: f64) {
        self.last_draw = random;
        if let Some((at, floor, bound)) = self.failed.take() {
            self.open_due = Some(at + floor + bound.mul_f64(random));
        } else if let Some(at) = self.held_back_at.take() {
            self.open_due = Some(at + seconds(25) + seconds(25).mul_f64(random));
        } else if let Some((at, floor, bound)) = self.page_failed.take() {
            self.page_due = at + (floor + bound.mul_f64(random)).max(seconds(5));
        }
    }

    pub(super) fn hinted(&mut self, hint: Duration) {
        self.hint = hint.clamp(millis(100), seconds(60));
    }

    pub(super) fn connected(&mut self, now: Duration) {
        self.event();
        self.connected_at.get_or_insert(now);
        self.held_back_since = None;
        self.polling = false;
    }

    pub(super) fn event(&mut self) {
        (self.comments.last, self.comments.last_seen) = (None, None);
    }

    /// The client has learnt that there is nothing more up to here, or has it.
    pub(super) fn reaches(&mut self, offset: u64) {
        self.after = self.after.max(offset);
    }

    /// A comment that arrived then has been read now.
    pub(super) fn comment(&mut self, arrived: Duration, now: Duration) {
        let seen = (now > self.waiting_since).then_some(now);
        let gap = self.comments.last.map_or(Duration::ZERO, |last| arrived - last);
        self.comments.longest_gap = self.comments.longest_gap.max(gap);
        let gap =
            seen.zip(self.comments.last_seen).map_or(Duration::ZERO, |(now, last)| now - last);
        self.comments.longest_seen = self.comments.longest_seen.max(gap);
        (self.comments.last, self.comments.last_seen) = (Some(arrived), seen);
    }

    /// A stream is there, if only its head.
    pub(super) fn opened(&mut self, now: Duration) {
        self.held_back_since.get_or_insert(now);
    }

    /// A stream cannot be opened.
    pub(super) fn fails(&mut self, now: Duration, retry_after: Duration) {
        self.held_back_since = None;
        self.waits(now, retry_after);
    }

    /// An open stream has ended.
    pub(super) fn ended(&mut self, now: Duration) {
        self.waits(now, Duration::ZERO);
        if self.connected_at.is_some() {
            self.held_back_since = None;
        } else if self.held_back_since.is_some_and(|since| now - since >= seconds(15)) {
            self.held_back_at = Some(now);
            self.polls(now);
        }
    }

    fn polls(&mut self, now: Duration) {
        if !std::mem::replace(&mut self.polling, true) {
            (self.page_due, self.page_failures) = (now, 0);
        }
    }

    /// The server has failed the client: its wait begins.
    fn waits(&mut self, now: Duration, retry_after: Duration) {
        let floor = self.hint.max(retry_after.min(seconds(300)));
        let bound = self.bound(now);
        self.failed = Some((now, floor, bound));
    }

    pub(super) fn ends_it(&mut self, now: Duration, terminal: Terminal) {
        self.given.push_back((now, terminal));
        self.waits(now, Duration::ZERO);
    }

    pub(super) fn page_ends_it(&mut self, now: Duration, terminal: Terminal) {
        self.page_due = now + seconds(5);
        self.ends_it(now, terminal);
    }

    /// The client has let go of a connection.
    pub(super) fn let_go(&mut self, now: Duration) {
        if self.crashed || self.failed.is_some() || self.open_due.is_some() {
            return;
        }
        if self.connected_at.is_some() {
            let silent = now.checked_sub(self.waiting_since).unwrap();
            let most = self.silence();
            let seen = if self.attentive { self.comments.longest_seen } else { Duration::ZERO };
            let least = seconds(45).max(3 * seen);
            assert!(silent >= least, "given up after {silent:?} of silence");
            let late = now == self.entered
                || self.late_since.is_some_and(|since| now <= since + seconds(5));
            assert!(silent <= most + seconds(5) || late, "given up after {silent:?}, not {most:?}");
            let bound = self.bound(now);
            self.open_due = Some(now + self.hint + bound.mul_f64(self.last_draw));
        } else {
            let within = now.checked_sub(self.opened_at).unwrap();
            assert!(within >= seconds(15), "no `connected` within {within:?}");
            let on_time = within == seconds(15) || now == self.entered;
            assert!(on_time, "waited {within:?} for `connected`");
            self.bound(now);
            self.polls(now);
            let again = seconds(25);
            self.open_due = Some(now + again + again.mul_f64(self.last_draw));
        }
    }

    /// The most jitter after this failure: 0.5 s, doubling up to 30 s, from the start after 30 good seconds.
    fn bound(&mut self, now: Duration) -> Duration {
        if self.connected_at.is_some_and(|at| now - at >= seconds(30)) {
            self.failures = 0;
        }
        self.failures += 1;
        bound(self.failures - 1)
    }
}

fn bound(failures: u32) -> Duration {
    seconds(30).min(millis(500) * 2_u32.pow(failures.min(10)))
}

/// The clock's next tick.
fn whole_millis(time: Duration) -> Duration {
    millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap())
}
