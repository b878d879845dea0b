//! The rig: starts, stops and breaks the real components around Herald on one machine. It refuses to know what they are
//! for: it never appends, reads or judges.
//!
//! - [`nats::Cluster`] and [`postgres::Cluster`]: the engines, one node or three; each node can be killed, stopped, let go on,
//!   restarted, and cut off from any other. [`Engine`] is either.
//! - [`Link`] and [`Way`]: TCP proxies that are cut, healed and slowed.
//! - [`balancer::Balancer`]: HAProxy or nginx in front of replicas that come and go.
//! - [`replica::Replica`]: one `herald serve`.
//!
//! Whatever a rig has started is gone when it is dropped, and when the process ends in any other way, since each child asks
//! the system to be killed with its parent. Ports stay their node's own: they lie outside the range that the system gives
//! away, and no other rig takes them. Programs come from `cargo xtask setup`.
//!
//! `HERALD_RIG_KEEP=1` keeps the directories, with all logs, and prints where they are.

pub mod balancer;
mod certificates;
mod engine;
mod home;
mod http;
mod link;
pub mod nats;
mod node;
mod ports;
pub mod postgres;
mod process;
pub mod programs;
pub mod replica;
mod test_log;

pub use certificates::{Certificates, Tls};
pub use engine::Engine;
pub use link::{Cut, Link, Pace, Way};
pub use node::Kept;
pub use test_log::test_log;
