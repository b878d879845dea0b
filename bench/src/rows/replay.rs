//! Rows 9 and 18: a long past on one stream, sent and read.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};

use super::{Bench, live::samples};
use crate::{
    fill,
    measure::{Figure, Target},
    requests::{self, her_id},
    server::{Server, children_cpu_seconds},
};

/// How much more memory the client may have had after all notifications than after a tenth of them.
const GROWTH_MAX_KIB: u64 = 4 * 1024;

/// Row 9: Herald's sending.
pub(super) fn replay(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let replayed = bench.size.replayed;
    let what = format!("replay of {replayed} notifications on one stream");
    let mut figure = Figure::new("9", what, "events/s", Target::AtLeast(0.50));
    let past = Past::new(bench, &[])?;
    let query = format!("HerIds={}&Offset=0&Replay={replayed}", her_id(0));
    let request = bench.places.file("stream-request", &requests::stream(&query))?;
    for _ in 0..bench.size.rounds {
        let count = |server: &Server| {
            let (reading, cpu) = server.costing(|| past.count_lines(server, &request))?;
            Ok::<_, anyhow::Error>((reading.rate, cpu))
        };
        let ((ours, our_cpu), (theirs, their_cpu)) = (count(&past.herald)?, count(&past.limit)?);
        figure.round(ours, theirs);
        figure.cost(our_cpu / replayed as f64, their_cpu / replayed as f64);
    }
    Ok(vec![figure])
}

/// Row 18: the client's reading, beside a reader that only counts lines, from Herald and from the fastest sender.
pub(super) fn client(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let replayed = bench.size.replayed;
    let figure = |row, from, target| {
        let what = format!("{replayed} notifications in the client, from {from}");
        Figure::new(row, what, "events/s", target)
    };
    let mut of_herald = figure("18", "Herald", Target::AtLeast(0.70));
    let mut of_limit = figure("18b", "the fastest sender", Target::Reported);
    let what = format!("the client's memory after {replayed}, and after a tenth");
    let mut memory = Figure::new("18c", what, "MiB", Target::Reported);
    "CPU is the readers'".clone_into(&mut of_herald.note);
    "what is sent lies prepared in memory, so that the client's own cost shows"
        .clone_into(&mut of_limit.note);
    memory.note = format!("the row fails beyond {} MiB more", GROWTH_MAX_KIB / 1024);

    let past = Past::new(bench, &["--ascending", &replayed.to_string()])?;
    let query = format!("HerIds={}&Offset=0", her_id(0));
    let request = bench.places.file("stream-request", &requests::stream(&query))?;
    for _ in 0..bench.size.rounds {
        for (figure, server) in [(&mut of_herald, &past.herald), (&mut of_limit, &past.limit)] {
            let (ours, theirs) = (past.handle(server)?, past.count_lines(server, &request)?);
            figure.round(ours.rate, theirs.rate);
            figure.cost(ours.cpu / replayed as f64, theirs.cpu / replayed as f64);
            let kib = ours.said.split_once(' ').context("two numbers")?;
            let (early, late) = (kib.0.parse::<u64>()?, kib.1.parse::<u64>()?);
            ensure!(late <= early + GROWTH_MAX_KIB, "memory grew from {early} to {late} KiB");
            memory.round(late as f64 / 1024.0, early as f64 / 1024.0);
        }
    }
    Ok(vec![of_herald, of_limit, memory])
}

/// Herald with a past, and a limit that sends events like it.
struct Past<'a> {
    bench: &'a Bench,
    herald: Server,
    limit: Server,
}

/// What a reader took.
struct Reading {
    rate: f64,
    /// Of the reader, in seconds.
    cpu: f64,
    said: String,
}

impl<'a> Past<'a> {
    fn new(bench: &'a Bench, flags: &[&str]) -> anyhow::Result<Self> {
        let places = &bench.places;
        let dir = fill::stored(places, bench.size.replayed, 1)?;
        let herald = places.herald(&dir, &["--retention", "forever"])?;
        let (event, answer) = samples(&herald, 1)?;
        let event = places.file("event", &event)?;
        let answer = places.file("append-answer", &answer)?;
        let flags = [&["--event", &event, "--answer", &answer], flags].concat();
        let limit = places.limit("bare-streams", &flags)?;
        Ok(Self { bench, herald, limit })
    }

    /// All of it, counted by the lines.
    fn count_lines(&self, server: &Server, request: &str) -> anyhow::Result<Reading> {
        let lines = self.bench.size.replayed.to_string();
        self.read(server, "count-lines", &["--request", request, "--lines", &lines])
    }

    /// All of it, handled by the client.
    fn handle(&self, server: &Server) -> anyhow::Result<Reading> {
        let (receiver, count) = (her_id(0).to_string(), self.bench.size.replayed.to_string());
        let flags = ["--receiver", &receiver, "--notifications", &count];
        self.read(server, "count-notifications", &flags)
    }

    fn read(&self, server: &Server, reader: &str, flags: &[&str]) -> anyhow::Result<Reading> {
        let (began, cpu_before) = (Instant::now(), children_cpu_seconds()?);
        let done = Command::new(self.bench.places.limits.join(reader))
            .args(["--address", &server.address.to_string()])
            .args(flags)
            .stderr(Stdio::inherit())
            .output()?;
        let rate = self.bench.size.replayed as f64 / began.elapsed().as_secs_f64();
        ensure!(done.status.success(), "{reader} ended with {}", done.status);
        let said = String::from_utf8(done.stdout)?.trim().to_owned();
        Ok(Reading { rate, cpu: children_cpu_seconds()? - cpu_before, said })
    }
}
