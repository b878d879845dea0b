//! Row 22: from an append on one replica to its event on another, against somebody who only listens to the engine.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use super::{Bench, on_each, row};
use crate::{
    cluster::{Bare, Cluster, Kind, Listener},
    load::{Answer, Ids, Load, Pace, Work, histogram},
    measure::{Figure, Target},
    report::number,
    requests::{self, Drafts, her_ids},
};

/// The receiver of all of them.
const RECEIVER: u64 = 0;
/// So many windows are one round: a percentile needs its events.
const WINDOWS: u32 = 3;

/// One append at a time on the first replica, whose event comes from the second.
pub(in super::super) fn events(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    on_each(bench, 2, |cluster, kind| measure(bench, cluster, kind))
}

fn measure(bench: &Bench, cluster: &Cluster, kind: Kind) -> anyhow::Result<Vec<Figure>> {
    let figure = |rest: &str, quantile: &str| {
        let what = format!("append on one replica to event on another, {quantile}, {kind:?}");
        Figure::new(&row(22, kind, rest), what, "µs", Target::AtMost(1.5))
    };
    let (mut middle, mut late) = (figure("a", "p50"), figure("b", "p99"));
    let mut bare = cluster.bare()?;
    let url = cluster.engine.url();
    let mut listener = cluster.wait(bare.listener(&url))?;
    let mut count = 0;
    for _ in 0..bench.size.rounds {
        let after = cluster.wait(bare.newest())?;
        let ours = herald(bench, cluster)?;
        let theirs = engine(bench, cluster, &mut bare, &mut listener, after)?;
        let micros =
            |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        middle.round(micros(&ours, 0.5), micros(&theirs, 0.5));
        late.round(micros(&ours, 0.99), micros(&theirs, 0.99));
        count += ours.len();
    }
    late.note = format!("{} events", number(count as f64));
    Ok(vec![middle, late])
}

fn herald(bench: &Bench, cluster: &Cluster) -> anyhow::Result<Histogram<u64>> {
    let [one, two] = &*cluster.replicas else { anyhow::bail!("two replicas are needed") };
    cluster.settle()?;
    let tail = cluster.metric(two, "herald_tail_offset")?;
    let mut load = Load::new(one.api(), 1)?;
    let query = format!("{}&Offset={tail}", her_ids([RECEIVER]));
    load.open_stream(two.api(), &requests::stream(&query), Ids::Ascend, Pace::Quick)?;
    let mut work = Echo { drafts: Drafts::default(), sent: None, times: histogram() };
    load.run(&mut work, None, bench.size.warm_up, bench.size.window * WINDOWS)?;
    ensure!(!work.times.is_empty(), "no event came");
    Ok(work.times)
}

fn engine(
    bench: &Bench,
    cluster: &Cluster,
    bare: &mut Bare,
    listener: &mut Listener,
    after: u64,
) -> anyhow::Result<Histogram<u64>> {
    cluster.wait(async {
        let until = bare.newest().await?;
        let batches = bare.batches(after, until).await?;
        let mut times = histogram();
        let (from, length) = (Instant::now() + bench.size.warm_up, bench.size.window * WINDOWS);
        for frame in batches.frames.iter().cycle() {
            let now = Instant::now();
            if now >= from + length {
                break;
            }
            let took = bare.echo(listener, frame).await?;
            if now >= from {
                times.record(took.as_nanos() as u64)?;
            }
        }
        ensure!(!times.is_empty(), "nothing was heard");
        Ok(times)
    })
}

/// The next append when the event of the one before has come.
struct Echo {
    drafts: Drafts,
    sent: Option<Instant>,
    times: Histogram<u64>,
}

impl Work for Echo {
    fn request(&mut self, _: usize, out: &mut Vec<u8>) -> bool {
        if self.sent.is_some() {
            return false;
        }
        let mut body = Vec::new();
        self.drafts.json([RECEIVER], &mut body);
        out.extend_from_slice(&requests::append("", "application/json", &body));
        self.sent = Some(Instant::now());
        true
    }

    fn answered(&mut self, _: usize, answer: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(answer.body));
        Ok(())
    }

    fn arrived(&mut self, _: usize, _: &[u8], at: Instant) -> anyhow::Result<()> {
        let sent = self.sent.take().context("an event that nobody is owed")?;
        self.times.record((at - sent).as_nanos() as u64)?;
        Ok(())
    }

    fn warmed_up(&mut self) {
        self.times.reset();
    }

    fn is_owed(&self) -> bool {
        self.sent.is_some()
    }
}
