//! Either engine, for what is the same with both.

use std::net::SocketAddr;

use crate::{Cut, Pace, Way, nats, postgres};

/// A running engine of several nodes; see the clusters for what is particular to one.
#[derive(Debug)]
pub enum Engine {
    /// NATS with JetStream.
    Nats(nats::Cluster),
    /// PostgreSQL.
    Postgres(postgres::Cluster),
}

/// Calls the same method of whichever it is.
macro_rules! either {
    ($engine:expr, $cluster:ident => $call:expr) => {
        match $engine {
            Engine::Nats($cluster) => $call,
            Engine::Postgres($cluster) => $call,
        }
    };
}

impl Engine {
    /// What it is called, as the scheme of its URLs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nats(_) => "nats",
            Self::Postgres(_) => "postgres",
        }
    }

    /// For `--log`.
    #[must_use]
    pub fn url(&self) -> String {
        either!(self, cluster => cluster.url())
    }

    /// Links of one's own to all nodes, and a URL through them.
    ///
    /// # Errors
    /// When there are no ports.
    pub fn way(&self) -> anyhow::Result<Way> {
        either!(self, cluster => cluster.way())
    }

    /// Where each node listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        either!(self, cluster => cluster.addresses())
    }

    /// The process of each node that runs.
    #[must_use]
    pub fn ids(&self) -> Vec<Option<u32>> {
        either!(self, cluster => cluster.ids())
    }

    /// The node that decides about batches: the leader of `stream`, or the primary.
    ///
    /// # Errors
    /// When there is none for too long.
    pub async fn leader(&self, stream: &str) -> anyhow::Result<usize> {
        match self {
            Self::Nats(cluster) => cluster.stream_leader(stream).await,
            Self::Postgres(cluster) => cluster.primary().await,
        }
    }

    /// Whether somebody takes what is appended, or will without an operator.
    pub async fn has_leader(&self) -> bool {
        match self {
            Self::Nats(_) => true,
            Self::Postgres(cluster) => cluster.primary_now().await.is_some(),
        }
    }

    /// SIGKILL.
    pub fn kill(&self, node: usize) {
        either!(self, cluster => cluster.kill(node));
    }

    /// SIGSTOP.
    pub fn stop(&self, node: usize) {
        either!(self, cluster => cluster.stop(node));
    }

    /// SIGCONT.
    pub fn go_on(&self, node: usize) {
        either!(self, cluster => cluster.go_on(node));
    }

    /// Whether a node has not ended.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        either!(self, cluster => cluster.is_running(node))
    }

    /// Starts a node again as what it was.
    ///
    /// # Errors
    /// When it cannot be started, or is fenced.
    pub fn restart(&self, node: usize) -> anyhow::Result<()> {
        either!(self, cluster => cluster.restart(node))
    }

    /// Waits until all nodes that run can be used.
    ///
    /// # Errors
    /// When one ends, or it takes too long.
    pub async fn ready(&self) -> anyhow::Result<()> {
        either!(self, cluster => cluster.ready().await)
    }

    /// Cuts two nodes off from each other; they must be linked.
    ///
    /// # Panics
    /// When they are not.
    pub fn cut(&self, a: usize, b: usize, how: Cut) {
        either!(self, cluster => cluster.cut(a, b, how));
    }

    /// Makes what two nodes say to each other slow; they must be linked.
    ///
    /// # Panics
    /// When they are not.
    pub fn slow(&self, a: usize, b: usize, pace: Pace) {
        either!(self, cluster => cluster.slow(a, b, pace));
    }

    /// Connects all nodes again.
    pub fn heal(&self) {
        either!(self, cluster => cluster.heal());
    }

    /// What is done for an engine whose leader or primary is gone: NATS chooses another by itself, PostgreSQL has an operator,
    /// who fences it, promotes a standby, and lets the others follow.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn fail_over(&self, old: usize) -> anyhow::Result<()> {
        match self {
            Self::Nats(_) => Ok(()),
            Self::Postgres(cluster) => cluster.fail_over(old).await.map(drop),
        }
    }

    /// Brings a node back that was killed: where it was, or behind the new primary.
    ///
    /// # Errors
    /// When it cannot be started, or takes too long.
    pub async fn bring_back(&self, node: usize) -> anyhow::Result<()> {
        match self {
            Self::Nats(cluster) => cluster.restart(node)?,
            Self::Postgres(cluster) => match cluster.primary_now().await {
                Some(primary) => cluster.follow(node, primary).await?,
                None => cluster.restart(node)?,
            },
        }
        self.ready().await
    }

    /// Where a node writes what it does.
    #[must_use]
    pub fn log(&self, node: usize) -> std::path::PathBuf {
        either!(self, cluster => cluster.log(node))
    }
}
