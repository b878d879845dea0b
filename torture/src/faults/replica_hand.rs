//! The hand at the replicas, and at the ways to and from them. What keeps a replica from answering is written down, so that
//! nobody is blamed for it.

use std::time::Duration;

use anyhow::Context as _;
use herald_rig::{Link, Pace, Way, replica::Replica};
use tokio::time::{Instant, sleep};

use super::{
    Preload, SmallDisk,
    plan::{ReplicaFault, Step},
};
use crate::history::{Call, Moment, Recorder};

/// A replica and all that can be broken about it.
pub(crate) struct Place {
    pub(crate) replica: Replica,
    /// To the engine.
    pub(crate) way: Way,
    /// From its clients.
    pub(crate) front: Link,
    pub(crate) preload: Preload,
}

/// Breaks replicas, one after the other, and mends them.
pub(crate) struct ReplicaHand<'a> {
    pub(crate) places: &'a [Place],
    /// The disk of one of them, which can be full.
    pub(crate) small_disk: Option<&'a SmallDisk>,
    pub(crate) recorder: &'a Recorder,
    /// Says what is done.
    pub(crate) say: &'a (dyn Fn(String) + Sync),
}

impl ReplicaHand<'_> {
    /// Carries out the steps until `until`; all replicas are well when it returns.
    pub(crate) async fn run(
        &self,
        steps: &[Step<ReplicaFault>],
        until: Instant,
    ) -> anyhow::Result<()> {
        for step in steps {
            if Instant::now() >= until {
                break;
            }
            (self.say)(format!("replicas: {:?} for {:?}", step.fault, step.hold));
            self.step(step).await.with_context(|| format!("{:?}", step.fault))?;
            sleep(step.pause).await;
        }
        Ok(())
    }

    async fn step(&self, step: &Step<ReplicaFault>) -> anyhow::Result<()> {
        let Step { fault, hold, .. } = step;
        let began = self.recorder.now();
        let place = |replica: &usize| &self.places[*replica];
        match fault {
            ReplicaFault::Kill(replicas) => {
                replicas.iter().for_each(|replica| place(replica).replica.kill());
                sleep(*hold).await;
                replicas.iter().try_for_each(|replica| place(replica).replica.restart())?;
                self.ready(replicas, began).await
            }
            ReplicaFault::Stop(replica) => {
                place(replica).replica.stop();
                sleep(*hold).await;
                place(replica).replica.go_on();
                self.ready(&[*replica], began).await
            }
            ReplicaFault::Restart(replica) => {
                let status = place(replica).replica.terminate().await?;
                anyhow::ensure!(status.success(), "replica {replica} has ended with {status}");
                place(replica).replica.restart()?;
                self.ready(&[*replica], began).await
            }
            ReplicaFault::Wipe(replica) => {
                place(replica).replica.kill();
                place(replica).replica.wipe()?;
                place(replica).replica.restart()?;
                self.ready(&[*replica], began).await
            }
            ReplicaFault::CutFromEngine(replica, how) => {
                place(replica).way.cut(*how);
                sleep(*hold).await;
                place(replica).way.heal();
                Ok(())
            }
            ReplicaFault::CutFromNode { replica, node, how } => {
                let link = &place(replica).way.links()[*node];
                link.cut(*how);
                sleep(*hold).await;
                link.heal();
                Ok(())
            }
            ReplicaFault::SlowToEngine { replica, delay_ms } => {
                let delay = Duration::from_millis(*delay_ms);
                place(replica).way.slow(Pace { delay, bytes_per_second: None });
                sleep(*hold).await;
                place(replica).way.slow(Pace::default());
                Ok(())
            }
            ReplicaFault::CutFromClients(replica, how) => {
                place(replica).front.cut(*how);
                sleep(*hold).await;
                place(replica).front.heal();
                self.disturbed(*replica, began, "cut from its clients");
                Ok(())
            }
            ReplicaFault::FullDisk => {
                let Some(disk) = self.small_disk else { return Ok(()) };
                disk.fill()?;
                sleep(*hold).await;
                disk.give_room()
            }
            ReplicaFault::SlowDisk { replica, delay_ms } => {
                place(replica).preload.slow_syncs(Duration::from_millis(*delay_ms))?;
                sleep(*hold).await;
                Ok(place(replica).preload.slow_syncs(Duration::ZERO)?)
            }
            ReplicaFault::Clock { replica, seconds } => {
                place(replica).preload.step_clock(*seconds)?;
                sleep(*hold).await;
                Ok(place(replica).preload.step_clock(0)?)
            }
        }
    }

    /// Waits until these are ready; they were disturbed until then.
    async fn ready(&self, replicas: &[usize], began: Moment) -> anyhow::Result<()> {
        for replica in replicas {
            let ready = self.places[*replica].replica.ready().await;
            self.disturbed(*replica, began, "down");
            ready?;
        }
        Ok(())
    }

    fn disturbed(&self, replica: usize, began: Moment, what: &str) {
        self.recorder.record("faults", replica, began, Call::Disturbed(what.to_owned()));
    }
}
