//! What the rows of live events share: appends on some connections, streams that are read, and each event found again.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use super::Bench;
use crate::{
    load::{Answer, Ids, Load, Pace, Window, Work, histogram},
    requests::{self, Drafts, her_id, her_ids},
    server::Server,
};

/// Who gets what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A receiver for each stream; an append has one draft.
    One,
    /// The same; an append has a hundred drafts for one receiver.
    Burst,
    /// The same; an append has a draft each for a hundred receivers.
    Spread,
    /// All streams are one receiver's; an append has one draft.
    Fan,
}

/// Drafts of a large append.
const LARGE: u64 = 100;

impl Shape {
    pub(super) const ALL: [Self; 4] = [Self::One, Self::Burst, Self::Spread, Self::Fan];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::One => "one draft an append",
            Self::Burst => "100 drafts for one receiver an append",
            Self::Spread => "100 drafts for 100 receivers an append",
            Self::Fan => "all streams on one receiver, one draft an append",
        }
    }

    /// Connections that append: enough that the servers, and not the waiting for syncs, are the limit.
    pub(super) const fn lanes(self) -> usize {
        match self {
            Self::One => 256,
            Self::Burst => 16,
            // Each has a hundred receivers of its own.
            Self::Spread => 10,
            Self::Fan => 8,
        }
    }

    /// As many of them as have streams of their own, so that the order of the events on each is known.
    pub(super) const fn ordered_lanes(self) -> usize {
        match self {
            Self::Fan => 1,
            _ => self.lanes(),
        }
    }

    /// How many events may be on their way: beyond, lanes wait, so that what is measured is what arrives.
    const fn events_owed_max(self, streams: u64) -> u64 {
        match self {
            Self::One => 1024,
            Self::Burst | Self::Spread => 4096,
            Self::Fan => streams * 16,
        }
    }

    /// Drafts of one append.
    pub(super) const fn drafts(self) -> u64 {
        match self {
            Self::One | Self::Fan => 1,
            Self::Burst | Self::Spread => LARGE,
        }
    }

    /// Events of one append.
    const fn events(self, streams: u64) -> u64 {
        match self {
            Self::Fan => streams,
            _ => self.drafts(),
        }
    }
}

/// What a server is asked, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Herald,
    Limit,
}

/// Herald and the limit of streams, with what the limit needs of Herald's answers.
pub(super) struct Pair {
    pub(super) herald: Server,
    pub(super) limit: Server,
}

impl Pair {
    pub(super) fn start(bench: &Bench, drafts: u64) -> anyhow::Result<Self> {
        let herald = bench.places.fresh_herald(&[])?;
        let (event, answer) = samples(&herald, drafts)?;
        let event = bench.places.file("event", &event)?;
        let answer = bench.places.file("append-answer", &answer)?;
        let limit =
            bench.places.limit("bare-streams", &["--event", &event, "--answer", &answer])?;
        Ok(Self { herald, limit })
    }

    pub(super) const fn side(&self, side: Side) -> &Server {
        match side {
            Side::Herald => &self.herald,
            Side::Limit => &self.limit,
        }
    }
}

/// An event and the body of an append's answer, as Herald writes them.
pub(super) fn samples(herald: &Server, drafts: u64) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    // A receiver that nobody follows.
    const NOBODY: u64 = 999_999;
    let mut body = Vec::new();
    Drafts::default().json((0..drafts).map(|_| NOBODY), &mut body);
    let answer = herald.sample_body(&requests::append("", "application/json", &body))?;
    let page = herald.sample_body(&requests::poll(&format!(
        "HerIds={}&Offset=0&NotificationsToFetch=1",
        her_id(NOBODY)
    )))?;
    let page = String::from_utf8(page)?;
    let object = page.strip_prefix("{\"notifications\":[").and_then(|rest| rest.strip_suffix("]}"));
    let object = object.context("a page with one notification")?;
    let event = format!("id: 1000000\nevent: notification\ndata: {object}\n\n");
    Ok((event.into_bytes(), answer))
}

/// Opens `count` streams, stream `n` of the receivers that `of` names.
pub(super) fn open_streams<I: IntoIterator<Item = u64>>(
    load: &mut Load,
    server: &Server,
    side: Side,
    count: usize,
    of: impl Fn(u64) -> I,
) -> anyhow::Result<()> {
    let (ids, tail) = match side {
        Side::Herald => (Ids::Ascend, server.tail()?),
        Side::Limit => (Ids::Repeat, 0),
    };
    for number in 0..count as u64 {
        let query = format!("{}&Offset={tail}", her_ids(of(number)));
        load.open_stream(server.address, &requests::stream(&query), ids, Pace::Quick)?;
    }
    Ok(())
}

/// An append that is not wholly delivered.
struct Pending {
    answered: Option<Instant>,
    owed: u64,
}

/// Appends, and finds each of their events on its stream.
pub(super) struct Live {
    side: Side,
    shape: Shape,
    streams: u64,
    lanes: u64,
    // How many receivers lie between those of two streams.
    stride: u64,
    drafts: Drafts,
    next: Vec<u64>,
    appends: u64,
    pending: HashMap<u64, Pending>,
    under_way: Vec<u64>,
    // The appends whose events each stream still has to get, in their order.
    queues: Vec<VecDeque<u64>>,
    owed: u64,
    pub(super) delays: Histogram<u64>,
    body: Vec<u8>,
}

impl Live {
    pub(super) fn new(side: Side, shape: Shape, streams: u64, stride: u64, lanes: usize) -> Self {
        let groups = if shape == Shape::Spread { streams / LARGE } else { streams };
        let lanes = (lanes as u64).min(groups.max(1));
        Self {
            side,
            shape,
            streams,
            lanes,
            stride,
            drafts: Drafts::default(),
            next: vec![0; lanes as usize],
            appends: 0,
            pending: HashMap::new(),
            under_way: vec![0; lanes as usize],
            queues: vec![VecDeque::new(); streams as usize],
            owed: 0,
            delays: histogram(),
            body: Vec::new(),
        }
    }

    pub(super) const fn lanes(&self) -> usize {
        self.lanes as usize
    }

    /// The first stream that a lane's next append is for, each lane having streams of its own so that the order of
    /// events on a stream is known, and how many streams it is for, one behind the other.
    fn target(&mut self, lane: u64) -> (u64, u64) {
        let turn = self.next[lane as usize];
        self.next[lane as usize] += 1;
        match self.shape {
            Shape::One | Shape::Burst => {
                let mine = (self.streams - lane).div_ceil(self.lanes);
                (lane + turn % mine * self.lanes, 1)
            }
            Shape::Spread => {
                let mine = self.streams / self.lanes;
                let count = LARGE.min(mine);
                let blocks = mine / count;
                (lane * mine + turn % blocks * count, count)
            }
            Shape::Fan => (0, self.streams),
        }
    }
}

impl Work for Live {
    fn request(&mut self, lane: usize, out: &mut Vec<u8>) -> bool {
        let events = self.shape.events(self.streams);
        if self.owed > 0 && self.owed + events > self.shape.events_owed_max(self.streams) {
            return false;
        }
        let (first, count) = self.target(lane as u64);
        let drafts = self.shape.drafts();
        let stride = self.stride;
        let query;
        self.body.clear();
        if self.shape == Shape::Fan {
            query = format!("To={}", her_id(0));
            self.drafts.json([0], &mut self.body);
        } else {
            let receivers = (0..drafts).map(|at| (first + at % count) * stride);
            self.drafts.json(receivers, &mut self.body);
            let to = her_id(first * stride);
            query = format!("To={to}&Count={drafts}&Over={count}&Step={stride}");
        }
        out.extend_from_slice(&requests::append(&query, "application/json", &self.body));
        self.appends += 1;
        let append = self.appends;
        for stream in first..first + count {
            for _ in 0..events / count {
                self.queues[stream as usize].push_back(append);
            }
        }
        let owed = events / count * count;
        self.pending.insert(append, Pending { answered: None, owed });
        self.owed += owed;
        self.under_way[lane] = append;
        true
    }

    fn answered(&mut self, lane: usize, answer: &Answer<'_>, at: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(answer.body));
        // Gone already where all events came before the answer.
        if let Some(pending) = self.pending.get_mut(&self.under_way[lane]) {
            pending.answered = Some(at);
        }
        Ok(())
    }

    fn warmed_up(&mut self) {
        self.delays.reset();
    }

    fn arrived(&mut self, reader: usize, data: &[u8], at: Instant) -> anyhow::Result<()> {
        // A limit's events are all the same one.
        if self.side == Side::Herald {
            let number = if self.shape == Shape::Fan { 0 } else { reader as u64 * self.stride };
            ensure!(receiver(data) == Some(her_id(number)), "another's event on stream {reader}");
        }
        let append = self.queues.get_mut(reader).and_then(VecDeque::pop_front);
        let append = append.with_context(|| format!("an event too many on stream {reader}"))?;
        let pending = self.pending.get_mut(&append).context("an append that is owed events")?;
        // An event that comes before the answer has taken no time.
        let delay = pending.answered.map_or(0, |answered| (at - answered).as_nanos() as u64);
        self.delays.record(delay)?;
        pending.owed -= 1;
        if pending.owed == 0 && pending.answered.is_some() {
            self.pending.remove(&append);
        }
        self.owed -= 1;
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.owed > 0
    }
}

/// The receiver that an object names.
fn receiver(object: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"notificationReceiverHerId\":";
    let at = memchr::memmem::find(object, NAME)? + NAME.len();
    let digits = object[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// One server with its streams open and its lanes connected.
pub(super) struct Running<'a> {
    pub(super) load: Load,
    server: &'a Server,
    side: Side,
    shape: Shape,
    streams: u64,
    stride: u64,
    lanes: usize,
}

impl<'a> Running<'a> {
    /// `streams` streams of `receivers` receivers each; appends are for the first of each.
    pub(super) fn start(
        pair: &'a Pair,
        side: Side,
        shape: Shape,
        streams: usize,
        receivers: u64,
        lanes: usize,
    ) -> anyhow::Result<Self> {
        let server = pair.side(side);
        let lanes = Live::new(side, shape, streams as u64, receivers, lanes).lanes();
        let mut load = Load::new(server.address, lanes)?;
        open_streams(&mut load, server, side, streams, |number| {
            let first = if shape == Shape::Fan { 0 } else { number * receivers };
            first..first + receivers
        })?;
        Ok(Self { load, server, side, shape, streams: streams as u64, stride: receivers, lanes })
    }

    /// One window: what it saw, from an append's answer to its events in nanoseconds, and the CPU time of one event.
    pub(super) fn round(
        &mut self,
        bench: &Bench,
        appends_per_second: Option<f64>,
    ) -> anyhow::Result<(Window, Histogram<u64>, f64)> {
        let mut live = Live::new(self.side, self.shape, self.streams, self.stride, self.lanes);
        let size = bench.size;
        let load = &mut self.load;
        let (window, cpu) = self
            .server
            .costing(|| load.run(&mut live, appends_per_second, size.warm_up, size.window))?;
        let per_event = cpu / window.all_events as f64;
        Ok((window, live.delays, per_event))
    }
}

/// A hundred drafts at a time for one receiver, whose events are others' business.
pub(super) struct Flooding {
    receiver: u64,
    drafts: Drafts,
}

impl Flooding {
    pub(super) fn new(receiver: u64) -> Self {
        Self { receiver, drafts: Drafts::default() }
    }
}

impl Work for Flooding {
    fn request(&mut self, _: usize, out: &mut Vec<u8>) -> bool {
        let mut body = Vec::new();
        self.drafts.json((0..LARGE).map(|_| self.receiver), &mut body);
        out.extend_from_slice(&requests::append("", "application/json", &body));
        true
    }

    fn answered(&mut self, _: usize, answer: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(answer.body));
        Ok(())
    }
}

/// No requests: only streams are read.
pub(super) struct Nothing;

impl Work for Nothing {
    fn request(&mut self, _: usize, _: &mut Vec<u8>) -> bool {
        false
    }

    fn answered(&mut self, _: usize, _: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        anyhow::bail!("an answer that nobody asked for")
    }
}
