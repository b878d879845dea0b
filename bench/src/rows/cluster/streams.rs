//! Rows 23 and 24: streams on several replicas.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::ensure;
use herald_rig::{
    balancer::{self, Balancer},
    replica::Replica,
};

use super::{
    super::live::{Live, Shape, Side},
    Bench, on_each, row,
};
use crate::{
    cluster::{Cluster, Kind},
    load::{Ids, Load, Pace},
    measure::{Figure, Target},
    requests::{self, her_ids},
    server::pss_bytes_of,
};

const REPLICAS: usize = 3;
/// How long memory is given to settle before it is read.
const SETTLE: Duration = Duration::from_millis(500);
const KIB: f64 = 1024.0;
/// Connections that append in row 24; their order on one receiver is no matter there.
const LANES: usize = 8;

/// Row 23: how a balancer spreads streams over replicas, and what one costs there.
pub(in super::super) fn streams(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    on_each(bench, REPLICAS, |cluster, kind| spread(bench, cluster, kind))
}

fn spread(bench: &Bench, cluster: &Cluster, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    // The balancer holds two files for each stream.
    let count = (bench.size.streams / 3 / REPLICAS * REPLICAS).max(REPLICAS);
    let what = format!("streams on the replica with the fewest, of {count}, {kind:?}");
    let mut shares = Figure::new(&row(23, kind, "a"), what, "streams", Target::AtLeast(0.90));
    let what = format!("memory of a stream at rest, {kind:?}");
    let mut memory = Figure::new(&row(23, kind, "b"), what, "KiB", Target::Reported);
    "the limit is an even share".clone_into(&mut shares.note);
    let backends: Vec<_> = cluster.replicas.iter().map(Replica::backend).collect();
    let balancer = cluster.wait(Balancer::start(balancer::Kind::HaProxy, &backends))?;
    let mut load = Load::new(balancer.address(), 0)?;
    // What the first connections bring with them once.
    open(&mut load, &[balancer.address()], 16 * REPLICAS, |number| number, 0)?;
    thread::sleep(SETTLE);
    let (before, had) = (pss(cluster)?, open_streams(cluster)?);
    open(&mut load, &[balancer.address()], count, |number| number, 0)?;
    thread::sleep(SETTLE);
    let (after, have) = (pss(cluster)?, open_streams(cluster)?);
    let opened: Vec<f64> = have.iter().zip(&had).map(|(have, had)| have - had).collect();
    let all: f64 = opened.iter().sum();
    ensure!((all - count as f64).abs() < 0.5, "{all} streams are open, and {count} were opened");
    let fewest = opened.iter().copied().fold(f64::INFINITY, f64::min);
    shares.round(fewest, count as f64 / REPLICAS as f64);
    memory.herald.push((after - before) / count as f64 / KIB);
    Ok(vec![shares, memory])
}

fn open(
    load: &mut Load,
    addresses: &[SocketAddr],
    count: usize,
    of: impl Fn(u64) -> u64,
    after: u64,
) -> anyhow::Result<()> {
    for (number, address) in (0..count as u64).zip(addresses.iter().cycle()) {
        let query = format!("{}&Offset={after}", her_ids([of(number)]));
        load.open_stream(*address, &requests::stream(&query), Ids::Ascend, Pace::Quick)?;
    }
    Ok(())
}

fn open_streams(cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    let open = |replica| cluster.metric(replica, "herald_open_streams");
    cluster.replicas.iter().map(open).collect()
}

fn pss(cluster: &Cluster) -> anyhow::Result<f64> {
    let mut bytes = 0;
    for id in cluster.replicas.iter().filter_map(Replica::id) {
        bytes += pss_bytes_of(id)?;
    }
    Ok(bytes as f64)
}

/// Row 24: the same streams on one replica, and spread over three; all have one receiver.
pub(in super::super) fn fan_out(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    on_each(bench, REPLICAS, |cluster, kind| grow(bench, cluster, kind))
}

fn grow(bench: &Bench, cluster: &Cluster, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let count = bench.size.live / REPLICAS * REPLICAS;
    let what = format!("events to {count} streams from three replicas, against one, {kind:?}");
    let mut figure = Figure::new(&row(24, kind, ""), what, "events/s", Target::Reported);
    "two cores for all: what grows is only what one replica cannot use of them"
        .clone_into(&mut figure.note);
    for _ in 0..bench.size.rounds {
        let (one, cpu_of_one) = window(bench, cluster, count, 1)?;
        let (three, cpu_of_three) = window(bench, cluster, count, REPLICAS)?;
        figure.round(three, one);
        figure.cost(cpu_of_three, cpu_of_one);
    }
    Ok(vec![figure])
}

/// Events a second, and the CPU time of all replicas for one.
fn window(
    bench: &Bench,
    cluster: &Cluster,
    count: usize,
    over: usize,
) -> anyhow::Result<(f64, f64)> {
    cluster.settle()?;
    let size = bench.size;
    let first = &cluster.replicas[0];
    let tail = cluster.metric(first, "herald_tail_offset")? as u64;
    let addresses: Vec<_> = cluster.replicas[..over].iter().map(Replica::api).collect();
    let mut live = Live::new(Side::Herald, Shape::Fan, count as u64, 1, LANES);
    let mut load = Load::new(first.api(), live.lanes())?;
    open(&mut load, &addresses, count, |_| 0, tail)?;
    let before = cluster.cpu(&cluster.replicas)?;
    let window = load.run(&mut live, None, size.warm_up, size.window)?;
    let cpu = cluster.cpu(&cluster.replicas)? - before;
    ensure!(window.all_events > 0, "no event came");
    Ok((window.event_rate(), cpu / window.all_events as f64))
}
