//! Where two of the view's tasks meet: a lookup and a commit, a removal and its retry.

use std::io;

use rand::{SeedableRng as _, rngs::StdRng};

use super::{Run, open};
use crate::{
    check::check_disk,
    disk::memory::{Failure, MemoryDisk},
    frame::{Batch, tests::prepared},
};

#[test]
fn a_record_that_is_safe_but_not_yet_visible_is_not_found_by_its_id() {
    let disk = MemoryDisk::default();
    let (view, mut run) = (open(&disk), Run::new(StdRng::seed_from_u64(1)));
    let record = prepared(7, 1, "x");
    let id = record.notification_id;
    let batch = run.batch_of(&view, vec![record]);
    // What a commit does, up to the moment before the tail moves.
    let segment = view.written_segment();
    let position = view.marks().position;
    let frame = batch.encode(position.next(), position, segment.header.salt);
    let at = view.writer.lock().unwrap().end;
    segment.file.write_all_at(&frame.bytes, at).unwrap();
    segment.add(&frame.header, at, &frame.records);
    assert_eq!(view.may_hold(&[id]), [true]);
    assert_eq!(view.find_id(id).unwrap(), None, "no read shows it yet");
    let marks = view.marks().after(&frame.header).unwrap();
    view.recent.write().unwrap().add(&frame, marks);
    assert_eq!(view.find_id(id).unwrap().unwrap().offset.get(), 1);
}

#[test]
fn a_removal_that_failed_is_tried_again() {
    for only in 0..4 {
        let disk = MemoryDisk::default();
        let (view, mut run) = (open(&disk), Run::new(StdRng::seed_from_u64(2)));
        for _ in 0..4 {
            let records = vec![run.record()];
            view.commit(&run.batch_of(&view, records)).unwrap();
            run.time_ms += 1;
            view.roll_if_older(u64::MAX).unwrap();
        }
        view.seal(|| true).unwrap();
        let trim_point = view.marks().tail();
        let batch = Batch { trim_point, ..run.batch_of(&view, Vec::new()) };
        view.commit(&batch).unwrap();
        // Two files for each segment: now the one fails, now the other.
        let at = disk.calls().len() + only;
        let failure = Failure { at, kind: io::ErrorKind::Other, for_ever: true, only: None };
        disk.fail(Some(failure));
        view.remove_trimmed().unwrap_err();
        assert!(check_disk(&disk.copy()).is_ok(), "half removed is not damage");
        drop(open(&disk.copy()));
        disk.fail(None);
        view.remove_trimmed().unwrap();
        let left = crate::disk::Disk::list(&disk).unwrap();
        let left: Vec<_> = left.iter().filter(|name| *name != "header").collect();
        assert_eq!(left, [&view.written_segment().name], "after {only} removals");
    }
}
