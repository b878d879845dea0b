//! The model judges the view: on a quiet disk, after every crash, after every failure, and with damaged bytes.

mod crash;
pub(crate) mod damage;
pub(crate) mod model;
mod seams;

use std::sync::Arc;

use herald_types::{Grant, HerId, HerIds, Offset, PageLimit, Receivers};
use rand::{RngExt as _, rngs::StdRng};

use self::model::Model;
use super::{View, ViewSettings};
use crate::{
    disk::{Access, memory::MemoryDisk},
    frame::{Batch, Prepared, tests::prepared},
    order::OrderError,
    page::{PageBounds, Record},
};

/// Small enough that a run of some dozen batches goes through several segments and falls off the recent memory.
const SETTINGS: ViewSettings =
    ViewSettings { segment_bytes: 3000, reserve_step_bytes: 512, recent_bytes: 4000 };
/// Receivers 1 to this many get notifications in these tests.
const RECEIVERS: u32 = 5;

pub(crate) fn open(disk: &MemoryDisk) -> View {
    View::open(Arc::new(disk.clone()), SETTINGS).unwrap()
}

fn receivers(numbers: impl IntoIterator<Item = u32>) -> Receivers {
    let her_ids = numbers.into_iter().map(|number| HerId::new(number).unwrap());
    Grant::everything().narrow(HerIds::new(her_ids).unwrap()).unwrap()
}

fn bounds(records: u16) -> PageBounds {
    PageBounds { records: PageLimit::new(records).unwrap(), bytes: usize::MAX }
}

/// All records that a reader of every receiver gets, page by page.
pub(crate) fn read_all(view: &View) -> Result<Vec<Record>, crate::ReadError> {
    let (everyone, mut after, mut records) = (receivers(1..=RECEIVERS), Offset::ZERO, Vec::new());
    loop {
        let page = view.read(&everyone, after, bounds(7), &mut records, Access::Disk)?;
        after = page.until();
        if !page.is_full() {
            return Ok(records);
        }
    }
}

/// A run of appends, trims and tidying that a seed decides.
pub(crate) struct Run {
    random: StdRng,
    next_id: u64,
    time_ms: u64,
}

impl Run {
    pub(crate) fn new(random: StdRng) -> Self {
        Self { random, next_id: 1, time_ms: 1_000_000 }
    }

    pub(crate) fn batch(&mut self, view: &View) -> Batch {
        let records = (0..self.random.random_range(1..4)).map(|_| self.record()).collect();
        self.batch_of(view, records)
    }

    fn record(&mut self) -> Prepared {
        self.next_id += 1;
        let text = "x".repeat(self.random.random_range(0..300));
        prepared(self.next_id, self.random.random_range(1..=RECEIVERS), &text)
    }

    fn batch_of(&mut self, view: &View, records: Vec<Prepared>) -> Batch {
        let marks = view.marks();
        let trim_point = match self.random.random_range(0..5) {
            0 => self.random.random_range(marks.trim_point..=marks.tail()),
            _ => marks.trim_point,
        };
        self.time_ms += self.random.random_range(0..1000);
        let (first_offset, time_ms) = (marks.next_offset, self.time_ms.max(marks.time_ms));
        Batch { id: self.random.random(), first_offset, trim_point, time_ms, records }
    }

    /// What happens beside the appends; failures are tried again by the next.
    fn tidy(&mut self, view: &View) {
        match self.random.random_range(0..4) {
            0 => drop(view.remove_trimmed()),
            1 => drop(view.seal(|| true)),
            2 => view.mark_end(),
            _ => drop(view.roll_if_older(self.time_ms.saturating_sub(3000))),
        }
    }
}

/// Commits a batch and tells the model.
fn commit(view: &View, model: &mut Model, batch: &Batch) -> Result<(), OrderError> {
    let frame = view.commit(batch)?;
    model.apply(&frame);
    Ok(())
}
