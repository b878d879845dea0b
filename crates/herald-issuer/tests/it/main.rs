//! The issuer over HTTP, as clients and those who verify tokens see it.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod assertions;
mod bounds;
mod clients;
mod controls;
mod proofs;
mod support;
mod tokens;
