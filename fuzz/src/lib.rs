//! What each fuzz target does with an input, and what must hold whatever the input is.
//!
//! The targets are plain functions, so that the corpus is replayed without a fuzzer in every run of the tests.

mod append;
mod framing;
mod query;

pub use append::append;
pub use framing::framing;
pub use herald_log::fuzzing::{frame, index};
pub use query::query;

/// Every target by its name, which is also the name of its corpus.
pub const TARGETS: [(&str, fn(&[u8])); 5] = [
    ("append", append),
    ("frame", frame),
    ("framing", framing),
    ("index", index),
    ("query", query),
];
