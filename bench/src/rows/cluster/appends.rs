//! Rows 20 and 21: appends, against the engine driven by its own client with the same batches.

use std::time::Instant;

use anyhow::ensure;

use super::{super::appends::Appends, Bench, on_each, row};
use crate::{
    cluster::{Bare, Batches, Cluster, CoreTime, Kind},
    load::Load,
    measure::{Figure, Target, median},
    report::number,
};

/// How many batches of the engine's own client are under way where they are chained.
const DEPTHS: [usize; 2] = [2, 4];

/// One draft a request, from 256 connections.
pub(in super::super) fn single(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    on_each(bench, 1, |cluster, kind| measure(bench, cluster, kind, &Shape::SINGLE))
}

/// 1000 drafts a request.
pub(in super::super) fn large(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    on_each(bench, 1, |cluster, kind| measure(bench, cluster, kind, &Shape::LARGE))
}

struct Shape {
    number: u32,
    what: &'static str,
    lanes: usize,
    drafts: u64,
}

impl Shape {
    const SINGLE: Self =
        Self { number: 20, what: "one draft a request, 256 connections", lanes: 256, drafts: 1 };
    const LARGE: Self =
        Self { number: 21, what: "1000 drafts a request, 8 connections", lanes: 8, drafts: 1000 };
}

/// What a round of Herald's said.
struct Round {
    /// Drafts a second.
    rate: f64,
    /// CPU time of the replica and of the engine for one draft, in seconds.
    cpu: f64,
    engine_cpu: f64,
    /// How much of their time the machine's cores had something to do.
    busy: f64,
    batches: Batches,
}

fn measure(
    bench: &Bench,
    cluster: &Cluster,
    kind: Kind,
    shape: &Shape,
) -> anyhow::Result<Vec<Figure>> {
    let figure = |rest: &str, what: String, unit, target| {
        Figure::new(&row(shape.number, kind, rest), what, unit, target)
    };
    let what = format!("appends, {}, {kind:?}", shape.what);
    let mut appends = figure("", what, "drafts/s", Target::AtLeast(0.80));
    let mut depths = DEPTHS.map(|depth| {
        let what = format!("the engine's own client with {depth} batches under way, against one");
        figure(&format!("-{depth}"), what, "drafts/s", Target::Reported)
    });
    let (mut records, mut bytes) = (Vec::new(), Vec::new());
    let (mut engine_cpu, mut busy) = (Vec::new(), Vec::new());
    let mut bare = cluster.bare()?;
    for _ in 0..bench.size.rounds {
        let round = herald(bench, cluster, &bare, shape)?;
        let alone = pump(bench, cluster, &mut bare, &round.batches, 1)?;
        for (figure, depth) in depths.iter_mut().zip(DEPTHS) {
            figure.round(pump(bench, cluster, &mut bare, &round.batches, depth)?, alone);
        }
        appends.round(round.rate, alone);
        appends.herald_cpu.push(round.cpu);
        records.push(round.batches.records());
        bytes.push(round.batches.bytes());
        engine_cpu.push(round.engine_cpu);
        busy.push(round.busy);
    }
    appends.note = format!(
        "batches of {} drafts and {} bytes; the engine's CPU is {} µs a draft; the cores are busy {} % of the time",
        number(median(&records)),
        number(median(&bytes)),
        number(median(&engine_cpu) * 1e6),
        number(median(&busy) * 100.0)
    );
    let mut figures = vec![appends];
    figures.extend(depths);
    let what = format!("a fresh replica reads what was stored, {kind:?}");
    figures.push(rebuild(cluster, figure("r", what, "drafts/s", Target::Reported))?);
    Ok(figures)
}

fn herald(bench: &Bench, cluster: &Cluster, bare: &Bare, shape: &Shape) -> anyhow::Result<Round> {
    let size = bench.size;
    let replica = &cluster.replicas[0];
    let after = cluster.wait(bare.newest())?;
    let (cpu, engine_cpu) = (cluster.cpu([replica])?, cluster.engine_cpu()?);
    let before = CoreTime::now()?;
    let mut load = Load::new(replica.api(), shape.lanes)?;
    let mut work = Appends::new(shape.drafts, true);
    let window = load.run(&mut work, None, size.warm_up, size.window)?;
    let busy = CoreTime::now()?.busy_since(&before);
    let drafts = (window.all_answers * shape.drafts) as f64;
    let (cpu, engine_cpu) = (cluster.cpu([replica])? - cpu, cluster.engine_cpu()? - engine_cpu);
    let until = cluster.wait(bare.newest())?;
    let batches = cluster.wait(bare.batches(after, until))?;
    ensure!(batches.records() > 0.0, "batches without records");
    Ok(Round {
        rate: window.answer_rate() * shape.drafts as f64,
        cpu: cpu / drafts,
        engine_cpu: engine_cpu / drafts,
        busy,
        batches,
    })
}

/// The drafts a second of the engine's own client.
fn pump(
    bench: &Bench,
    cluster: &Cluster,
    bare: &mut Bare,
    batches: &Batches,
    depth: usize,
) -> anyhow::Result<f64> {
    let size = bench.size;
    let pumped = cluster.wait(bare.pump(batches, depth, size.warm_up, size.window))?;
    ensure!(pumped.batches > 0, "the engine took nothing");
    Ok(pumped.rate() * batches.records())
}

/// How fast a replica takes in what others have stored.
fn rebuild(cluster: &Cluster, mut figure: Figure) -> anyhow::Result<Figure> {
    let stored = cluster.metric(&cluster.replicas[0], "herald_tail_offset")?;
    let began = Instant::now();
    let replica = cluster.replica()?;
    let took = began.elapsed().as_secs_f64();
    let found = cluster.metric(&replica, "herald_tail_offset")?;
    ensure!(found >= stored, "a fresh replica is ready at {found}, and {stored} is stored");
    figure.herald.push(stored / took);
    figure.herald_cpu.push(cluster.cpu([&replica])? / stored);
    figure.note = format!("{} drafts, the start included", number(stored));
    Ok(figure)
}
