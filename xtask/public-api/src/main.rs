//! Lists what others can name in the crates that they embed, and compares it with the listings kept beside them:
//! `cargo xtask public-api`.
//!
//! The listing comes from rustdoc's JSON, which the stable toolchain writes only when it is told to forget that it is
//! stable. Only rustdoc is told so: this program is the rustdoc that Cargo starts, and starts the real one. Told so itself,
//! Cargo would build every dependency again.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

/// The crates that others embed; `herald-client` hands out the second as its module `types`.
const CRATES: [&str; 2] = ["herald-client", "herald-types"];
/// Set for what Cargo starts as rustdoc.
const AS_RUSTDOC: &str = "HERALD_PUBLIC_API_AS_RUSTDOC";
/// What the compiler finds out by itself and a new one may find out otherwise; `Send`, `Sync` and `Unpin` are promises.
const NO_PROMISES: [&str; 5] = [
    "core::marker::Freeze for ",
    "core::marker::StructuralPartialEq for ",
    "core::marker::UnsafeUnpin for ",
    "core::panic::unwind_safe::RefUnwindSafe for ",
    "core::panic::unwind_safe::UnwindSafe for ",
];

fn main() -> anyhow::Result<ExitCode> {
    if env::var_os(AS_RUSTDOC).is_some() {
        return be_rustdoc();
    }
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let accept = match arguments.as_slice() {
        [] => false,
        [argument] if argument == OsStr::new("--accept") => true,
        _ => bail!("the only argument is --accept"),
    };
    let mut is_kept = true;
    for name in CRATES {
        let found = listing(name)?;
        let file = root().join("crates").join(name).join("public-api.txt");
        if accept {
            fs::write(&file, found)
                .with_context(|| format!("could not write {}", file.display()))?;
        } else {
            is_kept &= compare(name, &fs::read_to_string(&file).unwrap_or_default(), &found);
        }
    }
    if is_kept {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "If that is meant: `cargo xtask public-api --accept`, look at the diff of public-api.txt, and"
    );
    eprintln!("say it in CHANGELOG.md. A line that is gone or changed breaks those who use it.");
    Ok(ExitCode::FAILURE)
}

fn be_rustdoc() -> anyhow::Result<ExitCode> {
    let mut rustdoc = Command::new("rustdoc");
    rustdoc.args(env::args_os().skip(1)).env("RUSTC_BOOTSTRAP", "1");
    let status = rustdoc.status().context("could not start rustdoc")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The root of the main workspace.
fn root() -> &'static Path {
    let two_up = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent);
    two_up.expect("this workspace lies in the main one")
}

fn listing(name: &str) -> anyhow::Result<String> {
    let json = rustdoc_json(name)?;
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .build()
        .with_context(|| {
            format!(
                "{} cannot be read: another toolchain may need another version of the crate public-api",
                json.display()
            )
        })?;
    let is_promise = |line: &String| !NO_PROMISES.iter().any(|part| line.contains(part));
    // What has two names is listed under each, but its implementations twice under one.
    let mut listed = BTreeSet::new();
    let lines = api.items().map(|item| format!("{item}\n")).filter(is_promise);
    Ok(lines.filter(|line| listed.insert(line.clone())).collect())
}

/// With all features: none takes anything away.
fn rustdoc_json(name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["rustdoc", "--quiet", "--locked", "--lib", "--all-features"]);
    cargo.args(["--target-dir", "target", "--package", name]);
    cargo.args(["--", "-Zunstable-options", "--output-format=json", "--cap-lints=allow"]);
    cargo.env(AS_RUSTDOC, "1").env("RUSTDOC", env::current_exe().context("this has no path")?);
    let status = cargo.status().context("could not start Cargo")?;
    if !status.success() {
        bail!("rustdoc could not read {name}: {status}");
    }
    Ok(root().join("target/doc").join(name.replace('-', "_")).with_extension("json"))
}

/// Shows the lines that only one has, and says whether there is none.
fn compare(name: &str, kept: &str, found: &str) -> bool {
    let kept: BTreeSet<&str> = kept.lines().collect();
    let found: BTreeSet<&str> = found.lines().collect();
    if kept == found {
        eprintln!("{name}: {} lines, as kept", found.len());
        return true;
    }
    eprintln!("The public API of {name} is not what crates/{name}/public-api.txt keeps:");
    kept.difference(&found).for_each(|line| eprintln!("- {line}"));
    found.difference(&kept).for_each(|line| eprintln!("+ {line}"));
    false
}
