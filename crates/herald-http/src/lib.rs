//! The only crate that knows HTTP.

mod access;
pub mod lifecycle;
pub mod metrics;
pub mod ops;
pub mod server;
