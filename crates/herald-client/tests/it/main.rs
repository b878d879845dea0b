//! The client against real sockets, and against servers that behave as badly as servers can.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod append;
mod consumer;
mod content;
mod examples;
#[cfg(feature = "helseid")]
mod helseid;
mod poll;
mod script;
mod start;
mod stream;

use herald_client::{
    Client, Cursor,
    types::{HerId, Offset},
};

fn client(url: &str) -> Client {
    Client::new(url, "Journal, v2.4").unwrap()
}

fn her_ids(range: std::ops::RangeInclusive<u32>) -> Vec<HerId> {
    range.filter_map(HerId::new).collect()
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn cursor(receivers: std::ops::RangeInclusive<u32>, after: u64) -> Cursor {
    Cursor::new(her_ids(receivers), offset(after)).unwrap()
}
