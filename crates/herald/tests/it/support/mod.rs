//! What the tests of the real binary share: the process, a plain HTTP client, and drafts.

pub(crate) mod certificates;
pub(crate) mod cli;
pub(crate) mod drafts;
pub(crate) mod failing_sync;
pub(crate) mod http;
pub(crate) mod proxy;
// The gate looks at the output of the whole suite with the same eyes.
#[path = "../../../../../xtask/src/secrets.rs"]
pub(crate) mod secrets;
pub(crate) mod server;

/// A number from the environment.
pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
