//! Clients that nobody here wrote, against the real server: they know the page and the standards, not Herald.
//!
//! `cargo xtask foreign` installs them (their scripts and pinned versions are in tests/foreign) and runs these tests.

mod event_streams;
mod generated;
mod issuer;
mod oidc_provider;
mod readers;
mod schemathesis;
mod signed_in;
mod swagger;
mod tls;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Where `cargo xtask` installed the tools.
pub(crate) fn tools() -> PathBuf {
    match std::env::var_os("HERALD_TOOLS") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools"),
    }
}

/// A script or a list of ours that goes with a tool.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name)
}

/// A program with nothing on stdin that knows where the tools are.
fn program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(path);
    command.env("HERALD_TOOLS", tools()).stdin(Stdio::null());
    command
}

/// Runs a program to its end and shows what it said if it failed.
fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the tool is installed: cargo xtask foreign");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
