//! Rows 10 to 12: durable appends.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rustix::fs::{FallocateFlags, fallocate};

use super::Bench;
use crate::{
    fill,
    load::{Answer, Load, Window, Work},
    measure::{Figure, Target},
    requests::{self, Drafts},
    server::Server,
};

/// The receivers that drafts are for, in turn.
const RECEIVERS: u64 = 100_000;
/// What one record takes in a segment, about.
const RECORD_BYTES: usize = 400;
const MIB: u64 = 1 << 20;

/// Appends drafts with new ids.
pub(super) struct Appends {
    drafts: Drafts,
    count: u64,
    next: u64,
    body: Vec<u8>,
    // Every answer has this length but for the digits of offsets: a limit's is always the same.
    checks_offsets: bool,
}

impl Appends {
    pub(super) fn new(count: u64, checks_offsets: bool) -> Self {
        Self { drafts: Drafts::default(), count, next: 0, body: Vec::new(), checks_offsets }
    }
}

impl Work for Appends {
    fn request(&mut self, _: usize, out: &mut Vec<u8>) -> bool {
        self.body.clear();
        let receivers = (self.next..self.next + self.count).map(|number| number % RECEIVERS);
        self.drafts.json(receivers, &mut self.body);
        self.next += self.count;
        out.extend_from_slice(&requests::append("", "application/json", &self.body));
        true
    }

    fn answered(&mut self, _: usize, answer: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(answer.body));
        if self.checks_offsets {
            let stored = memchr::memmem::find_iter(answer.body, b"\"duplicate\":false").count();
            ensure!(stored as u64 == self.count, "{stored} of {} drafts stored", self.count);
        }
        Ok(())
    }
}

/// Herald and the file, each on a fresh directory of the same disk.
struct Pair {
    herald: Server,
    file: Server,
}

impl Pair {
    fn start(bench: &Bench, count: u64) -> anyhow::Result<Self> {
        let herald = bench.places.fresh_herald(&[])?;
        let mut request = Vec::new();
        Appends::new(count, true).request(0, &mut request);
        let answer = bench.places.file("append-answer", &herald.sample_body(&request)?)?;
        let path = bench.places.file("appended", b"")?;
        let file = bench.places.limit("bare-file", &["--file", &path, "--answer", &answer])?;
        Ok(Self { herald, file })
    }

    /// One window of each; what a draft costs is noted in `figure`.
    fn round(
        &self,
        bench: &Bench,
        lanes: usize,
        count: u64,
        figure: &mut Figure,
    ) -> anyhow::Result<(Window, Window)> {
        let size = bench.size;
        let run = |server: &Server, checks_offsets| {
            let mut work = Appends::new(count, checks_offsets);
            let mut load = Load::new(server.address, lanes)?;
            server.costing(|| {
                let window = load.run(&mut work, None, size.warm_up, size.window)?;
                // What storing brings with it must not fall into the limit's window.
                if checks_offsets && count > 1 {
                    fill::wait_until_sealed(&bench.places.data.join("fresh"))?;
                }
                Ok(window)
            })
        };
        let (herald, herald_cpu) = run(&self.herald, true)?;
        let (file, file_cpu) = run(&self.file, false)?;
        let drafts = |window: &Window| (window.all_answers * count) as f64;
        figure.cost(herald_cpu / drafts(&herald), file_cpu / drafts(&file));
        Ok((herald, file))
    }
}

pub(super) fn single(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let pair = Pair::start(bench, 1)?;
    let mut figures = Vec::new();
    for (row, lanes) in [("10a", 64), ("10b", 256)] {
        let what = format!("durable appends, one draft a request, {lanes} connections");
        let mut against_file = Figure::new(row, what, "requests/s", Target::AtLeast(0.60));
        let what = "the same, against the syncs of one writer that syncs each";
        let row = if lanes == 64 { "10c" } else { "10d" };
        let mut against_syncs = Figure::new(row, what, "1/s", Target::AtLeast(6.0));
        for _ in 0..bench.size.rounds {
            let (herald, file) = pair.round(bench, lanes, 1, &mut against_file)?;
            let syncs = syncs_alone(&bench.places.data, bench.size.window)?;
            against_file.round(herald.answer_rate(), file.answer_rate());
            against_syncs.round(herald.answer_rate(), syncs);
        }
        figures.extend([against_file, against_syncs]);
    }
    Ok(figures)
}

/// The appends a second over so many connections, for the table of how cost grows.
pub(crate) fn by_connections(bench: &Bench, lanes: usize) -> anyhow::Result<Figure> {
    let mut figure = Figure::new("10", "appends", "requests/s", Target::AtLeast(0.60));
    let pair = Pair::start(bench, 1)?;
    for _ in 0..bench.size.rounds {
        let (herald, file) = pair.round(bench, lanes, 1, &mut figure)?;
        figure.round(herald.answer_rate(), file.answer_rate());
    }
    Ok(figure)
}

pub(super) fn large(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figure = Figure::new(
        "11",
        "durable appends, 1000 drafts a request, 8 connections",
        "drafts/s",
        Target::AtLeast(0.50),
    );
    let pair = Pair::start(bench, 1000)?;
    for _ in 0..bench.size.rounds {
        let (herald, file) = pair.round(bench, 8, 1000, &mut figure)?;
        figure.round(herald.answer_rate() * 1000.0, file.answer_rate() * 1000.0);
    }
    Ok(vec![figure])
}

pub(super) fn alone(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figure = Figure::new("12", "one append at a time, p50", "µs", Target::AtMost(1.3));
    let pair = Pair::start(bench, 1)?;
    for _ in 0..bench.size.rounds {
        let (herald, file) = pair.round(bench, 1, 1, &mut figure)?;
        let micros = |window: &Window| window.latency.value_at_quantile(0.5) as f64 / 1000.0;
        figure.round(micros(&herald), micros(&file));
    }
    Ok(vec![figure])
}

/// How many records a second one writer stores that syncs each.
fn syncs_alone(dir: &Path, length: Duration) -> anyhow::Result<f64> {
    let file = File::create(dir.join("synced"))?;
    let record = vec![b'x'; RECORD_BYTES];
    let (mut end, mut reserved, mut count) = (0, 0, 0_u32);
    let began = Instant::now();
    while began.elapsed() < length {
        if end + RECORD_BYTES as u64 > reserved {
            fallocate(&file, FallocateFlags::empty(), reserved, MIB)?;
            reserved += MIB;
        }
        file.write_all_at(&record, end)?;
        file.sync_data()?;
        end += RECORD_BYTES as u64;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}
