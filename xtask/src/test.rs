//! `cargo xtask test`: everything that CI runs.

use std::process::Command;

use crate::{
    bench, check, counts, deploy, engines, fuzz, leaks,
    process::{cargo, look_at_output, run, succeeds, tools},
    setup,
    steps::Steps,
    torture,
};

/// The tests of one kind are named by their module in the integration binary of `herald`. Always the whole workspace is
/// built: a smaller choice of packages would unify features differently and compile much of it again.
const NEXTEST: &str = "nextest run --workspace --locked --no-fail-fast";

pub(crate) fn all(steps: &mut Steps, crash_rounds: u32) {
    if !steps.run("set-up", setup::all) {
        return;
    }
    look_at_output();
    check::all(steps);
    steps.run("tests", || nextest(&mut cargo(NEXTEST), true));
    steps.run("engines", engines::all);
    steps.run("doctests", || run(&mut cargo("test --doc --workspace --locked --quiet")));
    steps.run("deny", check::deny);
    steps.run("foreign clients", foreign);
    steps.run("cluster", cluster);
    steps.run("full disk", full_disk);
    steps.run("crash", || crash(crash_rounds, None));
    steps.run("torture on NATS", || torture::short(torture::Engine::Nats));
    steps.run("torture on PostgreSQL", || torture::short(torture::Engine::Postgres));
    steps.run("counts", || counts::all(false));
    steps.run("bench smoke", bench::smoke);
    steps.run("fuzz corpus", fuzz::replay);
    // Behind everything that runs the binary: what it leaves in target/ is linked in another way.
    deploy::all(steps, false);
}

/// The clients that nobody here wrote.
pub(crate) fn foreign() -> anyhow::Result<()> {
    nextest(ignored("foreign::").env("HERALD_TOOLS", tools()), false)
}

/// Replicas restarted and scaled behind balancers.
pub(crate) fn cluster() -> anyhow::Result<()> {
    nextest(ignored("cluster::").env("HERALD_TOOLS", tools()), false)
}

/// SIGKILLs the real server at random moments.
pub(crate) fn crash(rounds: u32, seed: Option<u64>) -> anyhow::Result<()> {
    let mut crash = ignored("crash::");
    crash.arg("--no-capture").env("HERALD_CRASH_ROUNDS", rounds.to_string());
    if let Some(seed) = seed {
        crash.env("HERALD_CRASH_SEED", seed.to_string());
    }
    run(&mut crash)
}

fn full_disk() -> anyhow::Result<()> {
    if !setup::is_root() {
        eprintln!("skipped: mounting a small file system needs root");
        return Ok(());
    }
    nextest(&mut ignored("full_disk::"), false)
}

/// Runs tests, and looks at what they printed, whether they passed or not. `is_whole`: whether these are all tests, so that
/// there must be traces of tokens in it.
fn nextest(command: &mut Command, is_whole: bool) -> anyhow::Result<()> {
    leaks::forget_report();
    let outcome = run(command);
    let looked = leaks::look_at_report(is_whole);
    outcome.and(looked)
}

/// Only tests marked `ignore` whose path has `module` in it.
fn ignored(module: &str) -> Command {
    let mut nextest = cargo(NEXTEST);
    nextest.args(["--run-ignored", "only", "-E"]);
    nextest.arg(format!("package(herald) & test({module})"));
    nextest
}

/// Accepts the OpenAPI document of the handlers as the new snapshot.
pub(crate) fn accept_openapi() -> anyhow::Result<()> {
    let mut nextest = cargo(NEXTEST);
    nextest.args(["-E", "package(herald-http) & test(openapi)"]);
    // The first run writes the new snapshot and may fail for it; the second judges it.
    succeeds(nextest.env("INSTA_UPDATE", "always"));
    run(nextest.env("INSTA_UPDATE", "no"))
}
