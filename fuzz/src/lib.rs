//! What each fuzz target does with an input, and what must hold whatever the input is.
//!
//! The targets are plain functions, so that the corpus is replayed without a fuzzer in every run of the tests.

mod append;
mod auth;
mod checkpoint;
mod claims;
mod client;
mod framing;
mod proof;
mod query;
mod sse;
mod token;

pub use append::append;
pub use checkpoint::checkpoint;
pub use claims::claims;
pub use client::client;
pub use framing::framing;
pub use herald_log::fuzzing::{frame, index};
pub use proof::proof;
pub use query::query;
pub use sse::sse;
pub use token::token;

/// A target and its name, which is also the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 11] = [
    ("append", append),
    ("checkpoint", checkpoint),
    ("claims", claims),
    ("client", client),
    ("frame", frame),
    ("framing", framing),
    ("index", index),
    ("proof", proof),
    ("query", query),
    ("sse", sse),
    ("token", token),
];
