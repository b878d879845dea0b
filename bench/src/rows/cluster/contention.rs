//! Row 25: replicas that append against each other.

use anyhow::ensure;
use herald_rig::replica::Replica;

use super::{super::appends::Appends, Bench, on_each, row};
use crate::{
    cluster::{Cluster, Kind},
    load::Load,
    measure::{Figure, Target},
    report::number,
};

const REPLICAS: usize = 3;
/// Connections to each replica, one draft a request.
const LANES: usize = 64;
/// Rounds with all replicas; each is long.
const ROUNDS_MAX: usize = 3;

/// What one, two and three of them store, and whose batches those are.
pub(in super::super) fn contention(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    on_each(bench, REPLICAS, |cluster, kind| measure(bench, cluster, kind))
}

fn measure(bench: &Bench, cluster: &Cluster, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let mut grown: Vec<Figure> = (2..=REPLICAS)
        .map(|count| {
            let what = format!("{count} replicas append flat out, against one, {kind:?}");
            let rest = ["", "", "a", "b"][count];
            Figure::new(&row(25, kind, rest), what, "drafts/s", Target::AtLeast(1.0))
        })
        .collect();
    let what = format!("the smallest share of the batches of {REPLICAS}, {kind:?}");
    let mut shares = Figure::new(&row(25, kind, "c"), what, "of all", Target::AtLeast(1.0));
    let (mut lost, mut batches) = (0.0, 0.0);
    for _ in 0..bench.size.rounds.min(ROUNDS_MAX) {
        let one = flat_out(bench, cluster, 1)?;
        for (figure, count) in grown.iter_mut().zip(2..) {
            let several = flat_out(bench, cluster, count)?;
            figure.round(several.rate, one.rate);
            if count == REPLICAS {
                let all: f64 = several.batches.iter().sum();
                let fewest = several.batches.iter().copied().fold(f64::INFINITY, f64::min);
                shares.round(fewest / all, 0.2);
                (lost, batches) = (lost + several.lost, batches + all);
            }
        }
    }
    shares.note = format!(
        "the limit is what each must have; {} of {} batches were numbered again",
        number(lost),
        number(batches + lost)
    );
    grown.push(shares);
    Ok(grown)
}

struct FlatOut {
    rate: f64,
    /// What each replica stored, in batches.
    batches: Vec<f64>,
    /// Batches that another one's came before.
    lost: f64,
}

fn flat_out(bench: &Bench, cluster: &Cluster, count: usize) -> anyhow::Result<FlatOut> {
    cluster.settle()?;
    let replicas = &cluster.replicas[..count];
    let addresses: Vec<_> = replicas.iter().map(Replica::api).collect();
    let look = || {
        let batches = replicas.iter().map(|replica| cluster.batches(replica));
        let lost = replicas.iter().map(|it| cluster.metric(it, "herald_log_conflicts_total"));
        let lost: Vec<f64> = lost.collect::<anyhow::Result<_>>()?;
        let batches: Vec<f64> = batches.collect::<anyhow::Result<_>>()?;
        Ok::<_, anyhow::Error>((batches, lost.iter().sum::<f64>()))
    };
    let (before, lost_before) = look()?;
    let mut load = Load::over(&addresses, LANES)?;
    let mut work = Appends::new(1, true);
    // The time that counts is that of all of them.
    let length = if count == REPLICAS { bench.size.contention } else { bench.size.contention / 3 };
    let window = load.run(&mut work, None, bench.size.warm_up, length)?;
    let (after, lost_after) = look()?;
    let batches: Vec<f64> =
        after.iter().zip(&before).map(|(after, before)| after - before).collect();
    ensure!(batches.iter().all(|batches| *batches > 0.0), "one stored nothing: {batches:?}");
    Ok(FlatOut { rate: window.answer_rate(), batches, lost: lost_after - lost_before })
}
