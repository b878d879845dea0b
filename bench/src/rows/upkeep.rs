//! Rows 14, 15 and 17: retention, restarts, and what an idle server costs.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use super::{
    Bench,
    live::{Live, Nothing, Shape, Side, open_streams},
};
use crate::{
    fill,
    load::{Answer, Load, Work, histogram},
    measure::{Figure, Target, median},
    requests::{self, her_ids},
    server::Server,
};

const MIB: f64 = 1024.0 * 1024.0;

/// From the start of the server to the first notification's end: time for a window in which nothing is deleted.
const BEFORE_TRIM: Duration = Duration::from_secs(15);
/// How long retention may take to come and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the two halves, so that only the first one goes.
const BETWEEN_HALVES: Duration = Duration::from_secs(40);

/// Polls of random old places, in turn with those for what is new.
struct Reads {
    of: u64,
    next: u64,
}

impl Work for Reads {
    fn request(&mut self, _: usize, out: &mut Vec<u8>) -> bool {
        self.next += 1;
        let receivers = (0..10).map(|at| (self.next * 10 + at) * 31 % self.of);
        // The newer half, which stays: what a poll finds is the same before and after.
        let offset = rand::random_range(self.of * 50..self.of * 85);
        out.extend_from_slice(&requests::poll(&format!("{}&Offset={offset}", her_ids(receivers))));
        true
    }

    fn answered(&mut self, _: usize, answer: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(())
    }
}

pub(super) fn retention(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let count = bench.size.stored;
    let of = count / 100;
    let mut reads = Figure::new(
        "14a",
        format!("polls while retention deletes half of {count}, p99, against quiet"),
        "µs",
        Target::AtMost(2.0),
    );
    let mut events = Figure::new(
        "14b",
        "answer to event likewise, p99, 1000 streams",
        "µs",
        Target::AtMost(2.0),
    );
    let (kept, began_at) = fill::stored_in_halves(&bench.places, count, of, BETWEEN_HALVES)?;
    for _ in 0..bench.size.rounds.min(3) {
        let dir = bench.places.copy(&kept, "trimmed")?;
        let age = SystemTime::now().duration_since(began_at)? + BEFORE_TRIM;
        let server = bench.places.herald(&dir, &["--retention", &format!("{}s", age.as_secs())])?;
        let mut streams = Load::new(
            server.address,
            Live::new(Side::Herald, Shape::One, 1000, 1, Shape::One.lanes()).lanes(),
        )?;
        open_streams(&mut streams, &server, Side::Herald, 1000, |number| [number])?;
        let mut polls = Load::new(server.address, 8)?;
        let mut seen = [histogram(), histogram()];
        let mut watch = |length: Duration, seen: &mut [Histogram<u64>; 2]| -> anyhow::Result<()> {
            let began = Instant::now();
            // In turn, so that one does not wait for the other's connections.
            while began.elapsed() < length {
                let piece = Duration::from_millis(100);
                let mut work = Reads { of, next: rand::random_range(0..of) };
                let polled = polls.run(&mut work, Some(500.0), Duration::ZERO, piece)?;
                seen[0].add(&polled.latency)?;
                let mut live = Live::new(Side::Herald, Shape::One, 1000, 1, Shape::One.lanes());
                streams.run(&mut live, Some(2000.0), Duration::ZERO, piece)?;
                seen[1].add(&live.delays)?;
            }
            Ok(())
        };
        let p99 = |seen: &Histogram<u64>| (seen.value_at_quantile(0.99) as f64 / 1000.0).max(1.0);
        watch(BEFORE_TRIM / 3, &mut seen)?;
        let quiet = [p99(&seen[0]), p99(&seen[1])];
        ensure!(trim_of(&server)? == 0, "retention came too early");
        let began = Instant::now();
        while trim_of(&server)? == 0 {
            ensure!(began.elapsed() < PATIENCE, "retention did not come");
            thread::sleep(Duration::from_millis(20));
        }
        seen.iter_mut().for_each(Histogram::reset);
        // Until the files are gone too.
        while trim_of(&server)? < count / 2 || size_of(&dir)? > size_of(&kept)? * 2 / 3 {
            ensure!(began.elapsed() < PATIENCE, "retention did not end");
            watch(Duration::from_millis(500), &mut seen)?;
        }
        reads.round(p99(&seen[0]), quiet[0]);
        events.round(p99(&seen[1]), quiet[1]);
        drop(server);
        fs::remove_dir_all(&dir)?;
    }
    Ok(vec![reads, events])
}

fn trim_of(server: &Server) -> anyhow::Result<u64> {
    server.header_number("herald-trim")
}

fn size_of(dir: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(dir)? {
        size += entry?.metadata()?.len();
    }
    Ok(size)
}

pub(super) fn restart(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (row, count) in [("15a", bench.size.stored / 10), ("15b", bench.size.stored)] {
        let what = format!("ready after SIGKILL with {count} stored");
        let mut figure = Figure::new(row, what, "ms", Target::Reported);
        let dir = fill::stored(&bench.places, count, count / 100)?;
        for _ in 0..bench.size.rounds {
            bench.places.herald(&dir, &["--retention", "forever"])?.kill()?;
            let began = Instant::now();
            let server = bench.places.herald(&dir, &["--retention", "forever"])?;
            figure.herald.push(began.elapsed().as_secs_f64() * 1000.0);
            server.kill()?;
        }
        let unsealed = newest_segment_bytes(&dir)?;
        figure.note = format!("{:.0} MiB of it not sealed and scanned", unsealed as f64 / MIB);
        figures.push(figure);
    }
    Ok(figures)
}

fn newest_segment_bytes(dir: &Path) -> anyhow::Result<u64> {
    let segments = fs::read_dir(dir)?.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    let newest = segments.filter(|path| path.extension().is_some_and(|end| end == "segment")).max();
    Ok(fs::metadata(newest.context("no segment")?)?.len())
}

/// How long idle streams are watched.
const IDLE: Duration = Duration::from_secs(30);

pub(super) fn idle(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let told = |row: &str, what: String, unit, value: f64, note: &str| {
        let mut figure = Figure::new(row, what, unit, Target::Reported);
        figure.herald.push(value);
        figure.note = note.to_owned();
        figure
    };
    let server = bench.places.fresh_herald(&[])?;
    let rss = server.rss_bytes()? as f64 / MIB;
    let mut load = Load::new(server.address, 0)?;
    open_streams(&mut load, &server, Side::Herald, bench.size.streams, |number| [number])?;
    let length = if bench.size.streams < 10_000 { IDLE / 6 } else { IDLE };
    let (_, cpu) = server.costing(|| load.run(&mut Nothing, None, Duration::ZERO, length))?;
    let share = cpu / length.as_secs_f64() * 100.0;
    drop((load, server));
    let binary = fs::metadata(&bench.places.herald)?.len() as f64 / MIB;
    let (disk, written) = disk_use(bench)?;
    Ok(vec![
        told(
            "17a",
            format!("CPU of {} idle streams, heartbeat 15 s", bench.size.streams),
            "% of a core",
            share,
            "a timer, a lookup and a write of 16 bytes for each heartbeat",
        ),
        told("17b", "size of the binary".into(), "MiB", binary, "Swagger's pages are in it"),
        told("17c", "RSS of an idle server".into(), "MiB", rss, ""),
        told(
            "17d",
            "bytes on disk by notification".into(),
            "bytes",
            median(&disk),
            "its object, 28 bytes of header, and 37 of index",
        ),
        told(
            "17e",
            "bytes written by byte stored".into(),
            "",
            median(&written),
            "each frame is written once; an index file when a segment is full",
        ),
    ])
}

/// Bytes in the directory by notification, and bytes written to the disk by byte in it.
fn disk_use(bench: &Bench) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    const COUNT: u64 = 1_000_000;
    let dir = bench.places.data.join("fresh");
    let server = bench.places.fresh_herald(&["--retention", "forever"])?;
    fill::fill(&server, COUNT, COUNT / 100)?;
    // Until full segments are sealed.
    thread::sleep(Duration::from_secs(6));
    let written = server.written_bytes()? as f64;
    let size = size_of(&dir)? as f64;
    Ok((vec![size / COUNT as f64], vec![written / size]))
}
