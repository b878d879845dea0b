//! What a cluster of some size would take, worked out from measured costs, and the order of its batches simulated.
//!
//! Nothing here is measured: `cargo xtask bench` and `--cluster` measure, and docs/scaling.md says which figure is whose.

use std::collections::VecDeque;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A batch is no larger than that in Herald, in bytes.
const BATCH_BYTES_MAX: f64 = 7.0 * 1024.0 * 1024.0;
const MICROS: f64 = 1e6;
const KIB: f64 = 1024.0;
const GIB: f64 = KIB * KIB * KIB;

/// What things cost, as they were measured.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct Costs {
    /// What the engine needs for a batch, however small, in microseconds
    #[arg(long, default_value_t = 3400.0)]
    pub commit: f64,
    /// And for each KiB of it
    #[arg(long, default_value_t = 7.6)]
    pub commit_kib: f64,
    /// Bytes of a notification in a batch
    #[arg(long, default_value_t = 373.0)]
    pub record_bytes: f64,
    /// What a replica needs to take a batch into its view, however small, in microseconds of one core
    #[arg(long, default_value_t = 200.0)]
    pub apply: f64,
    /// And for each notification of it
    #[arg(long, default_value_t = 1.2)]
    pub apply_record: f64,
    /// CPU of taking a draft, on the replica that is asked, in microseconds
    #[arg(long, default_value_t = 17.2)]
    pub draft: f64,
    /// CPU of writing an event to a stream, in microseconds
    #[arg(long, default_value_t = 6.2)]
    pub event: f64,
    /// CPU of an idle stream, in cores for ten thousand of them
    #[arg(long, default_value_t = 0.025)]
    pub idle: f64,
    /// Memory of a stream in a replica, in KiB
    #[arg(long, default_value_t = 2.0)]
    pub stream_kib: f64,
    /// Memory of its socket in the system, in KiB
    #[arg(long, default_value_t = 4.6)]
    pub socket_kib: f64,
    /// Memory of a replica without streams, in GiB
    #[arg(long, default_value_t = 0.5)]
    pub replica_gib: f64,
}

/// What is asked of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, clap::Args)]
pub struct Demand {
    /// Open streams
    #[arg(long, default_value_t = 1e6)]
    pub streams: f64,
    /// Notifications a second
    #[arg(long, default_value_t = 1e5)]
    pub rate: f64,
    /// Streams that a notification is an event for
    #[arg(long, default_value_t = 1.0)]
    pub fan: f64,
    /// Cores of a replica's machine
    #[arg(long, default_value_t = 8.0)]
    pub cores: f64,
    /// How much of them may be used, so that one replica can be missing
    #[arg(long, default_value_t = 0.6)]
    pub used: f64,
    /// Memory of a replica's machine, in GiB
    #[arg(long, default_value_t = 16.0)]
    pub memory_gib: f64,
}

/// What one order did.
#[derive(Clone, Copy, Debug)]
pub struct Simulated {
    /// Batches a second.
    pub batches: f64,
    /// Notifications of one, on average.
    pub records: f64,
    /// From an append until it is answered, in milliseconds: the median and the 99th percentile.
    pub answered: (f64, f64),
    /// Whether it kept up: what waited at the end was no more than what came in the last tenth.
    pub keeps_up: bool,
}

/// What one replica takes.
#[derive(Clone, Copy, Debug)]
pub struct Replica {
    /// Cores for what every replica does: taking in all that is stored.
    pub follows: f64,
    /// Cores for its share of appends, events and idle streams.
    pub serves: f64,
    /// Memory, in GiB.
    pub memory_gib: f64,
}

impl Costs {
    /// How long a batch keeps the order, in microseconds: the engine, and the view of whoever numbers the next one, which
    /// must stand behind it.
    fn cycle(&self, records: f64) -> f64 {
        self.commit + self.commit_kib * records * self.record_bytes / KIB + self.applying(records)
    }

    fn applying(&self, records: f64) -> f64 {
        self.apply + self.apply_record * records
    }

    /// Notifications a second that one order cannot exceed, with the largest batches.
    #[must_use]
    pub fn order_max(&self) -> f64 {
        let records = BATCH_BYTES_MAX / self.record_bytes;
        records / self.cycle(records) * MICROS
    }

    /// Simulates one order for some seconds, with appends at random moments on so many replicas. They take turns: each one
    /// stores all that waits with it, and the next begins when its view stands behind that.
    #[must_use]
    pub fn simulate(&self, rate: f64, replicas: usize, seconds: f64, seed: u64) -> Simulated {
        let mut random = StdRng::seed_from_u64(seed);
        let end = seconds * MICROS;
        let most = (BATCH_BYTES_MAX / self.record_bytes) as usize;
        let mut waiting = vec![VecDeque::new(); replicas];
        let (mut now, mut next, mut turn) = (0.0, 0.0, 0);
        let (mut batches, mut stored, mut times) = (0_u64, 0_u64, Vec::new());
        while now < end {
            while next <= now {
                waiting[random.random_range(0..replicas)].push_back(next);
                // Exponential times between appends.
                next -= (1.0 - random.random::<f64>()).ln() / rate * MICROS;
            }
            let Some(step) =
                (0..replicas).find(|step| !waiting[(turn + step) % replicas].is_empty())
            else {
                now = next;
                continue;
            };
            turn = (turn + step) % replicas;
            let count = waiting[turn].len().min(most);
            let done = now + self.cycle(count as f64);
            times.extend(waiting[turn].drain(..count).map(|came: f64| done - came));
            (now, turn) = (done, turn + 1);
            (batches, stored) = (batches + 1, stored + count as u64);
        }
        times.sort_unstable_by(f64::total_cmp);
        let quantile = |part: f64| times[((times.len() - 1) as f64 * part) as usize] / 1000.0;
        let left: usize = waiting.iter().map(VecDeque::len).sum();
        Simulated {
            batches: batches as f64 / now * MICROS,
            records: stored as f64 / batches as f64,
            answered: (quantile(0.5), quantile(0.99)),
            keeps_up: (left as f64) < rate * seconds / 10.0,
        }
    }

    /// What one of so many replicas takes, where each follows `logs` of all logs and the order makes `batches` a second.
    #[must_use]
    pub fn replica(&self, demand: &Demand, replicas: f64, follows: f64, batches: f64) -> Replica {
        let rate = demand.rate;
        let shared = rate * self.draft + rate * demand.fan * self.event;
        let shared = shared / MICROS + demand.streams * self.idle / 10_000.0;
        let streams = demand.streams / replicas;
        Replica {
            follows: follows * (batches * self.apply + rate * self.apply_record) / MICROS,
            serves: shared / replicas,
            memory_gib: self.replica_gib
                + streams * (self.stream_kib + self.socket_kib) * KIB / GIB,
        }
    }

    /// How many replicas that needs; `None` where no number is enough, since each must follow more than it has time for.
    #[must_use]
    pub fn replicas(&self, demand: &Demand, follows: f64, batches: f64) -> Option<u32> {
        (1..=10_000).find(|count| {
            let replica = self.replica(demand, f64::from(*count), follows, batches);
            replica.follows + replica.serves <= demand.cores * demand.used
                && replica.memory_gib <= demand.memory_gib
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        commit: 2000.0,
        commit_kib: 10.0,
        record_bytes: 1024.0,
        apply: 100.0,
        apply_record: 10.0,
        draft: 10.0,
        event: 10.0,
        idle: 0.025,
        stream_kib: 2.0,
        socket_kib: 2.0,
        replica_gib: 0.5,
    };

    #[test]
    fn an_order_that_nobody_waits_for_answers_after_one_cycle() {
        let slow = COSTS.simulate(1.0, 3, 1000.0, 1);
        assert!((slow.answered.0 - 2.12).abs() < 0.01, "{slow:?}");
        assert!(slow.records < 1.1 && slow.keeps_up, "{slow:?}");
    }

    #[test]
    fn an_order_keeps_up_below_its_end_and_not_above_it() {
        let most = COSTS.order_max();
        assert!((most - 1e6 / 20.3).abs() < 100.0, "{most}");
        assert!(COSTS.simulate(most * 0.9, 3, 20.0, 1).keeps_up);
        assert!(!COSTS.simulate(most * 1.3, 3, 20.0, 1).keeps_up);
    }

    #[test]
    fn replicas_share_streams_and_not_what_they_follow() {
        let demand =
            Demand { streams: 1e6, rate: 1e5, fan: 1.0, cores: 4.0, used: 0.5, memory_gib: 16.0 };
        let one = COSTS.replica(&demand, 1.0, 1.0, 0.0);
        let ten = COSTS.replica(&demand, 10.0, 1.0, 0.0);
        assert_eq!((one.follows, ten.follows), (1.0, 1.0));
        assert!((one.serves - 4.5).abs() < 1e-9 && (ten.serves - 0.45).abs() < 1e-9);
        // One core of two is left for 4.5 cores' work.
        assert_eq!(COSTS.replicas(&demand, 1.0, 0.0), Some(5));
        let demand = Demand { cores: 2.0, ..demand };
        assert_eq!(COSTS.replicas(&demand, 1.0, 1.0), None, "following takes all that there is");
        assert_eq!(COSTS.replicas(&demand, 0.5, 0.0), Some(9));
    }
}
