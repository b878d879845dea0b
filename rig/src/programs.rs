//! Where the real components' programs are: under `.tools`, on the `PATH`, or where Debian puts them.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// Where `cargo xtask setup` puts `nats-server`.
const NATS: &str = "nats/bin";
/// Where Debian puts servers; not on every user's `PATH`.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];
/// Where Debian puts each version of PostgreSQL.
const POSTGRES: &str = "/usr/lib/postgresql";

/// The path of `nats-server`, `haproxy`, `nginx`, or one of PostgreSQL's programs.
///
/// # Errors
/// When it is nowhere; the message says what to do.
pub fn find(program: &str) -> anyhow::Result<PathBuf> {
    let found = places().into_iter().map(|place| place.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("there is no {program}: `cargo xtask setup` installs it"))
}

fn places() -> Vec<PathBuf> {
    let mut places = vec![tools().join(NATS), tools().join("bin")];
    // Before the `PATH`, where Debian puts wrappers of PostgreSQL's programs.
    places.extend(postgres());
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    places.extend(SYSTEM.map(PathBuf::from));
    places
}

/// `HERALD_TOOLS`, or `.tools` in the workspace that this was built from.
fn tools() -> PathBuf {
    env::var_os("HERALD_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools"), PathBuf::from)
}

/// The newest PostgreSQL.
fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir(POSTGRES).ok()?.filter_map(Result::ok);
    let newest = versions.max_by_key(|entry| {
        entry.file_name().to_string_lossy().parse::<u32>().unwrap_or_default()
    })?;
    Some(newest.path().join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_told_with_what_to_do() {
        let error = find("no-such-program").unwrap_err().to_string();
        assert_eq!(error, "there is no no-such-program: `cargo xtask setup` installs it");
    }

    #[test]
    fn the_programs_of_the_path_are_found() {
        assert!(find("sh").unwrap().is_absolute());
    }
}
