//! A flipped byte anywhere is noticed, never served; what is derived is built again.

use std::sync::Arc;

use rand::{SeedableRng as _, rngs::StdRng};

use super::{Run, SETTINGS, View, commit, model::Model, open, read_all};
use crate::disk::{Disk as _, memory::MemoryDisk};

/// A log of several sealed segments and one being written, closed as a server closes it.
pub(crate) fn closed_log() -> (MemoryDisk, Model) {
    let (disk, mut model) = (MemoryDisk::default(), Model::default());
    let (view, mut run) = (open(&disk), Run::new(StdRng::seed_from_u64(3)));
    for _ in 0..18 {
        let mut batch = run.batch(&view);
        batch.trim_point = 0;
        commit(&view, &mut model, &batch).unwrap();
        view.seal(|| true).unwrap();
    }
    view.close();
    assert!(view.held().segments >= 3);
    (disk, model)
}

#[test]
fn a_flipped_byte_in_any_file_is_noticed_and_never_served() {
    let (disk, model) = closed_log();
    let names = disk.list().unwrap();
    let (mut refused, mut served) = (0, 0);
    for name in &names {
        let mut bytes = Vec::new();
        disk.copy().edit(name, |contents| bytes.clone_from(contents));
        // Every byte that says something, and some of the zeros between and behind.
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 16 == 0) {
            let damaged = disk.copy();
            damaged.edit(name, |bytes| bytes[at] ^= 0x20);
            match View::open(Arc::new(damaged.clone()), SETTINGS) {
                Err(_) => refused += 1,
                Ok(view) => match read_all(&view) {
                    Err(_) => refused += 1,
                    Ok(records) => {
                        served += 1;
                        assert_eq!(records, model.all(), "{name} byte {at}");
                    }
                },
            }
        }
    }
    assert!(refused > 3000 && served > 3000, "{refused} refused, {served} served");
}

#[test]
fn damage_in_the_last_frame_is_told_from_a_torn_end_by_the_mark_behind_it() {
    let disk = MemoryDisk::default();
    let (view, mut run) = (open(&disk), Run::new(StdRng::seed_from_u64(3)));
    let batch = run.batch(&view);
    let frame_bytes = view.commit(&batch).unwrap().bytes.len();
    let unmarked = disk.copy();
    view.mark_end();
    let segment = super::super::open::segment_names(&disk).unwrap().remove(0);
    let in_the_frame = super::super::segment::HEADER_BYTES + frame_bytes / 2;
    disk.edit(&segment, |bytes| bytes[in_the_frame] ^= 1);
    assert!(View::open(Arc::new(disk), SETTINGS).is_err());
    // Without the mark nothing says that anybody was told about it.
    unmarked.edit(&segment, |bytes| bytes[in_the_frame] ^= 1);
    assert!(read_all(&open(&unmarked)).unwrap().is_empty());
}

#[test]
fn a_missing_index_is_built_again() {
    let (disk, model) = closed_log();
    let indexes = disk.list().unwrap().into_iter().filter(|name| name.ends_with(".index"));
    for name in indexes {
        disk.remove(&name).unwrap();
    }
    let view = open(&disk);
    assert_eq!(read_all(&view).unwrap(), model.all());
    view.seal(|| true).unwrap();
    assert!(disk.list().unwrap().iter().any(|name| name.ends_with(".index")));
    assert_eq!(read_all(&view).unwrap(), model.all());
}

#[test]
fn a_missing_file_is_refused() {
    let (disk, _) = closed_log();
    let files = disk.list().unwrap().into_iter().filter(|name| !name.ends_with(".index"));
    for (number, name) in files.enumerate() {
        let without = disk.copy();
        without.remove(&name).unwrap();
        let opened = View::open(Arc::new(without.clone()), SETTINGS);
        let is_last_segment =
            super::super::open::segment_names(&disk).unwrap().last() == Some(&name);
        // Nothing beside the last segment knows that it was there; the offsets it had are in no other file.
        assert!(opened.is_err() || is_last_segment, "{number} {name}");
    }
}

/// `fixtures/format-1` was written by the first version: three full segments with their indexes and one being written,
/// 27 records of which the first two are trimmed.
#[test]
fn a_log_of_format_1_opens() {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/format-1");
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&fixture).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    assert!(crate::check(dir.path()).unwrap().notes.is_empty());
    let disk = crate::disk::DataDir::open(dir.path()).unwrap();
    let view = View::open(Arc::new(disk), SETTINGS).unwrap();
    let offsets: Vec<u64> =
        read_all(&view).unwrap().iter().map(|record| record.offset.get()).collect();
    assert_eq!(offsets, (3..=27).collect::<Vec<_>>());
    assert_eq!(view.held().segments, 4);
}
