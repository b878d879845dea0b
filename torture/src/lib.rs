//! Torture: clients that write down all they were told, and a judge that reads everything afterwards.
//!
//! The [`judge`](judge()) knows nothing of how Herald works: only what the contract promises. It needs no more than a
//! [`History`], so that any test can use it.

pub mod history;
mod judge;

pub use history::History;
pub use judge::{Kind, Verdict, Violation, judge};
