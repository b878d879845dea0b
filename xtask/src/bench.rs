//! `cargo xtask bench`: Herald measured against its limits, and a look at whether the measuring still works.

use std::process::Command;

use anyhow::Context as _;

use crate::process::{cargo, root, run};

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Fewer and shorter rounds, less stored: a few minutes for all rows
    #[arg(long)]
    quick: bool,
    /// Measure what a cluster costs instead, on real engines of three nodes: rows 20 to 25
    #[arg(long, conflicts_with = "growth")]
    cluster: bool,
    /// Of --cluster, only on this engine: nats or postgres
    #[arg(long, requires = "cluster")]
    engine: Option<String>,
    /// Measure only this row (1 to 19, and of --cluster 20 to 25); may be given more than once
    #[arg(long, value_name = "ROW", value_parser = clap::value_parser!(u32).range(1..=25))]
    only: Vec<u32>,
    /// Measure how cost grows too, and draw the plots in docs/performance; without --only nothing else is measured
    #[arg(long)]
    growth: bool,
    /// Of --growth, only this table, named like its plot; may be given more than once
    #[arg(long, value_name = "NAME", requires = "growth")]
    table: Vec<String>,
}

/// Builds everything as it is shipped and measures; figures go to stdout, and as JSON to target/bench/results.json too.
pub(crate) fn all(args: &Args) -> anyhow::Result<()> {
    run(&mut cargo("build --release --quiet --locked --package herald"))?;
    run(&mut bench("build --release --quiet --locked"))?;
    let mut measure = program("release")?;
    let results = if args.cluster { "results-cluster.json" } else { "results.json" };
    measure.arg("--json").arg(root().join("target/bench").join(results));
    if args.cluster {
        measure.arg("--cluster");
    }
    if let Some(engine) = &args.engine {
        measure.arg("--engine").arg(engine);
    }
    if args.quick {
        measure.arg("--quick");
    }
    for row in &args.only {
        measure.arg("--only").arg(row.to_string());
    }
    if args.growth {
        measure.arg("--growth").arg(root().join("docs/performance"));
        for name in &args.table {
            measure.arg("--table").arg(name);
        }
    }
    run(&mut measure)
}

/// The measuring's own tests, and most rows once with next to nothing: no figure of it says anything, but every answer and
/// every event is checked; those of a cluster on one node of NATS.
pub(crate) fn smoke() -> anyhow::Result<()> {
    run(&mut cargo("test --no-run --quiet --workspace --locked"))?;
    run(&mut bench("test --quiet --locked"))?;
    run(&mut bench("build --quiet --locked"))?;
    run(program("debug")?.arg("--smoke"))?;
    run(program("debug")?.args(["--smoke", "--cluster"]))
}

/// A task of the workspace that measures.
fn bench(task: &str) -> Command {
    let mut cargo = cargo(task);
    cargo.arg("--manifest-path").arg(root().join("bench/Cargo.toml"));
    cargo.arg("--target-dir").arg(root().join("target/bench"));
    cargo
}

/// The program that measures, told where everything is.
fn program(profile: &str) -> anyhow::Result<Command> {
    let built = root().join("target/bench").join(profile);
    let data = root().join("target/bench/data").join(profile);
    std::fs::create_dir_all(&data).context("could not make a directory for data")?;
    let mut program = crate::process::command(built.join("herald-bench"));
    program.arg("--herald").arg(root().join("target").join(profile).join("herald"));
    program.arg("--data").arg(data);
    Ok(program)
}
