//! The server as its clients and operators meet it, over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod drain;
mod ops;
mod server;
mod serving;
