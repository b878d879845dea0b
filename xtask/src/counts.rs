//! `cargo xtask counts`: what does not depend on the clock, compared with the numbers in bench/counts/counts.toml.

use crate::process::{cargo, root, run};

pub(crate) fn all(accept: bool) -> anyhow::Result<()> {
    // Whose system calls are counted. Built as nextest builds it: what the tests have compiled is used here.
    run(&mut cargo("test --no-run --quiet --workspace --locked"))?;
    run(&mut counts("test --quiet --locked"))?;
    let mut counts = counts("run --quiet --locked");
    counts.arg("--").arg("--herald").arg(root().join("target/debug/herald"));
    if accept {
        counts.arg("--accept");
    }
    run(&mut counts)
}

/// A task of the workspace whose program counts.
fn counts(task: &str) -> std::process::Command {
    let mut cargo = cargo(task);
    cargo.arg("--manifest-path").arg(root().join("bench/counts/Cargo.toml"));
    // The same directory: most of what it needs has been compiled for the tests.
    cargo.arg("--target-dir").arg(root().join("target"));
    cargo
}
