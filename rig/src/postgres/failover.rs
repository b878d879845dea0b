//! What an operator does when a primary is gone: fence it, promote the standby that has most, let the others follow.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::time::sleep;

use super::{Access, Cluster, LOOK_EVERY, PASSWORD, WAIT, config};
use crate::{node::remove_dir, process};

/// How long a standby may take to get its new primary's log before it is made anew.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Whether a node takes writes.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn is_primary(&self, node: usize) -> anyhow::Result<bool> {
        Ok(self.query(node, "SELECT NOT pg_is_in_recovery()").await? == "t")
    }

    /// The primary; waits until there is one.
    ///
    /// # Errors
    /// When there is none for too long.
    pub async fn primary(&self) -> anyhow::Result<usize> {
        let began = Instant::now();
        loop {
            if let Some(primary) = self.primary_now().await {
                return Ok(primary);
            }
            if began.elapsed() > WAIT {
                bail!("there is no primary after {WAIT:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn primary_now(&self) -> Option<usize> {
        for node in (0..self.nodes.len()).filter(|node| self.is_running(*node)) {
            if self.is_primary(node).await.unwrap_or(false) {
                return Some(node);
            }
        }
        None
    }

    /// The standby that has received most of the newest timeline: the one to promote.
    ///
    /// # Errors
    /// When no standby answers.
    pub async fn received_most(&self) -> anyhow::Result<usize> {
        // A standby that has lost its primary knows its timeline only from what it has in its files.
        const RECEIVED: &str = "SELECT greatest( \
               (SELECT timeline_id FROM pg_control_checkpoint()), \
               (SELECT min_recovery_end_timeline FROM pg_control_recovery()), \
               (SELECT received_tli FROM pg_stat_wal_receiver)), \
             greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn \
             WHERE pg_is_in_recovery()";
        let mut received = Vec::new();
        for node in (0..self.nodes.len()).filter(|node| self.is_running(*node)) {
            let row = self.query(node, RECEIVED).await.unwrap_or_default();
            if let Some((timeline, bytes)) = row.split_once('|') {
                received.push((timeline.parse::<u32>()?, bytes.parse::<u64>()?, node));
            }
        }
        received.sort_unstable();
        let most = received.last().context("no standby answers")?;
        Ok(most.2)
    }

    /// Kills a node for good: it comes back only by following another one.
    pub fn fence(&self, node: usize) {
        self.nodes[node].is_fenced.store(true, Ordering::Relaxed);
        self.kill(node);
    }

    /// Makes a standby the primary, and waits until it is. With synchronous commits it takes them once a standby follows it.
    ///
    /// # Errors
    /// When it is none, or does not answer.
    pub async fn promote(&self, node: usize) -> anyhow::Result<()> {
        let promoted = self.query(node, "SELECT pg_promote(false)").await?;
        ensure!(promoted == "t", "n{} is not promoted: {promoted}", node + 1);
        let began = Instant::now();
        while !self.is_primary(node).await.unwrap_or(false) {
            self.nodes[node].slot.must_run()?;
            ensure!(began.elapsed() < WAIT, "n{} is no primary after {WAIT:?}", node + 1);
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Makes a node a standby of `primary`, running or not, and waits until it gets its log. What cannot go on from where it
    /// is, such as an old primary or a node that is ahead, begins anew with a base backup.
    ///
    /// # Errors
    /// When the primary does not answer, or it takes too long.
    pub async fn follow(&self, node: usize, primary: usize) -> anyhow::Result<()> {
        let this = &self.nodes[node];
        let was_standby = this.data().join("standby.signal").is_file();
        if was_standby && !this.is_fenced.load(Ordering::Relaxed) {
            self.configure(node, primary)?;
            self.launch(node)?;
            if self.receives(node, FOLLOW_WAIT).await.is_ok() {
                return Ok(());
            }
        }
        self.begin_anew(node, primary).await?;
        this.is_fenced.store(false, Ordering::Relaxed);
        self.launch(node)?;
        self.receives(node, WAIT).await
    }

    fn configure(&self, node: usize, primary: usize) -> anyhow::Result<()> {
        let follows = self.seen_from(node, primary);
        config::write(&self.settings, &self.nodes[node], self.nodes.len(), Some(follows))?;
        self.user.give(&self.nodes[node].data())
    }

    async fn begin_anew(&self, node: usize, primary: usize) -> anyhow::Result<()> {
        self.kill(node);
        let data = self.nodes[node].data();
        remove_dir(&data)?;
        let from = self.nodes[primary].port.address();
        let mut backup = self.tool("pg_basebackup")?;
        backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"]);
        backup.args(["--username=postgres", "--no-password"]);
        backup.arg(format!("--host={}", from.ip())).arg(format!("--port={}", from.port()));
        backup.arg("--pgdata").arg(&data);
        if self.settings.access == Access::Password {
            backup.env("PGPASSWORD", PASSWORD);
        }
        process::run(backup).await?;
        self.configure(node, primary)
    }

    /// Waits until a standby gets somebody's log.
    pub(super) async fn receives(&self, node: usize, wait: Duration) -> anyhow::Result<()> {
        const RECEIVES: &str =
            "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        let began = Instant::now();
        while self.query(node, RECEIVES).await.unwrap_or_default() != "1" {
            self.nodes[node].slot.must_run()?;
            if began.elapsed() > wait {
                bail!("n{} gets nobody's log after {wait:?}", node + 1);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// All that an operator does when the primary is gone: fences it, promotes the standby that has received most, and lets
    /// the other nodes that run follow it; the new primary.
    ///
    /// # Errors
    /// When no standby answers, or one of the steps fails.
    pub async fn fail_over(&self, old: usize) -> anyhow::Result<usize> {
        self.fence(old);
        let new = self.received_most().await?;
        self.promote(new).await?;
        for node in (0..self.nodes.len()).filter(|node| *node != new && self.is_running(*node)) {
            self.follow(node, new).await?;
        }
        Ok(new)
    }
}
