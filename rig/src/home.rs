//! Where a rig keeps its files.

use std::{
    env,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::TempDir;

/// Keeps the directories, to look at what is in them.
const KEEP: &str = "HERALD_RIG_KEEP";

/// A directory; removed when this is dropped if the rig made it.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Home {
    /// `given`, which is made if it is missing and stays, or a temporary one.
    pub(crate) fn new(given: Option<&Path>, what: &str) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(path) => {
                fs::create_dir_all(path)
                    .with_context(|| format!("could not make {}", path.display()))?;
                (path.to_owned(), None)
            }
            None => temporary(what).context("could not make a temporary directory")?,
        };
        // PostgreSQL runs as another user, who must at least get through.
        fs::set_permissions(&path, Permissions::from_mode(0o755))
            .with_context(|| format!("could not open {} for others", path.display()))?;
        Ok(Self { path: fs::canonicalize(path)?, _temporary: temporary })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

fn temporary(what: &str) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    let dir = tempfile::Builder::new().prefix(&format!("herald-rig-{what}-")).tempdir()?;
    if env::var_os(KEEP).is_some() {
        let path = dir.keep();
        eprintln!("kept: {}", path.display());
        return Ok((path, None));
    }
    Ok((dir.path().to_owned(), Some(dir)))
}
