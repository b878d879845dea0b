//! What nodes of both engines have in common: a process in a place of its own, which may be down.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;

use crate::process::{self, Process};

/// A place for a process. Its methods take `&self`, so that what breaks a cluster and what uses it may be different tasks.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// Locked for a moment, never while something is awaited.
    process: Mutex<Option<Process>>,
}

impl Slot {
    pub(crate) fn new(name: String, dir: PathBuf) -> Self {
        Self { name, dir, process: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it; whatever ran here before is killed.
    pub(crate) fn start(&self, command: Command) -> anyhow::Result<()> {
        let mut slot = self.lock();
        *slot = None;
        *slot = Some(Process::spawn(&self.name, command, &self.log())?);
        Ok(())
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Does something with the process, if it has not ended.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Process) -> T) -> Option<T> {
        let mut slot = self.lock();
        let process = slot.as_mut()?;
        process.is_running().then(|| act(process))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.with(|_| ()).is_some()
    }

    /// Its process, if it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.with(|process| process.number())
    }

    /// SIGKILL to all of it; it is gone when this returns.
    pub(crate) fn kill(&self) {
        *self.lock() = None;
    }

    pub(crate) fn stop(&self) {
        self.with(Process::stop);
    }

    pub(crate) fn go_on(&self) {
        self.with(Process::go_on);
    }

    /// Takes the process out, to wait for its end.
    pub(crate) fn take(&self) -> Option<Process> {
        self.lock().take()
    }

    /// An error that says why a process that should run does not.
    pub(crate) fn must_run(&self) -> anyhow::Result<()> {
        let mut slot = self.lock();
        let Some(process) = slot.as_mut() else { anyhow::bail!("{} is down", self.name) };
        if !process.is_running() {
            anyhow::bail!("{} has ended:{}", self.name, process.newest_lines());
        }
        Ok(())
    }
}

/// A copy of a node's store; see `keep` of a cluster.
#[derive(Debug)]
pub struct Kept {
    copy: tempfile::TempDir,
}

impl Kept {
    /// Copies a directory, owners and all.
    pub(crate) async fn of(dir: &Path) -> anyhow::Result<Self> {
        let copy = tempfile::Builder::new().prefix("herald-rig-kept-").tempdir()?;
        copy_dir(dir, &copy.path().join("store")).await?;
        Ok(Self { copy })
    }

    /// Puts it where it was, or somewhere else, in place of what is there.
    pub(crate) async fn put(&self, dir: &Path) -> anyhow::Result<()> {
        remove_dir(dir)?;
        copy_dir(&self.copy.path().join("store"), dir).await
    }
}

/// Copies a directory, owners and all, to where nothing is yet.
pub(crate) async fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("--archive").arg("--no-target-directory").arg(from).arg(to);
    process::run(copy).await.map(drop)
}

/// Removes a directory, which may be missing.
pub(crate) fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// What must not be touched under a process.
pub(crate) fn must_be_down(slot: &Slot) -> anyhow::Result<()> {
    anyhow::ensure!(!slot.is_running(), "{} runs: kill or terminate it first", slot.name);
    Ok(())
}
