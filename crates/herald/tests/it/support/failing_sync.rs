//! A disk whose syncs fail from a moment on, which no real disk does when asked to.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("failing_sync.c");

/// A small library that is loaded before the C library and stands in for its syncs.
pub(crate) struct FailingSync {
    library: PathBuf,
    trigger: PathBuf,
}

impl FailingSync {
    /// Builds the library in `dir` with the C compiler that Rust links with.
    pub(crate) fn build(dir: &Path) -> Self {
        let source = dir.join("failing_sync.c");
        let library = dir.join("failing_sync.so");
        std::fs::write(&source, SOURCE).expect("the source can be written");
        let mut cc = Command::new("cc");
        let cc = cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(cc.status().expect("cc is a program").success(), "the library is built");
        Self { library, trigger: dir.join("syncs-fail") }
    }

    /// What a process must have in its environment.
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 2] {
        [
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAIL_SYNC_WHEN", self.trigger.clone().into()),
        ]
    }

    /// From now on every sync of those processes fails.
    pub(crate) fn begin(&self) {
        std::fs::write(&self.trigger, "").expect("the trigger can be made");
    }
}
