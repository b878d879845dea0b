use std::{env, fs, path::Path, process};

use herald_client::{CheckpointError, CheckpointFile, Cursor};

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
    let opened = CheckpointFile::open(&path);
    assert_eq!(fs::read(&path).ok().as_deref(), Some(content), "opening changes nothing");
    fs::remove_file(&path).expect("a file can be removed");
    match opened {
        Ok(file) => Some(file.cursor().expect("there was a file").clone()),
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
    let mut file = CheckpointFile::open(&path).expect("there is none yet");
    file.save(cursor).expect("a file can be written");
    let kept = CheckpointFile::open(&path).expect("what was written is read");
    assert_eq!(kept.cursor(), Some(cursor));
    fs::remove_file(&path).expect("a file can be removed");
}
