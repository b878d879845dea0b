//! `cargo xtask torture` runs this: rounds of a minute or so, each on a fresh cluster, each with a seed of its own.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use herald_torture::{EngineKind, Outcomes, Round};
use tokio::time::Instant;

/// How long things are broken in one round: the judge reads all of a round at once.
const ROUND_MAX: Duration = Duration::from_secs(120);
/// The same with a planted bug, which most rounds find.
const BUG_ROUND_MAX: Duration = Duration::from_secs(45);

#[derive(Parser)]
#[command(about = "Breaks a real cluster under load, and judges what its clients were told")]
struct Cli {
    /// The program under test
    #[arg(long)]
    herald: PathBuf,
    /// Both, one after the other, where none is named
    #[arg(long)]
    engine: Option<EngineKind>,
    /// For how long, on each engine
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Repeats a run: the seed that it printed
    #[arg(long)]
    seed: Option<u64>,
    /// A fault that is planted into the program: then the run must find it
    #[arg(long)]
    bug: Option<String>,
    /// Where everything is kept
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime.context("no runtime").and_then(|runtime| runtime.block_on(all()));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn all() -> anyhow::Result<bool> {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let home = match &cli.dir {
        Some(dir) => dir.clone(),
        None => tempfile::Builder::new().prefix("herald-torture-").tempdir()?.keep(),
    };
    let kinds = cli.engine.map_or(vec![EngineKind::Nats, EngineKind::Postgres], |kind| vec![kind]);
    for kind in kinds {
        println!("torture: {kind:?}, {} min, seed {seed}", cli.minutes);
        let is_found = on(kind, seed, &cli, &home.join(format!("{kind:?}").to_lowercase())).await?;
        if is_found != cli.bug.is_some() {
            return Ok(false);
        }
    }
    // Kept only where somebody will look.
    if cli.dir.is_none() && cli.bug.is_none() {
        std::fs::remove_dir_all(&home).ok();
    }
    Ok(true)
}

/// Runs rounds until the time is over, or something is found; whether it was.
async fn on(
    kind: EngineKind,
    seed: u64,
    cli: &Cli,
    home: &std::path::Path,
) -> anyhow::Result<bool> {
    let until = Instant::now() + Duration::try_from_secs_f64(cli.minutes * 60.0)?;
    for number in 0_u32.. {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let round = Round {
            kind,
            program: cli.herald.clone(),
            seed: seed + u64::from(number),
            time: left.min(if cli.bug.is_some() { BUG_ROUND_MAX } else { ROUND_MAX }),
            dir: home.join(format!("round-{number}")),
            bug: cli.bug.clone(),
        };
        let dir = round.dir.display();
        println!("round {number}: seed {}, {dir}", round.seed);
        let outcomes = round.run().await.with_context(|| format!("seed {}, {dir}", round.seed))?;
        tell(&outcomes);
        // A planted bug must be found by the judge; a run that fails otherwise shows nothing.
        let is_found =
            if cli.bug.is_some() { !outcomes.verdict.is_good() } else { !outcomes.is_good() };
        if is_found {
            println!(
                "what was found is in {dir}; `--engine {kind:?} --seed {}` repeats it",
                round.seed
            );
            return Ok(true);
        }
        std::fs::remove_dir_all(&round.dir).ok();
    }
    Ok(false)
}

fn tell(outcomes: &Outcomes) {
    print!("{}{}", outcomes.summary, outcomes.verdict);
    if let Some(failure) = &outcomes.failure {
        println!("failed: {failure:#}");
    }
    println!("verdict: {}", if outcomes.is_good() { "good" } else { "BAD" });
}
