//! A disk that can be full: a file system of its own that is made as small as what is on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// More than a run writes; none of it is taken before it is written.
const LEN: u64 = 4 << 30;
/// What may be written between the look at what is used and the change, at most.
const ROOM_MAX: u64 = 64 << 20;

/// Mounted, until it is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `path`, which is made; `None` where this may not be done.
    pub(crate) fn mount(path: &Path) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let mounted = mount(path, &["-t", "tmpfs", "tmpfs"], LEN, &[]);
        Ok(mounted.is_ok().then(|| Self(path.to_owned())))
    }

    /// There is no room from now on but for what is there.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let stat = rustix::fs::statvfs(&self.0)?;
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        let mut room = 0;
        loop {
            let filled = mount(&self.0, &[], used + room, &["remount"]);
            if filled.is_ok() || room > ROOM_MAX {
                return filled;
            }
            room = (room * 2).max(64 << 10);
        }
    }

    /// There is room again.
    pub(crate) fn give_room(&self) -> anyhow::Result<()> {
        mount(&self.0, &[], LEN, &["remount"])
    }
}

fn mount(path: &Path, arguments: &[&str], len: u64, options: &[&str]) -> anyhow::Result<()> {
    let size = format!("size={len}");
    let options = [options, &[&size]].concat().join(",");
    let mut mount = Command::new("mount");
    let output = mount.args(["-o", &options]).args(arguments).arg(path).output();
    let output = output.context("there is no mount")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}
