//! The only crate that knows HTTP.

pub mod lifecycle;
