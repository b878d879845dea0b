//! PostgreSQL refuses to run as root, so that root runs it as somebody else.

use std::{fs, os::unix::fs::chown, path::Path};

use anyhow::Context as _;

/// Whom Debian's package makes for it.
const NAME: &str = "postgres";

/// Whom the servers run as.
#[derive(Clone, Copy, Debug)]
pub(super) struct User(Option<(u32, u32)>);

impl User {
    /// `postgres` for root, and oneself for others.
    pub(super) fn of_servers() -> anyhow::Result<Self> {
        if !rustix::process::getuid().is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").context("could not look for users")?;
        let ids = users.lines().find_map(ids);
        let ids = ids.context("there is no user postgres: `cargo xtask setup` makes one")?;
        Ok(Self(Some(ids)))
    }

    /// As `setpriv` wants it.
    pub(super) fn name(self) -> Option<&'static str> {
        self.0.map(|_| NAME)
    }

    /// Makes a directory, and everything in it, theirs.
    pub(super) fn give(self, path: &Path) -> anyhow::Result<()> {
        let Some((user, group)) = self.0 else { return Ok(()) };
        chown(path, Some(user), Some(group))
            .with_context(|| format!("could not give {} to {NAME}", path.display()))?;
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(path)? {
                self.give(&entry?.path())?;
            }
        }
        Ok(())
    }
}

/// `postgres:x:101:104:…` → (101, 104).
fn ids(line: &str) -> Option<(u32, u32)> {
    let mut fields = line.split(':');
    let is_it = fields.next()? == NAME;
    let ids = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    is_it.then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        assert_eq!(ids("postgres:x:101:104:admin,,,:/var/lib:/bin/bash"), Some((101, 104)));
        assert_eq!(ids("postgrey:x:101:104:admin,,,:/var/lib:/bin/bash"), None);
        assert_eq!(ids("postgres"), None);
    }
}
