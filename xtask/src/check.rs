//! `cargo xtask check`: what needs no running server.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    process::{cargo, output, run},
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

/// Licences, bans and sources, as deny.toml says; and that no dependency wants a newer Rust than is promised.
pub(crate) fn deny() -> anyhow::Result<()> {
    run(&mut cargo("deny --locked check --hide-inclusion-graph licenses bans sources"))?;
    let metadata = output(&mut cargo("metadata --format-version=1 --locked"))?;
    let metadata = serde_json::from_str(&metadata).context("Cargo's metadata is not JSON")?;
    let newer = newer_than(env!("CARGO_PKG_RUST_VERSION"), &metadata);
    if !newer.is_empty() {
        bail!("newer than rust-version in Cargo.toml: {}", newer.join(", "));
    }
    Ok(())
}

/// Known faults of the dependencies. A recipe of its own: the database is fetched, and the gate must pass without it.
pub(crate) fn advisories() -> anyhow::Result<()> {
    run(&mut cargo("deny --locked check --hide-inclusion-graph advisories"))
        .context("a dependency has a known fault, or the database (github.com/rustsec/advisory-db) cannot be reached from here")
}

/// The packages that want a newer Rust than `promised`. The gate's own would build them without a word.
fn newer_than(promised: &str, metadata: &Value) -> Vec<String> {
    // `1.89` is `1.89.0`.
    let numbers = |version: &str| -> Vec<u32> {
        let numbers = version.split('.').map_while(|number| number.parse().ok());
        numbers.chain(std::iter::repeat(0)).take(3).collect()
    };
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice).iter();
    let wants = packages.filter_map(|package| Some((package, package["rust_version"].as_str()?)));
    wants
        .filter(|(_, wanted)| numbers(wanted).cmp(&numbers(promised)).is_gt())
        .map(|(package, wanted)| format!("{} wants {wanted}", package["name"]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_may_want_as_new_a_rust_as_is_promised() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "old", "rust_version": "1.9" },
            { "name": "silent", "rust_version": null },
            { "name": "same", "rust_version": "1.89" },
            { "name": "exact", "rust_version": "1.89.0" },
            { "name": "new", "rust_version": "1.89.1" },
            { "name": "newer", "rust_version": "1.90" },
        ] });
        let newer = newer_than("1.89", &metadata);
        assert_eq!(newer, [r#""new" wants 1.89.1"#, r#""newer" wants 1.90"#]);
    }
}
