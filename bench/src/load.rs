//! The load generator: one thread, one epoll, connections that ask again as soon as they are answered, and streams that are read.
//!
//! It shares two cores with the server it measures, so it does as little as it can; but it checks all that it counts. An
//! answer with another status than expected, an event that is missing, comes twice or out of order, or a connection that
//! ends fails the row.

mod lane;
mod reader;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use lane::Lane;
pub use lane::{Answer, EMPTY_PAGE};
use reader::Reader;
pub use reader::{Ids, Pace};

/// How long nothing may happen before a row has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;
/// How often a slow reader takes something.
const SLOW_EVERY: Duration = Duration::from_millis(100);

/// What the lanes ask.
pub trait Work {
    /// Writes the next request of a lane, or `false` where it has none now: it is asked again after the next event.
    fn request(&mut self, lane: usize, out: &mut Vec<u8>) -> bool;

    /// Judges the answer to a lane's request.
    ///
    /// # Errors
    /// What is wrong with it: the row fails.
    fn answered(&mut self, lane: usize, answer: &Answer<'_>, at: Instant) -> anyhow::Result<()>;

    /// An event arrived on a stream; `data` is its object.
    ///
    /// # Errors
    /// What is wrong with it: the row fails.
    fn arrived(&mut self, reader: usize, data: &[u8], at: Instant) -> anyhow::Result<()> {
        let _ = (reader, data, at);
        Ok(())
    }

    /// The warm-up is over.
    fn warmed_up(&mut self) {}

    /// Whether something is still to arrive after the last answer.
    fn is_owed(&self) -> bool {
        false
    }
}

/// What a measured window saw.
pub struct Window {
    /// Answers in the window.
    pub answers: u64,
    /// Events in the window.
    pub events: u64,
    /// Answers with those before the window and after it.
    pub all_answers: u64,
    /// Events likewise.
    pub all_events: u64,
    /// How long it was.
    pub took: Duration,
    /// From when a request was due to its answer's last byte, of those due behind the warm-up, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Window {
    /// Answers a second.
    #[must_use]
    pub fn answer_rate(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    /// Events a second.
    #[must_use]
    pub fn event_rate(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

/// A histogram of nanoseconds, three digits exact.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are few enough")
}

/// Connections to one server.
pub struct Load {
    poll: Poll,
    lanes: Vec<Lane>,
    readers: Vec<Reader>,
    buffer: Vec<u8>,
}

impl Load {
    /// `lanes` keep-alive connections, which ask nothing yet.
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub fn new(address: SocketAddr, lanes: usize) -> anyhow::Result<Self> {
        Self::over(&[address], lanes)
    }

    /// So many connections to each of several servers: the first server's come first.
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub fn over(addresses: &[SocketAddr], lanes: usize) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut load =
            Self { poll, lanes: Vec::new(), readers: Vec::new(), buffer: vec![0; READ_BYTES] };
        for address in addresses {
            for _ in 0..lanes {
                let token = Token(load.lanes.len());
                load.lanes.push(Lane::connect(*address, load.poll.registry(), token)?);
            }
        }
        Ok(load)
    }

    /// Opens a stream with this request and waits until it has said `connected`.
    ///
    /// # Errors
    /// When the server does not answer with a stream.
    pub fn open_stream(
        &mut self,
        address: SocketAddr,
        request: &[u8],
        ids: Ids,
        pace: Pace,
    ) -> anyhow::Result<()> {
        let token = Token(self.lanes.len() + self.readers.len());
        let reader = Reader::open(address, request, self.poll.registry(), token, ids, pace)?;
        self.readers.push(reader);
        Ok(())
    }

    /// Lets the lanes ask for `warm_up`, then measures for `length`; then waits for what is owed.
    ///
    /// With `rate`, requests begin at so many a second over all lanes, late ones as soon as a lane is free; without, each
    /// lane asks as soon as it is answered.
    ///
    /// # Errors
    /// Whatever was wrong with what came.
    pub fn run(
        &mut self,
        work: &mut dyn Work,
        rate: Option<f64>,
        warm_up: Duration,
        length: Duration,
    ) -> anyhow::Result<Window> {
        let began = Instant::now();
        let (from, until) = (began + warm_up, began + warm_up + length);
        let mut window = Window {
            answers: 0,
            events: 0,
            all_answers: 0,
            all_events: 0,
            took: Duration::ZERO,
            latency: histogram(),
        };
        let mut events = Events::with_capacity(1024);
        let (mut started, mut counted_from, mut heard) = (0_u64, None, began);
        let mut slow_at = began;
        let mut next_lane = 0;
        loop {
            let now = Instant::now();
            let is_over = now >= until;
            if now >= from && counted_from.is_none() {
                counted_from = Some(now);
                work.warmed_up();
            }
            if is_over {
                let from = counted_from.unwrap_or(from);
                if window.took.is_zero() {
                    window.took = now - from;
                }
                if !work.is_owed() && self.lanes.iter().all(Lane::is_idle) {
                    return Ok(window);
                }
            }
            ensure!(now < heard + SILENCE_MAX, "nothing came for {SILENCE_MAX:?}");
            if !is_over {
                let due = rate.map(|rate| ((now - began).as_secs_f64() * rate) as u64);
                for _ in 0..self.lanes.len() {
                    if due.is_some_and(|due| started >= due) {
                        break;
                    }
                    // What waits for a lane has been due all the while.
                    let due =
                        rate.map(|rate| began + Duration::from_secs_f64(started as f64 / rate));
                    let lane = &mut self.lanes[next_lane];
                    if lane.is_idle() && lane.ask(work, next_lane, due.unwrap_or(now))? {
                        started += 1;
                    }
                    next_lane = (next_lane + 1) % self.lanes.len();
                }
            }
            // What is due later, or is owed by slow readers, is looked for every millisecond.
            let wait = Duration::from_millis(if rate.is_some() { 1 } else { 5 });
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let is_counted = counted_from.is_some() && window.took.is_zero();
            for event in &events {
                let number = event.token().0;
                heard = now;
                if number < self.lanes.len() {
                    let lane = &mut self.lanes[number];
                    if event.is_writable() {
                        lane.write()?;
                    }
                    let Some(due) = lane.read(work, number, &mut self.buffer)? else { continue };
                    window.all_answers += 1;
                    window.answers += u64::from(is_counted);
                    let answered = Instant::now();
                    // However late it comes: what takes longest must not be left out.
                    if due >= from {
                        window.latency.record((answered - due).as_nanos() as u64)?;
                    }
                    if rate.is_none() && answered < until && lane.ask(work, number, answered)? {
                        started += 1;
                    }
                } else {
                    let reader = &mut self.readers[number - self.lanes.len()];
                    let came = reader.read(work, number - self.lanes.len(), &mut self.buffer)?;
                    window.all_events += came;
                    window.events += if is_counted { came } else { 0 };
                }
            }
            if now >= slow_at {
                slow_at = now + SLOW_EVERY;
                for (number, reader) in self.readers.iter_mut().enumerate() {
                    reader.read_slowly(work, number, &mut self.buffer)?;
                }
            }
        }
    }
}

/// One request on a connection of its own, and its whole answer, which says `connection: close`.
///
/// # Errors
/// When it cannot be had.
pub fn ask_once(address: SocketAddr, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).context("could not connect")?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
