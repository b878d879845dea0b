//! The only crate that knows HTTP.

mod accept;
mod access;
pub mod admission;
pub mod api;
pub mod body;
mod compression;
mod edge;
mod extract;
pub mod lifecycle;
mod limited;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod ops;
mod problem;
mod request_id;
mod route;
mod router;
mod routes;
pub mod server;
mod upload;
