//! The same suites on each engine: what holds of the log, and all of HTTP.

use herald_rig::{nats, postgres};

use crate::process::{cargo, run};

/// Where the tests find an engine.
const TEST_LOG: &str = "HERALD_TEST_LOG";
/// The conformance suite of the log, and every test that asks a server over HTTP.
const SUITES: &str = "test(conformance::) | binary_id(herald-http::it)";

/// Runs the suites on one server of each engine: they are about what Herald does, not about what the engine survives.
pub(crate) fn all() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cluster = runtime.block_on(nats::Cluster::start(1))?;
    suites(&cluster.url())?;
    drop(cluster);
    let cluster = runtime.block_on(postgres::Cluster::start_alone())?;
    suites(&cluster.url())
}

fn suites(url: &str) -> anyhow::Result<()> {
    eprintln!("on {url}");
    let mut nextest = cargo("nextest run --workspace --locked --no-fail-fast --status-level fail");
    run(nextest.args(["-E", SUITES]).env(TEST_LOG, url))
}
