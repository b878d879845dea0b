//! The server as its clients and operators meet it, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod append;
mod attacks;
mod auth;
mod certificates;
mod client_certificates;
mod drain;
mod flood;
mod grants;
mod guarded;
mod handover;
mod herald;
mod leaks;
mod limits;
mod log;
mod model;
mod openapi;
mod ops;
mod order;
mod page;
mod poll;
mod problem;
mod server;
mod serving;
mod smuggling;
mod stream;
mod tls;
mod upload;
