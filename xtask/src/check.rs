//! `cargo xtask check`: what needs no running server.

use crate::{
    process::{cargo, run},
    steps::Steps,
    tidy,
};

pub(crate) fn all(steps: &mut Steps) {
    steps.run("rustfmt", || run(&mut cargo("fmt --all --check")));
    steps.run("clippy", clippy);
    steps.run("rustdoc", rustdoc);
    steps.run("tidy", tidy::all);
}

fn clippy() -> anyhow::Result<()> {
    run(&mut cargo("clippy --workspace --all-targets --locked -- --deny warnings"))
}

fn rustdoc() -> anyhow::Result<()> {
    run(cargo("doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Licences, bans and sources, as deny.toml says.
pub(crate) fn deny() -> anyhow::Result<()> {
    run(&mut cargo("deny --locked check --hide-inclusion-graph licenses bans sources"))
}
