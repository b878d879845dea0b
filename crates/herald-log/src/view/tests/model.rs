//! The log in fifteen lines: a vector of (offset, receiver, body) and a filter. And the view held against it.

use std::sync::Arc;

use herald_types::{HerId, Offset};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::{RECEIVERS, Run, View, ViewSettings, bounds, commit, open, read_all, receivers};
use crate::{
    disk::{
        Access,
        memory::{Call, Failure, MemoryDisk},
    },
    frame::Frame,
    page::Record,
};

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) records: Vec<(HerId, Uuid, Record)>,
    pub(crate) trim_point: u64,
}

impl Model {
    pub(crate) fn apply(&mut self, frame: &Frame) {
        for at in &frame.records {
            let offset = Offset::new(at.offset).unwrap();
            let record = Record { offset, body: frame.bytes.slice(at.body_range()) };
            self.records.push((at.receiver, at.notification_id, record));
        }
        self.trim_point = frame.header.trim_point;
    }

    pub(crate) fn read(&self, receivers: &[HerId], after: u64) -> Vec<Record> {
        let after = after.max(self.trim_point);
        let wanted = |(receiver, _, record): &&(HerId, Uuid, Record)| {
            record.offset.get() > after && receivers.contains(receiver)
        };
        self.records.iter().filter(wanted).map(|(_, _, record)| record.clone()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Record> {
        self.read(receivers(1..=RECEIVERS).as_slice(), 0)
    }

    pub(crate) fn tail(&self) -> u64 {
        self.records.last().map_or(0, |(_, _, record)| record.offset.get())
    }
}

/// Holds every kind of read against the model.
fn compare(view: &View, model: &Model, who: &[u32], after: u64, limit: u16) {
    let who = receivers(who.iter().copied());
    let expected = model.read(who.as_slice(), after);
    let (after, mut records) = (Offset::new(after).unwrap(), Vec::new());
    let page = view.read(&who, after, bounds(limit), &mut records, Access::Disk).unwrap();
    let count = expected.len().min(limit.into());
    assert_eq!(records, expected[..count]);
    assert_eq!(page.len(), count);
    let until = if count == usize::from(limit) {
        expected[count - 1].offset.get()
    } else {
        model.tail().max(after.get())
    };
    assert_eq!(page.until().get(), until);
    let mut recent_records: Vec<Record> = Vec::new();
    let recent = view.with_recent(|recent| {
        recent.read(who.as_slice(), after, bounds(limit), &mut recent_records)
    });
    if let Some(recent) = recent {
        assert_eq!((recent, recent_records), (page, records));
    } else {
        assert!(!expected.is_empty(), "a read that finds nothing must not need the disk");
    }
    for (_, id, record) in &model.records {
        let found = view.find_id(*id).unwrap();
        let expected = Some(record).filter(|record| record.offset.get() > model.trim_point);
        assert_eq!(found.as_ref(), expected);
        assert!(found.is_none() || view.may_hold(&[*id])[0]);
    }
    assert_eq!(view.find_id(Uuid::from_u128(1)).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_view_agrees_with_the_model(
        seed: u64,
        steps in proptest::collection::vec((0..10_u8, 0..60_u64, 1..9_u16, 1..=RECEIVERS), 1..60),
    ) {
        let (disk, mut model) = (MemoryDisk::default(), Model::default());
        let (mut view, mut run) = (open(&disk), Run::new(StdRng::seed_from_u64(seed)));
        let history = view.history();
        for (step, after, limit, receiver) in steps {
            match step {
                0..=5 => {
                    let batch = run.batch(&view);
                    commit(&view, &mut model, &batch).unwrap();
                }
                6 => {
                    drop(view);
                    view = open(&disk.copy());
                    // The copy went on where the old disk was; go on with it.
                    drop(view);
                    view = open(&disk);
                }
                _ => run.tidy(&view),
            }
            compare(&view, &model, &[receiver], after, limit);
            compare(&view, &model, &[receiver, receiver % RECEIVERS + 1, 99], after, limit);
        }
        prop_assert_eq!(view.history(), history);
    }
}

#[test]
fn a_batch_costs_one_write_and_one_sync() {
    let disk = MemoryDisk::default();
    // With room reserved for many and no segment full.
    let view = View::open(Arc::new(disk.clone()), ViewSettings::default()).unwrap();
    let mut run = Run::new(StdRng::seed_from_u64(1));
    let batch = run.batch(&view);
    view.commit(&batch).unwrap();
    let before = disk.calls().len();
    for _ in 0..5 {
        let batch = run.batch(&view);
        view.commit(&batch).unwrap();
    }
    assert_eq!(disk.calls()[before..], [Call::Write, Call::Sync].repeat(5));
}

#[test]
fn offsets_go_on_when_everything_has_been_trimmed() {
    let disk = MemoryDisk::default();
    let (view, mut run) = (open(&disk), Run::new(StdRng::seed_from_u64(1)));
    for _ in 0..20 {
        let batch = run.batch(&view);
        view.commit(&batch).unwrap();
    }
    let mut batch = run.batch_of(&view, Vec::new());
    batch.trim_point = view.marks().tail();
    view.commit(&batch).unwrap();
    view.roll_if_older(u64::MAX).unwrap();
    assert!(view.remove_trimmed().unwrap() > 1);
    assert_eq!((view.held().segments, view.held().receivers), (1, 0));
    let tail = view.marks().tail();
    drop(view);
    let view = open(&disk);
    assert_eq!(view.marks().tail(), tail);
    let batch = run.batch(&view);
    let frame = view.commit(&batch).unwrap();
    assert_eq!(frame.header.first_offset, tail + 1);
}

#[test]
fn a_full_disk_lets_the_trim_point_move_even_after_a_restart() {
    let disk = MemoryDisk::default();
    let mut run = Run::new(StdRng::seed_from_u64(1));
    let view = open(&disk);
    let batch = run.batch(&view);
    view.commit(&batch).unwrap();
    view.close();
    let (kind, only) = (std::io::ErrorKind::StorageFull, Some(Call::Reserve));
    disk.fail(Some(Failure { at: 0, kind, for_ever: true, only }));
    let view = open(&disk);
    loop {
        let batch = run.batch(&view);
        if view.commit(&batch).is_err() {
            break;
        }
    }
    for _ in 0..3 {
        let mut trim = run.batch_of(&view, Vec::new());
        trim.trim_point = view.marks().tail();
        view.commit(&trim).unwrap();
    }
    assert!(read_all(&view).unwrap().is_empty());
}

#[test]
fn retention_finds_the_newest_offset_of_a_time() {
    let (view, mut run) = (open(&MemoryDisk::default()), Run::new(StdRng::seed_from_u64(1)));
    let mut ends = Vec::new();
    for number in 0..30_u64 {
        let mut batch = run.batch(&view);
        (batch.time_ms, batch.trim_point) = (10_000 + number * 1500, 0);
        ends.push((batch.time_ms, view.commit(&batch).unwrap().header.next_offset() - 1));
        if number == 20 {
            view.seal(|| true).unwrap();
        }
    }
    assert_eq!(view.offset_at(9_999).unwrap(), None);
    for (time_ms, offset) in ends {
        assert_eq!(view.offset_at(time_ms).unwrap(), Offset::new(offset));
        assert_eq!(view.offset_at(time_ms + 1499).unwrap(), Offset::new(offset));
    }
}
