//! A clock that can be set and a disk that can be slow, for one process: a small library stands in for the C library's
//! calls. `nats-server` calls the system itself, so that nothing stands between.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};

const SOURCE: &str = include_str!("preload.c");

/// The library, built.
#[derive(Clone, Debug)]
pub(crate) struct Library(PathBuf);

impl Library {
    /// Builds it in `dir` with the C compiler that Rust links with.
    pub(crate) fn build(dir: &Path) -> anyhow::Result<Self> {
        let (source, library) = (dir.join("preload.c"), dir.join("preload.so"));
        fs::write(&source, SOURCE)?;
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        ensure!(cc.status().context("there is no cc")?.success(), "the library does not build");
        Ok(Self(library))
    }

    /// What one process is told by.
    pub(crate) fn control(&self, name: &str) -> anyhow::Result<Preload> {
        let path = self.0.with_file_name(format!("control-{name}"));
        let preload = Preload { library: self.0.clone(), path, state: Mutex::default() };
        preload.write(State::default())?;
        fs::set_permissions(&preload.path, Permissions::from_mode(0o644))?;
        Ok(preload)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    clock_step_seconds: i64,
    sync_delay_us: i64,
}

/// The clock and the disk of one process.
#[derive(Debug)]
pub(crate) struct Preload {
    library: PathBuf,
    path: PathBuf,
    // Locked to write a page.
    state: Mutex<State>,
}

impl Preload {
    /// What the process must have in its environment.
    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.clone().into()),
            ("TORTURE_CONTROL".to_owned(), self.path.clone().into()),
        ]
    }

    /// Sets the clock so far from the machine's.
    pub(crate) fn step_clock(&self, seconds: i64) -> io::Result<()> {
        self.change(|state| state.clock_step_seconds = seconds)
    }

    /// Makes each sync take so much longer.
    pub(crate) fn slow_syncs(&self, delay: Duration) -> io::Result<()> {
        let delay = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        self.change(|state| state.sync_delay_us = delay)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.write(*state)
    }

    fn write(&self, state: State) -> io::Result<()> {
        // In place: the process has mapped this very file.
        let mut options = fs::File::options();
        let file = options.create(true).truncate(false).write(true).open(&self.path)?;
        let State { clock_step_seconds, sync_delay_us } = state;
        let page = [clock_step_seconds.to_ne_bytes(), sync_delay_us.to_ne_bytes()].concat();
        file.write_all_at(&page, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn year(preload: &Preload) -> String {
        let mut date = Command::new("date");
        date.arg("+%Y").envs(preload.environment());
        String::from_utf8(date.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_clock_is_set_forward_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let preload = Library::build(dir.path()).unwrap().control("date").unwrap();
        let now = year(&preload);
        preload.step_clock(10 * 366 * 86_400).unwrap();
        assert!(year(&preload) > now);
        preload.step_clock(0).unwrap();
        assert_eq!(year(&preload), now);
    }
}
