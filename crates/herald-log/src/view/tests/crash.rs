//! Every crash image of long random runs opens and agrees with the model, and so does every run with a failing call.

use std::io;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Run, View, commit, model::Model, open, read_all};
use crate::{
    check::check_disk,
    disk::{
        Disk as _,
        memory::{Failure, MemoryDisk},
    },
    order::OrderError,
    view::open::HEADER_FILE,
};

/// What the run knew at each of its acknowledgements, and the batch that was under way behind it.
struct Promises {
    /// After each acknowledged batch; the first is the empty log.
    acknowledged: Vec<Model>,
}

impl Promises {
    /// The view shows all that was acknowledged, and beyond at most the batch under way, whole.
    fn check(&self, view: &View, acknowledged: usize, seed: u64) {
        let shown = read_all(view).unwrap();
        let next = self.acknowledged.get(acknowledged + 1);
        let holds = |model: &Model| shown == model.all() && view.marks().tail() >= model.tail();
        assert!(
            holds(&self.acknowledged[acknowledged]) || next.is_some_and(holds),
            "seed {seed}: {acknowledged} batches acknowledged, {} records shown",
            shown.len()
        );
        assert!(view.marks().tail() >= self.acknowledged[acknowledged].tail(), "seed {seed}");
    }
}

/// Appends and tidies; stops at the first failure after which nothing may be written.
fn work(disk: &MemoryDisk, run: &mut Run, steps: usize) -> Promises {
    let mut model = Model::default();
    let mut promises = Promises { acknowledged: vec![model.clone()] };
    let Ok(mut view) = View::open(std::sync::Arc::new(disk.clone()), super::SETTINGS) else {
        return promises;
    };
    for _ in 0..steps {
        match run.random.random_range(0..10) {
            0..=6 => {
                let batch = run.batch(&view);
                match commit(&view, &mut model, &batch) {
                    Ok(()) => {
                        promises.acknowledged.push(model.clone());
                        disk.note(promises.acknowledged.len() - 1);
                    }
                    Err(OrderError::Refused(_)) => {}
                    Err(OrderError::Unknown(_)) => {
                        // It may still appear.
                        let mut maybe = model.clone();
                        let (position, salt) = (view.marks().position, 0);
                        maybe.apply(&batch.encode(position.next(), position, salt));
                        promises.acknowledged.push(maybe);
                        assert!(view.is_poisoned());
                        assert!(matches!(view.commit(&batch), Err(OrderError::Poisoned)));
                        break;
                    }
                    Err(OrderError::Poisoned) => break,
                    Err(other) => panic!("a single node has no others: {other}"),
                }
            }
            7 => {
                drop(view);
                let Ok(opened) = View::open(std::sync::Arc::new(disk.clone()), super::SETTINGS)
                else {
                    break;
                };
                view = opened;
            }
            _ => run.tidy(&view),
        }
    }
    promises
}

/// What a start opens without loss, a check calls sound; before the first start has ended there is no log.
fn check_tells_the_truth(disk: &MemoryDisk, seed: u64) {
    let checked = check_disk(disk);
    let begun = disk.list().unwrap().iter().any(|name| name == HEADER_FILE);
    assert_eq!(checked.is_ok(), begun, "seed {seed}: {checked:?}");
    let Ok(report) = checked else { return };
    let marks = open(&disk.copy()).marks();
    assert_eq!((report.tail.get(), report.trim_point.get()), (marks.tail(), marks.trim_point));
}

#[test]
fn every_crash_image_of_long_runs_opens_and_agrees_with_the_model() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let (disk, mut run) = (MemoryDisk::default(), Run::new(StdRng::seed_from_u64(seed)));
        disk.take_images();
        let promises = work(&disk, &mut run, 60);
        for image in disk.images() {
            let mut disks = vec![image.after_kill()];
            disks.extend((0..4).map(|_| image.after_power_cut(&mut random)));
            for disk in disks {
                check_tells_the_truth(&disk, seed);
                let view = open(&disk);
                promises.check(&view, image.noted, seed);
                // What was shown once stays, through another cut before anything else is written.
                let shown = read_all(&view).unwrap();
                let again = open(&disk.after_power_cut(&mut random));
                assert!(read_all(&again).unwrap() == shown, "seed {seed}");
                // And the log goes on behind it.
                let batch = run.batch(&again);
                let frame = again.commit(&batch).unwrap();
                assert!(frame.header.first_offset > promises.acknowledged[image.noted].tail());
            }
        }
    }
}

#[test]
fn a_failure_at_any_call_loses_nothing_acknowledged() {
    for seed in 0..4 {
        let dry = MemoryDisk::default();
        work(&dry, &mut Run::new(StdRng::seed_from_u64(seed)), 40);
        let mut random = StdRng::seed_from_u64(seed);
        for at in 0..dry.calls().len() {
            for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
                for for_ever in [false, true] {
                    let disk = MemoryDisk::default();
                    disk.fail(Some(Failure { at, kind, for_ever, only: None }));
                    let mut run = Run::new(StdRng::seed_from_u64(seed));
                    let promises = work(&disk, &mut run, 40);
                    disk.fail(None);
                    let last = promises.acknowledged.len() - 1;
                    for disk in [disk.copy(), disk.after_power_cut(&mut random)] {
                        let view = open(&disk);
                        let shown = read_all(&view).unwrap();
                        let holds = |model: &Model| shown == model.all();
                        // The last one may be a batch whose outcome is unknown.
                        let settled = &promises.acknowledged[last.saturating_sub(1)..=last];
                        assert!(
                            settled.iter().any(holds),
                            "seed {seed}, call {at} {kind} {for_ever}"
                        );
                        // After a failed sync the page cache shows what the disk lacks: shown is safe all the same.
                        let view = open(&disk.after_power_cut(&mut random));
                        assert_eq!(
                            read_all(&view).unwrap(),
                            shown,
                            "seed {seed}, call {at} {kind} {for_ever}"
                        );
                        let batch = run.batch(&view);
                        view.commit(&batch).unwrap();
                    }
                }
            }
        }
    }
}
