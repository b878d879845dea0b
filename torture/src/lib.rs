//! Torture: three replicas on a real engine of three nodes, clients that write down all they were told, faults from one
//! seed, and a judge that reads everything afterwards.
//!
//! The [`judge`](judge()) knows nothing of how Herald works: only what the contract promises. It needs no more than a
//! [`History`], so that any test can use it.

mod faults;
pub mod history;
mod judge;
mod load;
mod run;

pub use faults::EngineKind;
pub use history::History;
pub use judge::{Kind, Verdict, Violation, judge};
pub use run::{Outcomes, Round, Summary};
