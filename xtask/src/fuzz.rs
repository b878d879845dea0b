//! `cargo xtask fuzz`: each target for a while; and its corpus replayed without a fuzzer, which is cheap enough for CI.

use std::fs;

use anyhow::Context as _;

use crate::{
    process::{cargo, root, run},
    setup,
    steps::Steps,
};

/// The longest input that is tried, in bytes.
const INPUT_LEN_MAX: u32 = 65_536;

pub(crate) fn all(steps: &mut Steps, seconds: u32) {
    if !steps.run("set-up", setup::cargo_fuzz) {
        return;
    }
    let Ok(targets) = targets() else {
        steps.run("fuzz targets", || targets().map(drop));
        return;
    };
    for target in targets {
        steps.run(format!("fuzz {target}"), || fuzz(&target, seconds));
    }
}

/// The names of the files in fuzz/fuzz_targets.
fn targets() -> anyhow::Result<Vec<String>> {
    let directory = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).context("could not list fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// The stable toolchain has no sanitizers; the targets are safe Rust, whose mistakes are panics.
///
/// What the fuzzer finds interesting stays under target/, so that the corpus in the repository is only what somebody chose.
fn fuzz(target: &str, seconds: u32) -> anyhow::Result<()> {
    let found = root().join("target/fuzz/found").join(target);
    fs::create_dir_all(&found).context("could not make a directory for what is found")?;
    let mut fuzz = cargo("fuzz run --sanitizer none --target-dir target/fuzz");
    fuzz.arg(target).arg(found).arg(root().join("fuzz/corpus").join(target)).arg("--");
    fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_LEN_MAX}"));
    fuzz.args(["-verbosity=0", "-print_final_stats=1"]);
    run(&mut fuzz)
}

/// Every input of the corpus through its target once, and the public vectors for event streams.
pub(crate) fn replay() -> anyhow::Result<()> {
    let mut replay = cargo("test --quiet --locked --no-default-features --tests");
    replay.arg("--manifest-path").arg(root().join("fuzz/Cargo.toml"));
    // The same directory: most of what the targets need has been compiled for the tests.
    replay.arg("--target-dir").arg(root().join("target"));
    run(&mut replay)
}
