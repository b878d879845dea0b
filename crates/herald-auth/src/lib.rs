//! Token, proof and time in, grant out; and the proofs that a client makes.

mod watched;

pub use watched::{WATCH_INTERVAL, WatchedFile};
