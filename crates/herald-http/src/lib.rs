//! The only crate that knows HTTP.

mod accept;
mod access;
pub mod api;
mod compression;
mod edge;
mod extract;
pub mod lifecycle;
pub mod metrics;
pub mod openapi;
pub mod ops;
mod problem;
mod request_id;
mod router;
mod routes;
pub mod server;
mod upload;
