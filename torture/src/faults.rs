//! What is broken, when, for how long: a plan from one seed, and the hands that carry it out. One hand is at the engine, the
//! other at the replicas and the ways to and from them; each does one thing at a time, both do so at once.

mod engine;
mod engine_hand;
mod plan;
mod preload;
mod replica_hand;
mod small_disk;

pub use engine::EngineKind;
pub(crate) use engine_hand::EngineHand;
pub(crate) use plan::Plan;
pub(crate) use preload::{Library, Preload};
pub(crate) use replica_hand::{Place, ReplicaHand};
pub(crate) use small_disk::SmallDisk;
