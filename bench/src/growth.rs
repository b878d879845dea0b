//! How cost grows: the figures of some rows again, for more receivers, streams, connections and stored notifications.

use std::{fs, path::Path};

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::{
    measure::Figure,
    plot::{Curve, Plot},
    report,
    rows::{Bench, appends, polls, streams},
};

/// One table: a figure for each step of what grows.
pub struct Table {
    /// The plot's file name, without its end.
    pub name: &'static str,
    /// What it shows.
    pub title: String,
    /// What grows.
    pub along: &'static str,
    /// For each step, its figures.
    pub steps: Vec<(u64, Vec<Figure>)>,
}

/// Measures one table.
type Measure = fn(&Bench) -> anyhow::Result<Table>;

/// All tables by name.
pub const TABLES: &[(&str, Measure)] = &[
    ("polls-by-receivers", polls_by_receivers),
    ("polls-by-stored", polls_by_stored),
    ("events-by-streams", events_by_streams),
    ("delays-by-streams", delays_by_streams),
    ("memory-by-streams", memory_by_streams),
    ("appends-by-connections", appends_by_connections),
];

const RECEIVERS: [u64; 4] = [1, 10, 100, 1500];
const CONNECTIONS: [u64; 6] = [1, 4, 16, 64, 256, 1024];

fn table(
    name: &'static str,
    title: impl Into<String>,
    along: &'static str,
    steps: impl IntoIterator<Item = u64>,
    measure: impl Fn(u64) -> anyhow::Result<Vec<Figure>>,
) -> anyhow::Result<Table> {
    let measured = steps.into_iter().map(|step| {
        eprintln!("    {along} {step}");
        Ok((step, measure(step)?))
    });
    Ok(Table { name, title: title.into(), along, steps: measured.collect::<anyhow::Result<_>>()? })
}

fn polls_by_receivers(bench: &Bench) -> anyhow::Result<Table> {
    let title = format!("Polls by receivers asked for ({} stored)", bench.size.stored);
    table("polls-by-receivers", title, "receivers", RECEIVERS, |receivers| {
        polls::of_each_kind(bench, bench.size.stored, receivers)
    })
}

fn polls_by_stored(bench: &Bench) -> anyhow::Result<Table> {
    let steps = [100, 10, 1].map(|part| bench.size.stored / part);
    table(
        "polls-by-stored",
        "Polls for ten receivers by notifications stored",
        "stored",
        steps,
        |stored| polls::of_each_kind(bench, stored, 10),
    )
}

/// 100, 1,000 and 10,000 streams, as far as the size of the run goes.
///
/// Herald's streams and its limit's are open at once, and each is a file of this process.
fn stream_steps(bench: &Bench) -> impl Iterator<Item = u64> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = (files.saturating_sub(1000) / 2).min(bench.size.streams as u64);
    [100, 1000, 10_000].map(|streams| streams.min(most)).into_iter()
}

fn events_by_streams(bench: &Bench) -> anyhow::Result<Table> {
    table(
        "events-by-streams",
        "Live events a second by open streams",
        "streams",
        stream_steps(bench),
        |streams| streams::events_of_each_shape(bench, streams as usize),
    )
}

fn delays_by_streams(bench: &Bench) -> anyhow::Result<Table> {
    table(
        "delays-by-streams",
        "From the answer to the event by open streams",
        "streams",
        stream_steps(bench),
        |streams| streams::delays_of_one_and_fan(bench, streams as usize),
    )
}

fn memory_by_streams(bench: &Bench) -> anyhow::Result<Table> {
    table(
        "memory-by-streams",
        "Memory of a stream at rest by open streams",
        "streams",
        stream_steps(bench),
        |streams| Ok(vec![streams::memory_of(bench, streams as usize)?]),
    )
}

fn appends_by_connections(bench: &Bench) -> anyhow::Result<Table> {
    table(
        "appends-by-connections",
        "Durable appends a second by connections",
        "connections",
        CONNECTIONS,
        |connections| Ok(vec![appends::by_connections(bench, connections as usize)?]),
    )
}

impl Table {
    /// As Markdown: for each step Herald's figure, the limit's, and their ratio.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("{}\n\n| {} |", self.title, self.along);
        let figures = self.steps.first().map_or(&[][..], |(_, figures)| figures);
        for figure in figures {
            text.push_str(&format!(" {}, {} |", figure.what, figure.unit));
        }
        text.push_str("\n| --- |");
        text.push_str(&" --- |".repeat(figures.len()));
        text.push('\n');
        for (step, figures) in &self.steps {
            text.push_str(&format!("| {step} |"));
            for figure in figures {
                let herald = report::number(figure.herald_median());
                let limit = figure.limit_median().map(report::number).unwrap_or_default();
                let ratio = figure.ratio().map_or(0.0, |(ratio, ..)| ratio);
                text.push_str(&format!(" {herald} of {limit}: {ratio:.2} |"));
            }
            text.push('\n');
        }
        text
    }

    /// Writes the plot of this table.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn draw(&self, directory: &Path) -> anyhow::Result<()> {
        let count = self.steps.first().map_or(0, |(_, figures)| figures.len());
        let curves = (0..count).flat_map(|at| {
            let what = self.steps[0].1[at].what.clone();
            let points = |value: fn(&Figure) -> f64| {
                self.steps
                    .iter()
                    .map(|(step, figures)| (*step as f64, value(&figures[at])))
                    .collect()
            };
            [
                Curve {
                    label: what,
                    colour: at,
                    is_limit: false,
                    points: points(Figure::herald_median),
                },
                Curve {
                    label: String::new(),
                    colour: at,
                    is_limit: true,
                    points: points(|figure| figure.limit_median().unwrap_or(0.0)),
                },
            ]
        });
        let unit = self.steps.first().and_then(|(_, figures)| Some(figures.first()?.unit));
        let plot = Plot {
            title: self.title.clone(),
            along: self.along.to_owned(),
            unit: unit.unwrap_or("").to_owned(),
            curves: curves.collect(),
        };
        fs::create_dir_all(directory)?;
        fs::write(directory.join(format!("{}.svg", self.name)), plot.svg())?;
        Ok(())
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(
                |(step, figures)| json!({ "step": step, "figures": report::figures_json(figures) }),
            )
            .collect();
        json!({ "title": self.title, "along": self.along, "steps": steps })
    }
}
