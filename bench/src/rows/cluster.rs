//! Rows 20 to 25: what a cluster costs, and how it grows.

mod appends;
mod contention;
mod events;
mod streams;

pub(super) use appends::{large, single};
pub(super) use contention::contention;
pub(super) use events::events;
pub(super) use streams::{fan_out, streams};

use super::Bench;
use crate::{
    cluster::{Cluster, Kind},
    measure::Figure,
};

/// Measures something on each engine.
fn on_each(
    bench: &Bench,
    replicas: usize,
    measure: impl Fn(&Cluster, Kind) -> anyhow::Result<Vec<Figure>>,
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &kind in &bench.engines {
        let cluster = Cluster::start(&bench.places, kind, bench.size.nodes, replicas)?;
        figures.extend(measure(&cluster, kind)?);
    }
    Ok(figures)
}

/// `20n`, `20n2`: a row's number, its engine's letter, and what tells the row's figures apart.
fn row(number: u32, kind: Kind, rest: &str) -> String {
    format!("{number}{}{rest}", kind.letter())
}
