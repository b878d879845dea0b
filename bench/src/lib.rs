//! Herald measured against its limits: what the HTTP library and the disk allow, in the same run on the same machine.
//!
//! A *row* is one line of the table in docs/performance.md. Each of its figures is measured in rounds, Herald and its
//! limit in turn, and judged by the median of their ratios; absolute figures are only printed.

/// Herald's: what allocating costs is no difference between it and its limits.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod bare;
pub mod cluster;
pub mod fill;
pub mod growth;
pub mod load;
pub mod measure;
pub mod plot;
pub mod report;
pub mod requests;
pub mod rows;
pub mod scaling;
pub mod server;
