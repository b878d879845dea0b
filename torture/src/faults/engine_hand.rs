//! The hand at the engine.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use herald_rig::{Cut, Engine, Pace};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::{
    Preload, SmallDisk,
    engine::leader,
    plan::{EngineFault, Old, Step, Whom},
};

/// A limping node is stopped and runs in turn for so long.
const LIMP: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(60));

/// Breaks the engine, one thing after the other, and mends it.
pub(crate) struct EngineHand<'a> {
    pub(crate) engine: &'a Engine,
    /// Clock and disk by node, where they can be changed.
    pub(crate) preloads: &'a HashMap<usize, Preload>,
    /// A node whose disk can be full.
    pub(crate) small_disk: Option<(usize, &'a SmallDisk)>,
    /// Says what is done.
    pub(crate) say: &'a (dyn Fn(String) + Sync),
}

impl EngineHand<'_> {
    /// Carries out the steps until `until`; all nodes are well when it returns.
    pub(crate) async fn run(
        &self,
        steps: &[Step<EngineFault>],
        seed: u64,
        until: Instant,
    ) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        for step in steps {
            if Instant::now() >= until {
                break;
            }
            let other = rng.random_range(1..self.engine.addresses().len());
            let done = self.step(step, other).await;
            done.with_context(|| format!("{:?} could not be done", step.fault))?;
            self.engine.ready().await.with_context(|| format!("after {:?}", step.fault))?;
            sleep(step.pause).await;
        }
        Ok(())
    }

    /// `other` says which of the others is meant, counted from the leader.
    async fn step(&self, step: &Step<EngineFault>, other: usize) -> anyhow::Result<()> {
        let Step { fault, hold, .. } = step;
        let (engine, len) = (self.engine, self.engine.addresses().len());
        let leader = leader(engine).await?;
        let (one, two) = ((leader + other) % len, (leader + 3 - other) % len);
        let node = |whom| if whom == Whom::Leader { leader } else { one };
        let pair = |leader_too| if leader_too { [leader, one] } else { [one, two] };
        (self.say)(format!("engine: {fault:?} for {hold:?}, n{} leads", leader + 1));
        match *fault {
            EngineFault::Kill(whom) => self.kill(&[node(whom)], *hold).await,
            EngineFault::KillTwo { leader_too } => self.kill(&pair(leader_too), *hold).await,
            EngineFault::Stop(whom) => self.stop(&[node(whom)], *hold).await,
            EngineFault::StopTwo { leader_too } => self.stop(&pair(leader_too), *hold).await,
            EngineFault::CutOff(whom, how) => self.cut(node(whom), &[0, 1, 2], how, *hold).await,
            EngineFault::CutPair(whom, how) => {
                let to = if whom == Whom::Leader { one } else { two };
                self.cut(node(whom), &[to], how, *hold).await
            }
            EngineFault::SlowLinks { delay_ms } => {
                let delay = Duration::from_millis(delay_ms);
                self.slow_links(Pace { delay, bytes_per_second: None });
                sleep(*hold).await;
                self.slow_links(Pace::default());
                Ok(())
            }
            EngineFault::Limp(whom) => {
                let until = Instant::now() + *hold;
                while Instant::now() < until {
                    self.stop(&[node(whom)], LIMP.0).await?;
                    sleep(LIMP.1).await;
                }
                Ok(())
            }
            EngineFault::SlowDisk { delay_ms } => {
                self.slow_syncs(Duration::from_millis(delay_ms))?;
                sleep(*hold).await;
                self.slow_syncs(Duration::ZERO)
            }
            EngineFault::FullDisk => self.full_disk(*hold).await,
            EngineFault::Clock { seconds } => {
                let Some(preload) = self.preloads.get(&leader) else { return Ok(()) };
                preload.step_clock(seconds)?;
                sleep(*hold).await;
                Ok(preload.step_clock(0)?)
            }
            EngineFault::Promote(old) => self.promote(leader, old, *hold).await,
        }
    }

    async fn kill(&self, nodes: &[usize], hold: Duration) -> anyhow::Result<()> {
        nodes.iter().for_each(|node| self.engine.kill(*node));
        sleep(hold).await;
        nodes.iter().try_for_each(|node| self.engine.restart(*node))
    }

    async fn stop(&self, nodes: &[usize], hold: Duration) -> anyhow::Result<()> {
        nodes.iter().for_each(|node| self.engine.stop(*node));
        sleep(hold).await;
        nodes.iter().for_each(|node| self.engine.go_on(*node));
        Ok(())
    }

    async fn cut(&self, a: usize, to: &[usize], how: Cut, hold: Duration) -> anyhow::Result<()> {
        for b in to.iter().filter(|b| **b != a) {
            self.engine.cut(a, *b, how);
        }
        sleep(hold).await;
        self.engine.heal();
        Ok(())
    }

    fn slow_links(&self, pace: Pace) {
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            self.engine.slow(a, b, pace);
        }
    }

    fn slow_syncs(&self, delay: Duration) -> anyhow::Result<()> {
        Ok(self.preloads.values().try_for_each(|preload| preload.slow_syncs(delay))?)
    }

    /// A server whose disk is full may give up, or ask to be started again.
    async fn full_disk(&self, hold: Duration) -> anyhow::Result<()> {
        let Some((node, disk)) = self.small_disk else { return Ok(()) };
        disk.fill()?;
        sleep(hold).await;
        disk.give_room()?;
        self.engine.kill(node);
        self.engine.restart(node)
    }

    /// What the runbook says: fence the old primary, promote who has most, let the others follow; the old one begins anew.
    async fn promote(&self, primary: usize, old: Old, hold: Duration) -> anyhow::Result<()> {
        let Engine::Postgres(cluster) = self.engine else { return Ok(()) };
        match old {
            Old::Killed => cluster.kill(primary),
            Old::Stopped => cluster.stop(primary),
            Old::Running => {}
        }
        sleep(hold / 4).await;
        let new = cluster.fail_over(primary).await?;
        (self.say)(format!("engine: n{} is the primary", new + 1));
        sleep(hold).await;
        cluster.follow(primary, new).await
    }
}
