//! Runs against worlds drawn from seeds, in virtual time: whatever happens, the log comes out, once, in order, in time,
//! and the server is asked no more often than docs/client.md says.
//!
//! ```text
//! Caller ── next, ack, drop, pause, crash ──► Notifications ──► Run ── open, page ──► World ──► Log
//!    │                                                           └──── random ──────► Judge: was it time?
//!    └── what comes out is the log: offset, bytes, once; the cursor is never ahead of it
//! ```
//!
//! A failure names its seed. `HERALD_SIM_SEED=17` runs that one alone and tells what happens in it;
//! `HERALD_SIM_SEEDS=100000` runs so many from 0 on.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use super::*;

mod caller;
mod herd;
mod judge;
mod server;
mod stream;
mod weather;

/// The seed to run alone.
const ALONE: &str = "HERALD_SIM_SEED";
/// How many seeds are run unless the environment says otherwise.
const SEEDS: u64 = 2000;

#[test]
fn whatever_happens_the_log_comes_out_once_in_order_and_in_time() {
    let seeds = match setting(ALONE) {
        Some(seed) => seed..seed + 1,
        None => 0..setting("HERALD_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let _named = Named(seed);
        paused(caller::live(seed));
    }
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Names the seed when a test fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0} failed; {ALONE}={0} runs it alone", self.0);
        }
    }
}

/// Runs in virtual time, which moves when there is nothing else to do.
fn paused<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

/// One thread holds it, for a few lines, and a panic elsewhere has been told already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time of whole milliseconds, which is as exactly as the clock knows them.
fn drawn(rng: &mut StdRng, millis_range: Range<u64>) -> Duration {
    millis(rng.random_range(millis_range))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}
