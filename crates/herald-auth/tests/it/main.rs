//! The crate as the server and an attacker meet it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod arbitrary;
mod issuer;
mod logs;
mod organisations;
mod proof;
mod replay;
mod secrets;
mod site;
mod support;
mod token;
