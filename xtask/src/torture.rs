//! `cargo xtask torture`: breaks real clusters under load, and judges what their clients were told.

use clap::ValueEnum;

use crate::process::{cargo, root, run};

/// How long things are broken on each engine in the gate.
const GATE_MINUTES: f64 = 0.75;
/// The gate's schedule; it begins, as each does, with a leader's and a replica's end, a cut, and a promotion.
const GATE_SEED: u64 = 7;

/// The faults that can be planted, which `crates/herald-log/src/planted.rs` tells about.
const BUGS: [&str; 4] =
    ["conflict-is-success", "conflict-is-not-looked-at", "unknown-is-refused", "tail-moves-first"];

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Engine {
    Nats,
    Postgres,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long, on each engine
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Repeats a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// Both where none is named
    #[arg(long)]
    engine: Option<Engine>,
    /// Plants a fault into the program, which the run must then find
    #[arg(long, value_parser = BUGS)]
    bug: Option<String>,
}

pub(crate) fn all(args: &Args) -> anyhow::Result<()> {
    let mut herald = cargo("build --locked -p herald --bin herald");
    if args.bug.is_some() {
        herald.args(["--features", "planted-bugs"]);
    }
    run(&mut herald)?;
    let mut torture = cargo("run --locked --quiet -p herald-torture --");
    torture.arg("--herald").arg(root().join("target/debug/herald"));
    torture.arg("--minutes").arg(args.minutes.to_string());
    if let Some(seed) = args.seed {
        torture.arg("--seed").arg(seed.to_string());
    }
    if let Some(engine) = args.engine.as_ref().and_then(ValueEnum::to_possible_value) {
        torture.arg("--engine").arg(engine.get_name());
    }
    if let Some(bug) = &args.bug {
        torture.arg("--bug").arg(bug);
    }
    run(&mut torture)
}

/// The short run of the gate.
pub(crate) fn short(engine: Engine) -> anyhow::Result<()> {
    let engine = Some(engine);
    all(&Args { minutes: GATE_MINUTES, seed: Some(GATE_SEED), engine, bug: None })
}
