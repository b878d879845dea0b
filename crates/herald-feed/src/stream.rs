//! Pages until the end: register for wake-ups, read a page, hand it out or wait; again.

use std::{
    fmt,
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use herald_log::{Log, Page, PageBounds, ReadError, Watch};
use herald_types::{PageLimit, wire::Events};
use tokio::time::{Instant, Sleep};

use crate::{
    Cursor, OpenStreams,
    open_streams::{Metrics, OpenStream, Permit},
};

/// How many records a stream hands out at once at most.
pub const STREAM_PAGE_RECORDS: u16 = 100;
/// No record is added behind so many bytes of bodies.
pub const STREAM_PAGE_BYTES: usize = 64 * 1024;
/// How long a reader should wait before it comes back, in milliseconds: drawn at random, so that they come one by one.
pub const RETRY_HINT_MS: RangeInclusive<u64> = 500..=3000;

const BOUNDS: PageBounds = PageBounds {
    records: match PageLimit::new(STREAM_PAGE_RECORDS) {
        Some(limit) => limit,
        None => panic!("a page holds 1 to 1000 records"),
    },
    bytes: STREAM_PAGE_BYTES,
};

type Reading = Pin<Box<dyn Future<Output = Result<(Page, Events), ReadError>> + Send>>;

/// One open stream: a state machine that is polled for events, with no task, no queue and one timer.
///
/// Every piece ends at an event boundary. The first is the `connected` event; after `ends_at` the last one is
/// a `retry:` hint. Between them come each record of the receivers behind the cursor exactly once, in ascending order,
/// and a heartbeat at each of the stream's own beats.
///
/// A beat's phase is drawn once and never moves, so that an event sent to ten thousand streams at once does not make
/// their heartbeats fall together, and costs no timer.
pub struct Stream {
    log: Log,
    cursor: Cursor,
    // Invariant: registered before the first page is read, so nothing that becomes visible later goes unnoticed.
    watch: Watch,
    open: OpenStream,
    heartbeat: Duration,
    beats_at: Instant,
    timer: Pin<Box<Sleep>>,
    state: State,
}

/// What a stream is opened with.
pub struct StreamSettings<'a> {
    /// The system that it is for, as the open streams are counted.
    pub source_system: &'a str,
    /// How often it says how far it has looked, when it is silent.
    pub heartbeat: Duration,
    /// When it ends.
    pub ends_at: Instant,
    /// Whether it may go on; without one it always may.
    pub permit: Option<Permit>,
}

impl fmt::Debug for StreamSettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSettings").field("ends_at", &self.ends_at).finish_non_exhaustive()
    }
}

enum State {
    Opening,
    Looking { beat: bool },
    Reading { beat: bool, reading: Reading },
    Waiting,
    Ended,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Stream {
    /// Opens a stream of everything behind `cursor`, which ends as its settings say, or when `streams` is drained.
    #[must_use]
    pub fn new(
        log: Log,
        cursor: Cursor,
        streams: &OpenStreams,
        settings: StreamSettings<'_>,
    ) -> Self {
        let StreamSettings { source_system, heartbeat, ends_at, permit } = settings;
        let watch = log.watch(cursor.receivers());
        let open = streams.open(source_system, cursor.after(), ends_at, permit);
        let beats_at = Instant::now() + heartbeat.mul_f64(rand::random_range(0.0..1.0));
        let timer = Box::pin(tokio::time::sleep_until(beats_at.min(open.ends_at())));
        Self { log, cursor, watch, open, heartbeat, beats_at, timer, state: State::Opening }
    }

    /// Adds the next events to `out`; `false` when the stream has ended.
    ///
    /// # Errors
    /// [`ReadError`] when the local view cannot be read; the stream has ended then.
    pub fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Events,
    ) -> Poll<Result<bool, ReadError>> {
        let now = Instant::now();
        self.open.asked(now);
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(Ok(false)),
                State::Opening => {
                    self.state = State::Looking { beat: false };
                    out.connected();
                    return Poll::Ready(Ok(true));
                }
                State::Looking { beat } => {
                    let beat = *beat;
                    if now >= self.open.ends_at() {
                        self.end(out);
                        return Poll::Ready(Ok(true));
                    }
                    let (receivers, after) = (self.cursor.receivers(), self.cursor.after());
                    let start = out.0.len();
                    match self.log.read_now(receivers, after, BOUNDS, out) {
                        Ok(Some(page)) => {
                            if self.take(&page, beat, start, out) {
                                return Poll::Ready(Ok(true));
                            }
                        }
                        Ok(None) => self.state = State::Reading { beat, reading: self.read() },
                        Err(error) => {
                            self.state = State::Ended;
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                State::Reading { beat, reading } => {
                    let beat = *beat;
                    match ready!(reading.as_mut().poll(cx)) {
                        Ok((page, mut events)) => {
                            let start = out.0.len();
                            out.append(&mut events);
                            if self.take(&page, beat, start, out) {
                                return Poll::Ready(Ok(true));
                            }
                        }
                        Err(error) => {
                            self.state = State::Ended;
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                State::Waiting => {
                    // Asked again with nothing left to hand out: the reader has taken all there is.
                    self.open.rests(self.cursor.after());
                    let beat = ready!(self.poll_waited(cx, now));
                    self.state = State::Looking { beat };
                }
            }
        }
    }

    /// Ready when it is worth looking again: woken, or a beat is due (`true`), or the end has come.
    fn poll_waited(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<bool> {
        // Before the end is looked at: one that moves in between would otherwise wake nobody.
        self.open.register(cx.waker());
        if self.watch.poll_woken(cx).is_ready() {
            self.metrics().wakeups.increment(1);
            return Poll::Ready(false);
        }
        let deadline = self.beats_at.min(self.open.ends_at());
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(now >= self.beats_at)
    }

    fn read(&self) -> Reading {
        let (log, cursor) = (self.log.clone(), self.cursor.clone());
        Box::pin(async move { log.read_disk(cursor.receivers(), cursor.after(), BOUNDS).await })
    }

    /// The last that it says.
    fn end(&mut self, out: &mut Events) {
        self.state = State::Ended;
        out.retry(rand::random_range(RETRY_HINT_MS));
    }

    /// Moves behind `page`, whose events are in `out` from `start` on; whether there is anything to send.
    fn take(&mut self, page: &Page, beat: bool, start: usize, out: &mut Events) -> bool {
        // Behind the read and not before it: what was read may have been appended after the permission had gone.
        if !page.is_empty() && !self.open.is_permitted() {
            out.0.truncate(start);
            self.end(out);
            return true;
        }
        self.cursor.advance(page.until());
        self.state = if page.is_full() { State::Looking { beat } } else { State::Waiting };
        let mut has_beaten = false;
        if beat && !page.is_full() {
            self.beat();
            if page.is_empty() {
                out.heartbeat(page.until());
                self.metrics().heartbeats.increment(1);
                has_beaten = true;
            }
        }
        if page.is_empty() && !has_beaten {
            self.open.rests(page.until());
            return false;
        }
        self.metrics().events.increment(page.len() as u64);
        self.open.handed_out(page.until());
        true
    }

    /// The next beat, in the same phase; beats missed while there was something to send are not made up for.
    fn beat(&mut self) {
        let late = Instant::now().saturating_duration_since(self.beats_at);
        let into_beat = late.as_nanos() % self.heartbeat.as_nanos().max(1);
        let into_beat = Duration::from_nanos(u64::try_from(into_beat).unwrap_or(0));
        self.beats_at = Instant::now() + self.heartbeat - into_beat;
    }

    fn metrics(&self) -> &Metrics {
        self.open.metrics()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        task::Waker,
    };

    use herald_log::LogSettings;
    use herald_types::{Draft, Grant, HerId, HerIds, NotificationType, Offset, wire::CONNECTED};
    use jiff::Timestamp;
    use tokio::time::advance;
    use uuid::Uuid;

    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(10);
    const HOUR: Duration = Duration::from_secs(3600);

    struct Opened {
        log: Log,
        streams: OpenStreams,
        _dir: tempfile::TempDir,
    }

    impl Opened {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let log = Log::open(dir.path(), LogSettings::default()).unwrap();
            Self { log, streams: OpenStreams::new(), _dir: dir }
        }

        fn stream(&self, after: u64) -> Stream {
            let her_ids = HerIds::new([HerId::new(1).unwrap()]).unwrap();
            let receivers = Grant::everything().narrow(her_ids).unwrap();
            let cursor = Cursor::new(receivers, Offset::new(after).unwrap());
            let ends_at = Instant::now() + HOUR;
            self.stream_of(cursor, ends_at, None)
        }

        fn stream_of(&self, cursor: Cursor, ends_at: Instant, permit: Option<Permit>) -> Stream {
            let settings =
                StreamSettings { source_system: "tests", heartbeat: HEARTBEAT, ends_at, permit };
            Stream::new(self.log.clone(), cursor, &self.streams, settings)
        }

        async fn append(&self, her_id: u32, count: usize, description: &str) {
            let draft = Draft {
                notification_id: None,
                related_message_id: Uuid::from_u128(1),
                kind: NotificationType::NewMessage,
                receiver: HerId::new(her_id).unwrap(),
                triggered_by: None,
                description: Some(description.to_owned()),
            };
            self.log.append(vec![draft; count], Timestamp::now()).await.unwrap();
        }
    }

    /// What the stream has for its reader now: a piece, or nothing.
    fn look(stream: &mut Stream) -> Option<String> {
        let mut out = Events::default();
        match stream.poll_events(&mut Context::from_waker(Waker::noop()), &mut out) {
            Poll::Pending => None,
            Poll::Ready(Ok(true)) => Some(String::from_utf8(out.0).unwrap()),
            Poll::Ready(Ok(false)) => Some("(end)".to_owned()),
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
    }

    fn events(piece: Option<String>) -> usize {
        piece.unwrap().matches("event: notification\n").count()
    }

    /// A stream that has said `connected` and has nothing to hand out.
    fn at_rest(opened: &Opened) -> Stream {
        let mut stream = opened.stream(opened.log.tail().get());
        assert_eq!(look(&mut stream).unwrap().as_bytes(), CONNECTED);
        assert_eq!(look(&mut stream), None);
        stream
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_appended_between_opening_and_reading_is_not_missed() {
        let opened = Opened::new();
        let mut stream = opened.stream(0);
        opened.append(1, 1, "x").await;
        assert_eq!(look(&mut stream).unwrap().as_bytes(), CONNECTED);
        opened.append(1, 1, "x").await;
        assert_eq!(events(look(&mut stream)), 2);
        // The wake-ups of both cost one look, which finds nothing.
        assert_eq!(look(&mut stream), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_ends_at_100_records() {
        let opened = Opened::new();
        opened.append(1, usize::from(STREAM_PAGE_RECORDS) * 2 + 1, "x").await;
        let mut stream = opened.stream(0);
        look(&mut stream);
        let sizes: Vec<_> = (0..3).map(|_| events(look(&mut stream))).collect();
        assert_eq!(sizes, [100, 100, 1]);
        assert_eq!(look(&mut stream), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_ends_with_the_record_that_reaches_64_kib() {
        let opened = Opened::new();
        opened.append(1, 100, &"å".repeat(1024)).await;
        let mut stream = opened.stream(0);
        look(&mut stream);
        let piece = look(&mut stream).unwrap();
        let bodies = piece.lines().filter_map(|line| line.strip_prefix("data: "));
        let sizes: Vec<_> = bodies.map(str::len).collect();
        let all: usize = sizes.iter().sum();
        let last = sizes.last().copied().unwrap();
        assert!(all >= STREAM_PAGE_BYTES && all - last < STREAM_PAGE_BYTES, "{all} {last}");
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_keep_their_phase_whatever_is_sent() {
        let opened = Opened::new();
        opened.append(2, 1, "x").await;
        let mut stream = at_rest(&opened);
        let first = stream.beats_at;
        assert!(first <= Instant::now() + HEARTBEAT);
        // The clock of timers has whole milliseconds.
        let tick = Duration::from_millis(1);
        advance(first + tick - Instant::now()).await;
        assert_eq!(look(&mut stream).as_deref(), Some(": until 1\n\n"));
        assert_eq!(look(&mut stream), None);
        for beat in 1..4_u32 {
            advance(first + HEARTBEAT * beat - tick - Instant::now()).await;
            assert_eq!(look(&mut stream), None);
            advance(tick * 2).await;
            assert_eq!(look(&mut stream).as_deref(), Some(": until 1\n\n"));
        }
        // Nobody asked for three beats and a half: one comment, and the next one when it is due.
        advance(HEARTBEAT * 7 / 2).await;
        assert_eq!(look(&mut stream).as_deref(), Some(": until 1\n\n"));
        assert_eq!(look(&mut stream), None);
        assert_eq!(stream.beats_at, first + HEARTBEAT * 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_looks_at_the_tail_first() {
        let opened = Opened::new();
        let mut stream = at_rest(&opened);
        opened.append(2, 3, "x").await;
        advance(HEARTBEAT).await;
        assert_eq!(look(&mut stream).as_deref(), Some(": until 3\n\n"));
        opened.append(1, 1, "x").await;
        advance(HEARTBEAT).await;
        assert_eq!(events(look(&mut stream)), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_a_hint_at_its_end_even_in_the_middle_of_the_past() {
        for pages in 0..3 {
            let opened = Opened::new();
            opened.append(1, 250, "x").await;
            let mut stream = opened.stream(0);
            look(&mut stream);
            for _ in 0..pages {
                assert!(events(look(&mut stream)) > 0);
            }
            let now = Instant::now();
            opened.streams.drain(now..now);
            let hint = look(&mut stream).unwrap();
            let wait_ms = hint.strip_prefix("retry: ").unwrap().trim_end().parse().unwrap();
            assert!(RETRY_HINT_MS.contains(&wait_ms), "{hint}");
            assert_eq!(look(&mut stream).as_deref(), Some("(end)"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_permit_is_lost_is_woken_and_ends_and_others_go_on() {
        let opened = Opened::new();
        let (permitted, other) = (Arc::new(AtomicBool::new(true)), at_rest(&opened));
        let asked = Arc::clone(&permitted);
        let permit: Permit = Box::new(move || asked.load(Ordering::Relaxed));
        let ends_at = Instant::now() + HOUR;
        let mut stream = opened.stream_of(other.cursor.clone(), ends_at, Some(permit));
        assert_eq!(look(&mut stream).unwrap().as_bytes(), CONNECTED);
        let waiting = tokio::spawn(async move {
            let piece = poll_fn(|cx| stream.poll_events(cx, &mut Events::default())).await;
            (piece.unwrap(), look(&mut stream))
        });
        tokio::task::yield_now().await;
        assert_eq!(opened.streams.recheck(), 0);
        assert!(!waiting.is_finished());
        permitted.store(false, Ordering::Relaxed);
        assert_eq!(opened.streams.recheck(), 1);
        assert_eq!(waiting.await.unwrap(), (true, Some("(end)".to_owned())));
        let mut other = other;
        assert_eq!(look(&mut other), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_appended_behind_a_lost_permit_is_not_shown_before_anybody_has_looked() {
        let opened = Opened::new();
        let permitted = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&permitted);
        let permit: Permit = Box::new(move || asked.load(Ordering::Relaxed));
        let cursor = at_rest(&opened).cursor.clone();
        let mut stream = opened.stream_of(cursor, Instant::now() + HOUR, Some(permit));
        look(&mut stream);
        opened.append(1, 1, "x").await;
        assert_eq!(events(look(&mut stream)), 1);
        permitted.store(false, Ordering::Relaxed);
        opened.append(1, 1, "x").await;
        let hint = look(&mut stream).unwrap();
        assert!(hint.starts_with("retry: ") && !hint.contains("event"), "{hint}");
        assert_eq!(look(&mut stream).as_deref(), Some("(end)"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_permit_was_lost_while_it_was_opened_shows_nothing() {
        let opened = Opened::new();
        opened.append(1, 3, "x").await;
        let cursor = at_rest(&opened).cursor.clone();
        let ends_at = Instant::now() + HOUR;
        let mut stream = opened.stream_of(cursor, ends_at, Some(Box::new(|| false)));
        assert_eq!(look(&mut stream).unwrap().as_bytes(), CONNECTED);
        assert!(look(&mut stream).unwrap().starts_with("retry: "));
        assert_eq!(look(&mut stream).as_deref(), Some("(end)"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_wakes_a_stream_at_rest() {
        let opened = Opened::new();
        let mut stream = at_rest(&opened);
        let waiting = tokio::spawn(async move {
            let mut out = Events::default();
            std::future::poll_fn(|cx| stream.poll_events(cx, &mut out)).await.unwrap();
            out.0
        });
        tokio::task::yield_now().await;
        let began = Instant::now();
        let end = began + Duration::from_millis(10);
        opened.streams.drain(end..end);
        assert!(waiting.await.unwrap().starts_with(b"retry: "));
        assert!(Instant::now() >= end && began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn an_idle_stream_is_small() {
        // With its timer, its watch and its place in the registry, about a kilobyte beside its socket.
        assert!(size_of::<Stream>() <= 256, "{}", size_of::<Stream>());
    }
}
