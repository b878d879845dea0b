//! Pages until the end: register for wake-ups, read a page, hand it out or wait; again.

use std::{
    fmt,
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use herald_log::{Log, Page, PageBounds, ReadError, Watch};
use herald_types::{PageLimit, wire};
use tokio::time::{Instant, Sleep};

use crate::{
    Cursor, OpenStreams,
    open_streams::{Metrics, OpenStream},
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
/// What an event has besides its body: field names, an offset of at most 19 digits, line ends.
const EVENT_FRAMING_BYTES: usize = 64;

type Reading = Pin<Box<dyn Future<Output = Result<Page, ReadError>> + Send>>;

/// One open stream: a state machine that is polled for bytes, with no task, no queue and one timer.
///
/// Every piece of bytes ends at an event boundary. The first is the `connected` event; after `ends_at` the last one is
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
    /// Opens a stream of everything behind `cursor`, which ends at `ends_at` or when `streams` is drained.
    #[must_use]
    pub fn new(
        log: Log,
        cursor: Cursor,
        streams: &OpenStreams,
        source_system: &str,
        heartbeat: Duration,
        ends_at: Instant,
    ) -> Self {
        let watch = log.watch(cursor.receivers());
        let open = streams.open(source_system, cursor.after(), ends_at);
        let beats_at = Instant::now() + heartbeat.mul_f64(rand::random_range(0.0..1.0));
        let timer = Box::pin(tokio::time::sleep_until(beats_at.min(open.ends_at())));
        Self { log, cursor, watch, open, heartbeat, beats_at, timer, state: State::Opening }
    }

    /// The next bytes to send, or `None` when the stream has ended.
    ///
    /// # Errors
    /// [`ReadError`] when the local view cannot be read; the stream has ended then.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError>>> {
        self.open.asked(Instant::now());
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Opening => {
                    self.state = State::Looking { beat: false };
                    return Poll::Ready(Some(Ok(Bytes::from_static(wire::CONNECTED))));
                }
                State::Looking { beat } => {
                    let beat = *beat;
                    if Instant::now() >= self.open.ends_at() {
                        return Poll::Ready(Some(Ok(self.end())));
                    }
                    match self.log.read_recent(self.cursor.receivers(), self.cursor.after(), BOUNDS)
                    {
                        Some(page) => {
                            if let Some(bytes) = self.take(&page, beat) {
                                return Poll::Ready(Some(Ok(bytes)));
                            }
                        }
                        None => self.state = State::Reading { beat, reading: self.read() },
                    }
                }
                State::Reading { beat, reading } => {
                    let beat = *beat;
                    match ready!(reading.as_mut().poll(cx)) {
                        Ok(page) => {
                            if let Some(bytes) = self.take(&page, beat) {
                                return Poll::Ready(Some(Ok(bytes)));
                            }
                        }
                        Err(error) => {
                            self.state = State::Ended;
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
                State::Waiting => {
                    // Asked again with nothing left to hand out: the reader has taken all there is.
                    self.open.rests(self.cursor.after());
                    let beat = ready!(self.poll_waited(cx));
                    self.state = State::Looking { beat };
                }
            }
        }
    }

    /// Ready when it is worth looking again: woken, or a beat is due (`true`), or the end has come.
    fn poll_waited(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
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
        Poll::Ready(Instant::now() >= self.beats_at)
    }

    fn read(&self) -> Reading {
        let (log, cursor) = (self.log.clone(), self.cursor.clone());
        Box::pin(async move { log.read(cursor.receivers(), cursor.after(), BOUNDS).await })
    }

    /// Moves behind `page`; gives what is to be sent of it, if anything.
    fn take(&mut self, page: &Page, beat: bool) -> Option<Bytes> {
        self.cursor.advance(page.until());
        self.state = if page.is_full() { State::Looking { beat } } else { State::Waiting };
        let mut out = Vec::new();
        if beat && !page.is_full() {
            self.beat();
            if page.records().is_empty() {
                wire::push_heartbeat(&mut out, page.until());
                self.metrics().heartbeats.increment(1);
            }
        }
        if page.records().is_empty() && out.is_empty() {
            self.open.rests(page.until());
            return None;
        }
        out.reserve(page.bytes() + page.records().len() * EVENT_FRAMING_BYTES);
        for record in page.records() {
            wire::push_event(&mut out, record.offset, &record.body);
        }
        self.metrics().events.increment(page.records().len() as u64);
        self.open.handed_out(page.until());
        Some(out.into())
    }

    /// The next beat, in the same phase; beats missed while there was something to send are not made up for.
    fn beat(&mut self) {
        let late = Instant::now().saturating_duration_since(self.beats_at);
        let into_beat = late.as_nanos() % self.heartbeat.as_nanos().max(1);
        let into_beat = Duration::from_nanos(u64::try_from(into_beat).unwrap_or(0));
        self.beats_at = Instant::now() + self.heartbeat - into_beat;
    }

    fn end(&mut self) -> Bytes {
        self.state = State::Ended;
        let mut out = Vec::new();
        wire::push_retry(&mut out, rand::random_range(RETRY_HINT_MS));
        out.into()
    }

    fn metrics(&self) -> &Metrics {
        self.open.metrics()
    }
}
