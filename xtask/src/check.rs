//! `cargo xtask check`: what needs no running server.

use crate::{
    process::{cargo, run},
    public_api,
    steps::Steps,
    tidy,
};

pub(crate) fn all(steps: &mut Steps) {
    steps.run("rustfmt", rustfmt);
    steps.run("clippy", clippy);
    steps.run("rustdoc", rustdoc);
    steps.run("public API", || public_api::all(false));
    steps.run("tidy", tidy::all);
}

fn rustfmt() -> anyhow::Result<()> {
    run(&mut cargo("fmt --all --check"))?;
    run(&mut cargo("fmt --manifest-path fuzz/Cargo.toml --check"))?;
    run(&mut cargo("fmt --manifest-path bench/Cargo.toml --check"))?;
    run(&mut cargo("fmt --manifest-path bench/counts/Cargo.toml --check"))?;
    run(&mut cargo("fmt --manifest-path xtask/public-api/Cargo.toml --check"))
}

fn clippy() -> anyhow::Result<()> {
    run(&mut cargo("clippy --workspace --all-targets --locked -- --deny warnings"))?;
    // As small as those who embed the client can have it.
    run(&mut cargo(
        "clippy --package herald-client --no-default-features --all-targets --locked -- --deny warnings",
    ))?;
    run(&mut cargo(
        "clippy --manifest-path fuzz/Cargo.toml --target-dir target --no-default-features --all-targets --locked -- --deny warnings",
    ))?;
    run(&mut cargo(
        "clippy --manifest-path bench/Cargo.toml --target-dir target/bench --all-targets --locked -- --deny warnings",
    ))?;
    run(&mut cargo(
        "clippy --manifest-path bench/counts/Cargo.toml --target-dir target --all-targets --locked -- --deny warnings",
    ))?;
    run(&mut cargo(
        "clippy --manifest-path xtask/public-api/Cargo.toml --target-dir target --all-targets --locked -- --deny warnings",
    ))
}

fn rustdoc() -> anyhow::Result<()> {
    run(cargo("doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Licences, bans and sources, as deny.toml says.
pub(crate) fn deny() -> anyhow::Result<()> {
    run(&mut cargo("deny --locked check --hide-inclusion-graph licenses bans sources"))
}
