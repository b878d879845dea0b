//! Rows 5 to 8, 13 and 16: streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    Bench,
    live::{Flooding, Live, Nothing, Pair, Running, Shape, Side, open_streams},
};
use crate::{
    load::{Ids, Load, Pace},
    measure::{Figure, Target},
    requests,
    server::Server,
};

/// How long memory is given to settle before it is read.
const SETTLE: Duration = Duration::from_millis(500);
const KIB: f64 = 1024.0;

pub(super) fn memory(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    Ok(vec![memory_of(bench, bench.size.streams)?])
}

/// The memory of one of `streams` streams at rest.
pub(crate) fn memory_of(bench: &Bench, streams: usize) -> anyhow::Result<Figure> {
    let what = format!("memory of a stream at rest, {streams} open");
    let mut figure = Figure::new("5", what, "KiB", Target::AtMost(1.10));
    memory_at_rest(bench, streams, 1, &mut figure)?;
    Ok(figure)
}

/// The growth of each server's PSS by stream, with streams of `receivers` receivers.
fn memory_at_rest(
    bench: &Bench,
    streams: usize,
    receivers: u64,
    figure: &mut Figure,
) -> anyhow::Result<()> {
    for _ in 0..bench.size.rounds.min(3) {
        // New servers each time: what has been allocated once is not given back.
        let pair = Pair::start(bench, 1)?;
        let grown = |side| grown_kib(pair.side(side), side, streams, receivers);
        figure.round(grown(Side::Herald)?, grown(Side::Limit)?);
    }
    Ok(())
}

fn grown_kib(server: &Server, side: Side, streams: usize, receivers: u64) -> anyhow::Result<f64> {
    // What the first connections bring with them once.
    let mut load = Load::new(server.address, 0)?;
    open_streams(&mut load, server, side, 16, |number| [number])?;
    thread::sleep(SETTLE);
    let before = server.pss_bytes()?;
    open_streams(&mut load, server, side, streams, |number| {
        number * receivers..(number + 1) * receivers
    })?;
    thread::sleep(SETTLE);
    let after = server.pss_bytes()?;
    Ok((after as f64 - before as f64) / streams as f64 / KIB)
}

/// What is asked of live events: row 6 of one draft an append, row 7 where events wait for each other.
fn target(shape: Shape) -> Target {
    Target::AtLeast(if shape == Shape::One { 0.85 } else { 1.2 })
}

fn row(shape: Shape) -> &'static str {
    match shape {
        Shape::One => "6",
        Shape::Burst => "7a",
        Shape::Spread => "7b",
        Shape::Fan => "7c",
    }
}

pub(super) fn one(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    Ok(vec![events(bench, Shape::One, bench.size.live)?])
}

pub(super) fn joined(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let shapes = [Shape::Burst, Shape::Spread, Shape::Fan];
    shapes.into_iter().map(|shape| events(bench, shape, bench.size.live)).collect()
}

/// Live events a second, as many as arrive.
fn events(bench: &Bench, shape: Shape, streams: usize) -> anyhow::Result<Figure> {
    let what = format!("live events to {streams} streams, {}", shape.name());
    let mut figure = Figure::new(row(shape), what, "events/s", target(shape));
    let pair = Pair::start(bench, shape.drafts())?;
    let mut herald = Running::start(&pair, Side::Herald, shape, streams, 1, shape.lanes())?;
    let mut limit = Running::start(&pair, Side::Limit, shape, streams, 1, shape.lanes())?;
    for _ in 0..bench.size.rounds {
        let (ours, _, our_cpu) = herald.round(bench, None)?;
        let (theirs, _, their_cpu) = limit.round(bench, None)?;
        figure.round(ours.event_rate(), theirs.event_rate());
        figure.cost(our_cpu, their_cpu);
    }
    Ok(figure)
}

/// The figures of rows 6 and 7 with so many streams.
pub(crate) fn events_of_each_shape(bench: &Bench, streams: usize) -> anyhow::Result<Vec<Figure>> {
    let figures = Shape::ALL.into_iter().map(|shape| {
        let what = shape.name().to_owned();
        Ok(Figure { what, ..events(bench, shape, streams)? })
    });
    figures.collect()
}

/// The figures of row 8 for the shapes that stand at both ends, with so many streams.
pub(crate) fn delays_of_one_and_fan(bench: &Bench, streams: usize) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for shape in [Shape::One, Shape::Fan] {
        for (figure, which) in
            delay(bench, shape, streams, ["", ""])?.into_iter().zip(["p50", "p99"])
        {
            let what = format!("{which}, {}", shape.name());
            figures.push(Figure { what, ..figure });
        }
    }
    Ok(figures)
}

pub(super) fn delays(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (shape, letters) in
        Shape::ALL.into_iter().zip([["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]])
    {
        let [p50, p99] = delay(bench, shape, bench.size.live, letters)?;
        figures.extend([p50, p99]);
    }
    Ok(figures)
}

/// From an append's answer to its events, p50 and p99, both servers at half of what Herald can.
fn delay(
    bench: &Bench,
    shape: Shape,
    streams: usize,
    letters: [&str; 2],
) -> anyhow::Result<[Figure; 2]> {
    let figure = |letter: &str, which, target| {
        let what = format!("answer to event, {which}, {streams} streams, {}", shape.name());
        Figure::new(&format!("8{letter}"), what, "µs", Target::AtMost(target))
    };
    let mut p50 = figure(letters[0], "p50", 1.5);
    let mut p99 = figure(letters[1], "p99", 2.0);
    let pair = Pair::start(bench, shape.drafts())?;
    let mut herald = Running::start(&pair, Side::Herald, shape, streams, 1, shape.ordered_lanes())?;
    let mut limit = Running::start(&pair, Side::Limit, shape, streams, 1, shape.ordered_lanes())?;
    let (saturated, ..) = herald.round(bench, None)?;
    let rate = saturated.answer_rate() / 2.0;
    for _ in 0..bench.size.rounds {
        let (_, ours, _) = herald.round(bench, Some(rate))?;
        let (_, theirs, _) = limit.round(bench, Some(rate))?;
        // Below a microsecond there is nothing to tell apart.
        let micros = |delays: &hdrhistogram::Histogram<u64>, quantile| {
            (delays.value_at_quantile(quantile) as f64 / 1000.0).max(1.0)
        };
        p50.round(micros(&ours, 0.5), micros(&theirs, 0.5));
        p99.round(micros(&ours, 0.99), micros(&theirs, 0.99));
    }
    p50.note = format!("{rate:.0} appends a second, half of what Herald can");
    Ok([p50, p99])
}

/// Streams that are open beside slow ones.
const BESIDE_SLOW: usize = 8000;
/// One in so many is slow.
const SLOW_OF: usize = 100;
/// What is appended a second for the quick ones, and how often a hundred drafts for the slow ones come with it.
const BESIDE_SLOW_RATE: f64 = 4000.0;

pub(super) fn slow(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let streams = BESIDE_SLOW.min(bench.size.streams);
    let slow = streams / SLOW_OF;
    let mut figure = Figure::new(
        "13",
        format!(
            "answer to event, p99, {streams} streams of which {slow} are slow, against none slow"
        ),
        "µs",
        Target::AtMost(1.2),
    );
    let pair = Pair::start(bench, 1)?;
    let server = &pair.herald;
    let quick = streams - slow;
    let mut load = Load::new(
        server.address,
        Live::new(Side::Herald, Shape::One, quick as u64, 1, Shape::One.lanes()).lanes(),
    )?;
    open_streams(&mut load, server, Side::Herald, quick, |number| [number])?;
    let flood = Flood::start(server)?;
    for _ in 0..bench.size.rounds {
        // The same appends in both windows; the slow readers come for the second, and are gone before the next.
        let mut p99 = || -> anyhow::Result<f64> {
            let mut live = Live::new(Side::Herald, Shape::One, quick as u64, 1, Shape::One.lanes());
            load.run(&mut live, Some(BESIDE_SLOW_RATE), bench.size.warm_up, bench.size.window * 2)?;
            Ok((live.delays.value_at_quantile(0.99) as f64 / 1000.0).max(1.0))
        };
        let without = p99()?;
        let readers = SlowReaders::start(server, slow)?;
        let with = p99()?;
        readers.stop()?;
        figure.round(with, without);
    }
    flood.stop()?;
    Ok(vec![figure])
}

/// The receiver whose many notifications slow readers cannot take in time.
const FLOODED: u64 = 900_000;

/// Appends for the flooded receiver, in a thread of its own.
struct Flood(Background);

impl Flood {
    fn start(server: &Server) -> anyhow::Result<Self> {
        let address = server.address;
        Background::start(move |is_over| {
            let mut load = Load::new(address, 1)?;
            while !is_over() {
                let mut flooding = Flooding::new(FLOODED);
                load.run(&mut flooding, Some(20.0), Duration::ZERO, Duration::from_millis(200))?;
            }
            Ok(())
        })
        .map(Self)
    }

    fn stop(self) -> anyhow::Result<()> {
        self.0.stop()
    }
}

/// Streams that take a little at a time, in a thread of their own.
struct SlowReaders(Background);

impl SlowReaders {
    fn start(server: &Server, count: usize) -> anyhow::Result<Self> {
        let (address, tail) = (server.address, server.tail()?);
        let opened = Background::start(move |is_over| {
            let mut load = Load::new(address, 0)?;
            let query = format!("{}&Offset={tail}", requests::her_ids([FLOODED]));
            for _ in 0..count {
                load.open_stream(address, &requests::stream(&query), Ids::Ascend, Pace::Slow)?;
            }
            while !is_over() {
                load.run(&mut Nothing, None, Duration::ZERO, Duration::from_millis(200))?;
            }
            Ok(())
        })?;
        // Until they are behind.
        thread::sleep(Duration::from_millis(500));
        Ok(Self(opened))
    }

    fn stop(self) -> anyhow::Result<()> {
        self.0.stop()
    }
}

/// A thread that goes on until it is told to stop.
pub(super) struct Background {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

impl Background {
    pub(super) fn start(
        act: impl FnOnce(&dyn Fn() -> bool) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        let thread =
            thread::Builder::new().spawn(move || act(&|| theirs.load(Ordering::Relaxed)))?;
        Ok(Self { over, thread })
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("a thread of the load panicked")?
    }
}

/// The receivers of a stream in row 16.
const MANY_RECEIVERS: u64 = 1500;

pub(super) fn many_receivers(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (row, receivers) in [("16a", 1), ("16b", 100), ("16c", MANY_RECEIVERS)] {
        let streams = bench.size.live;
        let what = format!("CPU of an event, {streams} streams of {receivers} receivers each");
        let mut cost = Figure::new(row, what, "µs", Target::Reported);
        let pair = Pair::start(bench, 1)?;
        let before = pair.herald.pss_bytes()?;
        let mut herald = Running::start(
            &pair,
            Side::Herald,
            Shape::One,
            streams,
            receivers,
            Shape::One.lanes(),
        )?;
        let grown = pair.herald.pss_bytes()? as f64 - before as f64;
        for _ in 0..bench.size.rounds {
            let (_, _, cpu) = herald.round(bench, None)?;
            cost.herald.push(cpu * 1e6);
        }
        cost.note = format!("{:.1} KiB of memory a stream", grown / streams as f64 / KIB);
        figures.push(cost);
    }
    Ok(figures)
}
