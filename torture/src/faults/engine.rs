//! Which engine.

use herald_rig::Engine;

/// How the stream is called that Herald makes.
const STREAM: &str = "HERALD";

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineKind {
    /// NATS JetStream.
    Nats,
    /// PostgreSQL.
    Postgres,
}

/// The node through which all is written; waits until there is one.
pub(super) async fn leader(engine: &Engine) -> anyhow::Result<usize> {
    engine.leader(STREAM).await
}
