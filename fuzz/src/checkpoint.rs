use std::{env, fs, path::Path, process};

use herald_client::{Checkpoint as _, CheckpointError, CheckpointFile, Cursor};
use tokio::runtime::{Builder, Runtime};

/// The input as the file that keeps a cursor, once as it is and once with the checksum that its first line should have.
///
/// What is no checkpoint is said to be damaged and left as it is; what is one is kept as the same cursor.
///
/// # Panics
/// If that does not hold, or if files cannot be written.
pub fn checkpoint(input: &[u8]) {
    let home = env::temp_dir().join(format!("herald-fuzz-{}", process::id()));
    fs::create_dir_all(&home).expect("a directory for a file");
    let line = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let checksum = format!("\n{:08x}\n", crc32c::crc32c(line));
    for file in [input, &[line, checksum.as_bytes()].concat()] {
        if let Some(cursor) = open(&home, file) {
            is_kept(&home, &cursor);
        }
    }
    fs::remove_dir(&home).expect("nothing is left in it");
}

fn open(home: &Path, content: &[u8]) -> Option<Cursor> {
    let path = home.join("given");
    fs::write(&path, content).expect("a file can be written");
    let loaded = wait(CheckpointFile::new(&path).load());
    assert_eq!(fs::read(&path).ok().as_deref(), Some(content), "loading changes nothing");
    fs::remove_file(&path).expect("a file can be removed");
    match loaded {
        Ok(cursor) => Some(cursor.expect("there was a file")),
        Err(CheckpointError::Damaged { what, .. }) => {
            assert!(!what.is_empty());
            None
        }
        Err(other) => panic!("not damaged, but {other}"),
    }
}

fn is_kept(home: &Path, cursor: &Cursor) {
    assert!(cursor.receivers().is_sorted_by(|a, b| a < b) && !cursor.receivers().is_empty());
    let path = home.join("kept");
    let mut file = CheckpointFile::new(&path);
    wait(file.save(cursor)).expect("a file can be written");
    assert_eq!(wait(file.load()).expect("what was written is read").as_ref(), Some(cursor));
    fs::remove_file(&path).expect("a file can be removed");
}

/// On one runtime for all inputs: making one takes longer than reading a file.
fn wait<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().build().expect("a runtime can be made");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}
