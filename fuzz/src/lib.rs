//! What each fuzz target does with an input, and what must hold whatever the input is.
//!
//! The targets are plain functions, so that the corpus is replayed without a fuzzer in every run of the tests.

mod append;
mod checkpoint;
mod client;
mod framing;
mod query;
mod sse;

pub use append::append;
pub use checkpoint::checkpoint;
pub use client::client;
pub use framing::framing;
pub use herald_log::fuzzing::{frame, index};
pub use query::query;
pub use sse::sse;

/// A target and its name, which is also the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("append", append),
    ("checkpoint", checkpoint),
    ("client", client),
    ("frame", frame),
    ("framing", framing),
    ("index", index),
    ("query", query),
    ("sse", sse),
];
