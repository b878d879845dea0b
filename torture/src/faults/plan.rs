//! What is broken when, from one seed.

use std::{fmt, time::Duration};

use herald_rig::Cut;
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::EngineKind;

/// How long a fault stays.
const HOLD: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_millis(6000);
/// And how long nothing is broken behind it.
const PAUSE: std::ops::Range<Duration> = Duration::from_millis(300)..Duration::from_millis(2500);
/// More than a hand comes to in a round.
const STEPS: usize = 120;
const DAY: i64 = 86_400;

/// Which of the engine's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Leader,
    Follower,
}

/// How a primary is when another node takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    Killed,
    Stopped,
    Running,
}

/// What is done to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineFault {
    Kill(Whom),
    Stop(Whom),
    /// The leader and another one, or both others.
    KillTwo {
        leader_too: bool,
    },
    StopTwo {
        leader_too: bool,
    },
    /// Off from both others.
    CutOff(Whom, Cut),
    /// Off from one of the others.
    CutPair(Whom, Cut),
    SlowLinks {
        delay_ms: u64,
    },
    /// Stopped and let go on in turn, as one whose disk or processor is too slow.
    Limp(Whom),
    SlowDisk {
        delay_ms: u64,
    },
    FullDisk,
    Clock {
        seconds: i64,
    },
    Promote(Old),
}

/// What is done to replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaFault {
    Kill(Vec<usize>),
    Stop(usize),
    Restart(usize),
    Wipe(usize),
    CutFromEngine(usize, Cut),
    CutFromNode { replica: usize, node: usize, how: Cut },
    SlowToEngine { replica: usize, delay_ms: u64 },
    CutFromClients(usize, Cut),
    FullDisk,
    SlowDisk { replica: usize, delay_ms: u64 },
    Clock { replica: usize, seconds: i64 },
}

/// A fault with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step<F> {
    pub(crate) fault: F,
    pub(crate) hold: Duration,
    pub(crate) pause: Duration,
}

/// What both hands do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) engine: Vec<Step<EngineFault>>,
    pub(crate) replicas: Vec<Step<ReplicaFault>>,
}

impl Plan {
    /// It begins with what no run may be without, in any order: a leader and a replica are killed, somebody is cut off, a
    /// standby takes over.
    pub(crate) fn new(kind: EngineKind, replicas: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let how = cut(&mut rng);
        let mut engine =
            vec![EngineFault::Kill(Whom::Leader), EngineFault::CutOff(Whom::Leader, how)];
        if kind == EngineKind::Postgres {
            engine.push(EngineFault::Promote(old(&mut rng)));
        }
        engine.shuffle(&mut rng);
        engine.extend((0..STEPS).map(|_| engine_fault(kind, &mut rng)));
        let mut first = vec![
            ReplicaFault::Kill(vec![rng.random_range(0..replicas)]),
            ReplicaFault::CutFromEngine(rng.random_range(0..replicas), cut(&mut rng)),
        ];
        first.shuffle(&mut rng);
        first.extend((0..STEPS).map(|_| replica_fault(replicas, &mut rng)));
        Self { engine: timed(engine, &mut rng), replicas: timed(first, &mut rng) }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.engine.iter().try_for_each(|step| writeln!(f, "engine: {:?}", step.fault))?;
        self.replicas.iter().try_for_each(|step| writeln!(f, "replicas: {:?}", step.fault))
    }
}

fn timed<F>(faults: Vec<F>, rng: &mut impl Rng) -> Vec<Step<F>> {
    let timed = faults.into_iter().map(|fault| Step {
        fault,
        hold: rng.random_range(HOLD),
        pause: rng.random_range(PAUSE),
    });
    timed.collect()
}

fn cut(rng: &mut impl Rng) -> Cut {
    if rng.random() { Cut::Reset } else { Cut::Silence }
}

fn whom(rng: &mut impl Rng) -> Whom {
    if rng.random() { Whom::Leader } else { Whom::Follower }
}

fn old(rng: &mut impl Rng) -> Old {
    [Old::Killed, Old::Stopped, Old::Running][rng.random_range(0..3)]
}

fn engine_fault(kind: EngineKind, rng: &mut impl Rng) -> EngineFault {
    let is_postgres = kind == EngineKind::Postgres;
    match rng.random_range(0..if is_postgres { 15 } else { 12 }) {
        0 | 1 => EngineFault::Kill(whom(rng)),
        2 | 3 => EngineFault::Stop(whom(rng)),
        4 => EngineFault::KillTwo { leader_too: rng.random() },
        5 => EngineFault::StopTwo { leader_too: rng.random() },
        6 | 7 => EngineFault::CutOff(whom(rng), cut(rng)),
        8 => EngineFault::CutPair(whom(rng), cut(rng)),
        9 => EngineFault::SlowLinks { delay_ms: rng.random_range(5..200) },
        10 => EngineFault::FullDisk,
        11 if is_postgres => EngineFault::SlowDisk { delay_ms: rng.random_range(20..400) },
        11 => EngineFault::Limp(whom(rng)),
        12 => EngineFault::Clock { seconds: rng.random_range(-3600..3600) },
        _ => EngineFault::Promote(old(rng)),
    }
}

fn replica_fault(replicas: usize, rng: &mut impl Rng) -> ReplicaFault {
    let replica = rng.random_range(0..replicas);
    match rng.random_range(0..15) {
        0 | 1 => ReplicaFault::Kill(vec![replica]),
        2 => ReplicaFault::Kill((0..replicas).filter(|_| rng.random_bool(0.8)).collect()),
        3 => ReplicaFault::Stop(replica),
        4 => ReplicaFault::Restart(replica),
        5 => ReplicaFault::Wipe(replica),
        6 | 7 => ReplicaFault::CutFromEngine(replica, cut(rng)),
        8 => ReplicaFault::CutFromNode { replica, node: rng.random_range(0..3), how: cut(rng) },
        9 => ReplicaFault::SlowToEngine { replica, delay_ms: rng.random_range(5..300) },
        10 | 11 => ReplicaFault::CutFromClients(replica, cut(rng)),
        12 => ReplicaFault::FullDisk,
        13 => ReplicaFault::SlowDisk { replica, delay_ms: rng.random_range(20..1000) },
        _ => {
            let steps = [-400 * DAY, -3600, 3600, 31 * DAY, 400 * DAY];
            ReplicaFault::Clock { replica, seconds: steps[rng.random_range(0..steps.len())] }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_plan_which_has_what_no_run_may_be_without() {
        for seed in 0..20 {
            for kind in [EngineKind::Nats, EngineKind::Postgres] {
                let plan = Plan::new(kind, 3, seed);
                assert_eq!(plan.to_string(), Plan::new(kind, 3, seed).to_string());
                let first: Vec<EngineFault> =
                    plan.engine.iter().take(3).map(|step| step.fault).collect();
                assert!(first.contains(&EngineFault::Kill(Whom::Leader)));
                assert!(first.iter().any(|fault| matches!(fault, EngineFault::CutOff(..))));
                let promotes = first.iter().any(|fault| matches!(fault, EngineFault::Promote(_)));
                assert!(promotes || kind == EngineKind::Nats);
                let kills = |step: &Step<_>| matches!(step.fault, ReplicaFault::Kill(_));
                assert!(plan.replicas[..2].iter().any(kills));
            }
        }
    }
}
