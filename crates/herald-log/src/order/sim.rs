//! Whole clusters in virtual time, each drawn from a seed: real replicas on disks that fail and forget, an engine behind a
//! network that delays, reorders and loses, producers that repeat, and readers that move from replica to replica.
//!
//! ```text
//! producers ──► Replica: Log, view, follower ──► SimEngine ── delays, losses ──► SimLog
//! readers   ◄──    │        ▲                                                      │
//!     │            ▼        └── Weather: cuts, crashes, full disks, clocks         ▼
//!     └────────► Judge ◄──────────────── at the end: what was stored ─────────── Model
//! ```
//!
//! The judge knows what a producer was told, what a reader was shown, and the promises; nothing of how they are kept.
//!
//! A failure names its seed and tells what happened in it. `HERALD_SIM_SEED=17` runs that one alone;
//! `HERALD_SIM_SEEDS=100000` runs so many from 0 on.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinHandle, time::Instant};

use self::judge::Judge;
use crate::{
    Log,
    planted::{Bug, simulated::plant},
    surroundings::simulated::Simulated,
};

mod clients;
mod engine;
mod judge;
mod mischief;
mod replica;
mod weather;

/// The seed to run alone.
const ALONE: &str = "HERALD_SIM_SEED";
/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 2000;

#[test]
fn whatever_happens_the_promises_are_kept() {
    for seed in seeds(SEEDS) {
        run(seed, weather::live);
    }
}

#[test]
fn what_an_engine_takes_back_is_noticed_and_nothing_else_is_shown() {
    for seed in seeds(SEEDS / 10) {
        run(seed, mischief::live);
    }
}

/// How many seeds may go by before a planted bug is found.
const SEEDS_PER_BUG: u64 = 300;

#[test]
fn planted_bugs_are_found() {
    for (bug, name) in Bug::ALL {
        plant(Some(bug));
        let found = (0..SEEDS_PER_BUG).find_map(|seed| {
            let (_, panic) = attempt(seed, weather::live).err()?;
            Some((seed, panic.downcast_ref::<String>().cloned().unwrap_or_default()))
        });
        plant(None);
        let (seed, what) = found.unwrap_or_else(|| panic!("{name} is not found"));
        eprintln!("{name}: seed {seed}: {what}");
    }
}

#[test]
fn a_seed_decides_all_that_happens() {
    for seed in 0..20 {
        let (first, again) = (run(seed, weather::live), run(seed, weather::live));
        let differs = first.iter().zip(&again).position(|(a, b)| a != b);
        let shown = differs.map(|at| (&first[at.saturating_sub(3)..=at], &again[at]));
        assert!(first == again, "seed {seed}, line {differs:?}: {shown:#?}");
    }
}

fn seeds(usual: u64) -> Range<u64> {
    match setting(ALONE) {
        Some(seed) => seed..seed + 1,
        None => 0..setting("HERALD_SIM_SEEDS").unwrap_or(usual),
    }
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a seed; says what happened in it.
fn run<F: Future<Output = ()>>(seed: u64, live: impl FnOnce(Arc<World>) -> F) -> Vec<String> {
    attempt(seed, live).unwrap_or_else(|(trace, panic)| {
        if setting(ALONE).is_none() {
            trace.iter().for_each(|line| eprintln!("{line}"));
        }
        eprintln!("seed {seed} failed; {ALONE}={seed} runs it alone");
        resume_unwind(panic)
    })
}

type Failed = (Vec<String>, Box<dyn std::any::Any + Send>);

/// The same, and leaves a broken promise to the caller.
fn attempt<F: Future<Output = ()>>(
    seed: u64,
    live: impl FnOnce(Arc<World>) -> F,
) -> Result<Vec<String>, Failed> {
    let _simulated = Simulated::new(seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let trace = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&trace);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        runtime.unwrap().block_on(async {
            let world = Arc::new(World::new(seed, told));
            live(Arc::clone(&world)).await;
            let broken = world.broken.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(broken.is_empty(), "{broken:?}");
        });
    }));
    let trace = std::mem::take(&mut *trace.lock().unwrap_or_else(PoisonError::into_inner));
    lived.map_err(|panic| (trace.clone(), panic))?;
    Ok(trace)
}

/// What all share who live in one seed.
struct World {
    random: Mutex<StdRng>,
    began: Instant,
    trace: Arc<Mutex<Vec<String>>>,
    judge: Mutex<Judge>,
    broken: Mutex<Vec<&'static str>>,
    retention: Option<Duration>,
    /// The storm is over: producers stop.
    is_calm: AtomicBool,
    /// No other seed is run: it is told at once what happens.
    is_alone: bool,
}

impl World {
    fn new(seed: u64, trace: Arc<Mutex<Vec<String>>>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let retention =
            random.random_bool(0.4).then(|| Duration::from_secs(random.random_range(10..60)));
        Self {
            random: Mutex::new(random),
            began: Instant::now(),
            trace,
            judge: Mutex::default(),
            broken: Mutex::default(),
            retention,
            is_calm: AtomicBool::new(false),
            is_alone: setting(ALONE).is_some(),
        }
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is(&self, chance: f64) -> bool {
        chance > 0.0 && self.with(|random| random.random_bool(chance))
    }

    fn part(&self) -> f64 {
        self.with(|random| random.random())
    }

    fn below(&self, number: usize) -> usize {
        self.with(|random| random.random_range(0..number))
    }

    fn between(&self, range: Range<u64>) -> u64 {
        self.with(|random| random.random_range(range))
    }

    fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.between(range))
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>9.3} {}", self.elapsed().as_secs_f64(), what());
        if self.is_alone {
            eprintln!("{line}");
        }
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// For tasks whose panic nobody would see.
    fn check(&self, is_kept: bool, promise: &'static str) {
        if !is_kept {
            self.tell(|| promise.into());
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(promise);
        }
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }
}

/// All that runs of a log.
fn tasks_of(log: &Log) -> Vec<JoinHandle<()>> {
    let rest = crate::take(&log.0.tasks).into_iter().flatten();
    crate::take(&log.0.sequencer_task).into_iter().chain(rest).collect()
}
