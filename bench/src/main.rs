//! `herald-bench`: measures Herald against its limits. `cargo xtask bench` builds everything and calls it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use herald_bench::{
    cluster::Kind,
    growth::TABLES,
    measure::{Figure, median},
    report,
    rows::{Bench, CLUSTER_ROWS, ROWS, Row, Size},
    server::Places,
};
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Measures Herald against its limits, in ratios of the same run")]
struct Args {
    /// Fewer and shorter rounds, less stored: a few minutes for all rows
    #[arg(long)]
    quick: bool,
    /// Once through most rows with next to nothing, to see that the measuring works
    #[arg(long, hide = true)]
    smoke: bool,
    /// Measure what a cluster costs instead: rows 20 to 25
    #[arg(long)]
    cluster: bool,
    /// Of --cluster, only on this engine
    #[arg(long, requires = "cluster")]
    engine: Option<Kind>,
    /// Measure only this row (1 to 25); may be given more than once
    #[arg(long, value_name = "ROW", value_parser = clap::value_parser!(u32).range(1..=25))]
    only: Vec<u32>,
    /// Also measure how cost grows: tables on stdout, plots in this directory
    #[arg(long, value_name = "DIR")]
    growth: Option<PathBuf>,
    /// Of --growth, only this table; may be given more than once
    #[arg(long, value_name = "NAME", requires = "growth")]
    table: Vec<String>,
    /// The herald binary
    #[arg(long)]
    herald: PathBuf,
    /// Where data is put; stored logs are kept there for the next run
    #[arg(long)]
    data: PathBuf,
    /// Also write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let limits = std::env::current_exe()?.parent().context("a program has a place")?.to_owned();
    let places = Places { herald: args.herald, limits, data: args.data };
    let size = match (args.smoke, args.quick) {
        (true, _) => Size::SMOKE,
        (false, true) => Size::QUICK,
        (false, false) => Size::FULL,
    };
    let engines = match (args.engine, args.smoke) {
        (Some(engine), _) => vec![engine],
        (None, true) => vec![Kind::Nats],
        (None, false) => vec![Kind::Nats, Kind::Postgres],
    };
    let bench = Bench { places, size, engines };
    let rows = if args.cluster { CLUSTER_ROWS } else { ROWS };
    // Growth alone where no row is asked for beside it.
    let all = args.only.is_empty() && args.growth.is_none();
    let chosen =
        |row: &&Row| (all || args.only.contains(&row.number)) && (row.is_smoked || !args.smoke);
    if args.only.iter().any(|only| rows.iter().all(|row| row.number != *only)) {
        bail!("rows 1 to 19 are measured without --cluster, and 20 to 25 with it");
    }
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(chosen) {
        let began = Instant::now();
        eprintln!("row {}: {}", row.number, row.name);
        match (row.measure)(&bench) {
            Ok(measured) => {
                show(&measured);
                figures.extend(measured);
            }
            Err(error) => {
                eprintln!("    FAILED: {error:#}");
                failed.push(row.number);
            }
        }
        eprintln!("    {:.0} s", began.elapsed().as_secs_f64());
    }
    let mut json = report::json(&figures, &machine());
    let tables = match &args.growth {
        Some(directory) => grow(&bench, directory, &args.table, &mut json)?,
        None => String::new(),
    };
    if let Some(path) = args.json {
        fs::write(&path, serde_json::to_vec_pretty(&json)?)
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    println!("{}", report::table(&figures));
    print!("{tables}");
    println!("{json}");
    if !failed.is_empty() {
        eprintln!("failed: rows {failed:?}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures how cost grows; gives the tables.
fn grow(
    bench: &Bench,
    directory: &Path,
    only: &[String],
    json: &mut Value,
) -> anyhow::Result<String> {
    let names: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no table {unknown}: {}", names.join(", "));
    }
    let (mut text, mut tables) = (String::new(), Vec::new());
    let bench = Bench { size: bench.size.for_growth(), ..bench.clone() };
    let is_asked = |name: &str| only.is_empty() || only.iter().any(|other| other == name);
    for (_, measure) in TABLES.iter().filter(|(name, _)| is_asked(name)) {
        let table = measure(&bench)?;
        table.draw(directory)?;
        eprintln!("{}", table.markdown());
        text.push_str(&table.markdown());
        text.push('\n');
        tables.push(table.json());
    }
    json["growth"] = Value::Array(tables);
    Ok(text)
}

/// What was measured, as soon as it was.
fn show(figures: &[Figure]) {
    for figure in figures {
        let ratio = figure.ratio().map(|(ratio, ..)| format!(", ratio {ratio:.3}"));
        let limit = figure.limit_median().map(|limit| format!(" : {}", report::number(limit)));
        let cpu = (!figure.herald_cpu.is_empty()).then(|| {
            let micros = |seconds: &[f64]| report::number(median(seconds) * 1e6);
            format!(", CPU {} : {} µs", micros(&figure.herald_cpu), micros(&figure.limit_cpu))
        });
        eprintln!(
            "    {} {}: {}{} {}{}{}",
            figure.row,
            figure.what,
            report::number(figure.herald_median()),
            limit.unwrap_or_default(),
            figure.unit,
            ratio.unwrap_or_default(),
            cpu.unwrap_or_default(),
        );
    }
}

/// What the figures depend on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}
