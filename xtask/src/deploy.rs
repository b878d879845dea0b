//! `cargo xtask deploy`: what is under deploy/, judged by what would use it as far as a machine without a service manager,
//! a Docker daemon and a cluster can.

mod alerts;
mod chart;
mod container;
mod image;
mod unit;

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use crate::{
    process::{root, tools},
    setup,
    steps::Steps,
};

pub(crate) fn all(steps: &mut Steps, release: bool) {
    steps.run("deploy: alerts", alerts::all);
    steps.run("deploy: chart", chart::all);
    steps.run("deploy: systemd unit", unit::all);
    steps.run("deploy: image", || {
        image::lint()?;
        if !setup::is_root() {
            eprintln!("skipped: building an image and running it without its machine needs root");
            return Ok(());
        }
        let trace = image::run(release)?;
        unit::allows(&trace)
    });
}

/// A program of the virtual environment.
fn tool(name: &str) -> PathBuf {
    tools().join("deploy/bin").join(name)
}

/// Where the checks leave what they make.
fn made() -> anyhow::Result<PathBuf> {
    let made = root().join("target/deploy");
    fs::create_dir_all(&made).context("could not make target/deploy")?;
    Ok(made)
}

fn read(name: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(name)).with_context(|| format!("could not read {name}"))
}
