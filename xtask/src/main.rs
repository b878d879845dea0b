//! The project's only task runner: `cargo xtask check` before a commit, `cargo xtask test` is what CI runs.

mod bench;
mod check;
mod cluster;
mod counts;
mod deploy;
mod engines;
mod fuzz;
mod leaks;
mod process;
mod public_api;
mod secrets;
mod setup;
mod steps;
mod test;
mod tidy;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use steps::Steps;

/// Rounds of the crash test in `cargo xtask test`.
const CRASH_ROUNDS: u32 = 30;
/// How long `cargo xtask fuzz` runs each target.
const FUZZ_SECONDS: u32 = 60;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Herald's tasks", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What one runs before each commit: rustfmt, clippy, rustdoc, tidy
    Check,
    /// All of it: sets up what the tests need, then everything that CI runs
    Test,
    /// Kills the real server at random moments under load and checks what it kept
    Crash {
        /// How many kills
        #[arg(long, default_value_t = CRASH_ROUNDS)]
        rounds: u32,
        /// Repeats a run: the seed that it printed
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Breaks real clusters under load, and judges all that their clients were told
    Torture(torture::Args),
    /// Measures Herald against its limits, in ratios of the same run: a table, and JSON
    Bench(bench::Args),
    /// Starts an engine, replicas and a balancer on this machine, to play with; Ctrl-C ends them
    Cluster(cluster::Args),
    /// Counts allocations, system calls and syncs, and compares them with bench/counts/counts.toml
    Counts {
        /// Keeps what is counted now: writes it into counts.toml
        #[arg(long)]
        accept: bool,
    },
    /// Lists the public API of the client, and compares it with crates/*/public-api.txt
    PublicApi {
        /// Keeps the API as it is now: writes it into the listings
        #[arg(long)]
        accept: bool,
    },
    /// Runs each fuzz target for a while (the weekly recipe); what breaks one is left in fuzz/artifacts
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = FUZZ_SECONDS)]
        seconds: u32,
    },
    /// Judges licences, banned crates and sources of the dependencies
    Deny,
    /// Looks for known faults of the dependencies; needs a way to the advisories' database, which the gate has not
    Advisories,
    /// Runs the suites of the log and of HTTP on each engine
    Engines,
    /// Runs the clients that nobody here wrote against a live server
    Foreign,
    /// Restarts and scales replicas behind HAProxy and nginx, with hundreds of clients at work
    Rolling,
    /// Judges what is under deploy/: the unit, the image with a static binary in it, the chart, the alert rules
    Deploy {
        /// Builds the binary as the image has it, which takes minutes, and not as the tests have it
        #[arg(long)]
        release: bool,
    },
    /// Installs what the tests need and this machine lacks
    Setup,
    /// The project's own rules about its files
    Tidy,
    /// Accepts the OpenAPI document of the handlers as the new snapshot
    Openapi,
}

fn main() -> ExitCode {
    let mut steps = Steps::new();
    match Cli::parse().task {
        Task::Check => check::all(&mut steps),
        Task::Test => test::all(&mut steps, CRASH_ROUNDS),
        Task::Crash { rounds, seed } => {
            steps.run("crash", || test::crash(rounds, seed));
        }
        Task::Torture(args) => {
            if steps.run("set-up", setup::rig) {
                steps.run("torture", || torture::all(&args));
            }
        }
        Task::Bench(args) => {
            steps.run("bench", || bench::all(&args));
        }
        Task::Cluster(args) => {
            if steps.run("set-up", setup::rig) {
                steps.run("cluster", || cluster::all(&args));
            }
        }
        Task::Counts { accept } => {
            if steps.run("set-up", setup::strace) {
                steps.run("counts", || counts::all(accept));
            }
        }
        Task::PublicApi { accept } => {
            steps.run("public API", || public_api::all(accept));
        }
        Task::Fuzz { seconds } => fuzz::all(&mut steps, seconds),
        Task::Deny => {
            steps.run("set-up", setup::cargo_deny);
            steps.run("deny", check::deny);
        }
        Task::Advisories => {
            steps.run("set-up", setup::cargo_deny);
            steps.run("advisories", check::advisories);
        }
        Task::Engines => {
            steps.run("engines", engines::all);
        }
        Task::Foreign => {
            if steps.run("set-up", setup::foreign) {
                steps.run("foreign clients", test::foreign);
            }
        }
        Task::Rolling => {
            if steps.run("set-up", setup::rolling) {
                steps.run("cluster", test::cluster);
            }
        }
        Task::Deploy { release } => {
            if steps.run("set-up", setup::deploy) {
                deploy::all(&mut steps, release);
            }
        }
        Task::Setup => {
            steps.run("set-up", setup::all);
        }
        Task::Tidy => {
            steps.run("tidy", tidy::all);
        }
        Task::Openapi => {
            steps.run("openapi", test::accept_openapi);
        }
    }
    steps.finish()
}
