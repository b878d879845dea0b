//! An engine that is filled from a view: what it has then, what becomes of a seeding that is cut short, and which replicas may go
//! on with it.

use std::time::Duration;

use bytes::Bytes;

use super::{
    cluster::{history_of, join, reaches, try_join},
    *,
};
use crate::{
    disk::Disk as _,
    frame::{Batch, Frame, tests::prepared},
    order::{
        Position,
        engine::{AppendFailure, Engine, EngineError, Entry, Forgettable, Identity, Look},
        memory::{MemoryEngine, MemoryFollow},
    },
    seed::fill,
    view::open::segment_names,
};

/// So far apart that no two frames are joined.
const APART_MS: u64 = 10_000;

/// A view's disk with one frame for each of `counts`, so many records in each, at `times` apart.
fn source(counts: &[usize], apart_ms: u64, trim_point: u64) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let view = View::open(Arc::new(disk.clone()), NO_MEMORY).unwrap();
    let last = counts.len() - 1;
    for (number, count) in counts.iter().enumerate() {
        let marks = view.marks();
        let records = (0..*count as u64).map(|at| {
            let number = marks.next_offset + at;
            prepared(number, 1 + (number % 4) as u32, &"x".repeat((number % 50) as usize))
        });
        let batch = Batch {
            id: rand::random(),
            first_offset: marks.next_offset,
            trim_point: if number == last { trim_point } else { 0 },
            time_ms: 1_000_000 + apart_ms * number as u64,
            records: records.collect(),
        };
        view.commit(&batch).unwrap();
    }
    view.close();
    disk
}

async fn seed_with<E: Engine>(
    disk: &MemoryDisk,
    engine: E,
    next_offset: Option<u64>,
) -> Result<Seeded, SeedError> {
    let next_offset = next_offset.map(|offset| Offset::new(offset).unwrap());
    fill(Arc::new(disk.clone()), engine, next_offset, |_| {}).await
}

async fn seed(disk: &MemoryDisk, engine: &MemoryEngine) -> Result<Seeded, SeedError> {
    seed_with(disk, engine.clone(), None).await
}

/// All that readers get of a log.
async fn all_of(log: &Log) -> Vec<Record> {
    let (mut all, mut after) = (Vec::new(), Offset::ZERO);
    loop {
        let (page, records) =
            log.read::<Vec<Record>>(&receivers(EVERYONE), after, PAGE).await.unwrap();
        (all, after) = ([all, records].concat(), page.until());
        if !page.is_full() {
            return all;
        }
    }
}

async fn all_in(disk: &MemoryDisk) -> Vec<Record> {
    let log = open(&disk.copy());
    let all = all_of(&log).await;
    log.close().await;
    all
}

fn history_in(disk: &MemoryDisk) -> Uuid {
    crate::view::open::Names::read(disk).unwrap().unwrap().history
}

fn frames(engine: &MemoryEngine) -> Vec<Frame> {
    let state = engine.log.state();
    let salt = state.identity.unwrap().salt;
    let frames = state.batches.iter().map(|entry| Frame::decode(entry.frame.clone(), salt));
    frames.map(|frame| frame.unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_seeded_log_has_the_views_history_offsets_and_bytes_and_goes_on_a_million_above() {
    let counts: Vec<usize> = (0..60).map(|number| 1 + number % 7).collect();
    let (disk, engine) = (source(&counts, APART_MS, 0), MemoryEngine::default());
    assert!(segment_names(&disk).unwrap().len() > 5);
    let (before, calls) = (all_in(&disk).await, disk.calls().len());
    let seeded = seed(&disk, &engine).await.unwrap();
    assert_eq!(disk.calls().len(), calls, "the directory was not changed");
    let tail = before.last().unwrap().offset.get();
    assert_eq!(seeded.history, history_in(&disk));
    assert_eq!((seeded.records, seeded.tail.get()), (before.len() as u64, tail));
    assert_eq!(seeded.next_offset.get(), tail + 1_000_000);
    let log = join(&engine).await;
    assert_eq!(log.history(), seeded.history);
    assert_eq!(all_of(&log).await, before);
    assert_eq!((log.tail().get(), log.trim_point().get()), (tail + 999_999, 0));
    assert_eq!(append_one(&log, draft(None, 1)).await.unwrap().offset.get(), tail + 1_000_000);
    let ids = prepared(1, 2, "x").notification_id.as_u128();
    let again = log.append(vec![draft(Some(ids), 2)], NOW).await;
    assert!(
        matches!(again, Err(AppendError::ContentDiffers { .. })),
        "the ids came along: {again:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_log_goes_on_at_an_offset_above_the_tail_and_up_to_half_of_all() {
    let disk = source(&[3], 0, 0);
    const HALF: u64 = 1 << 62;
    for (next_offset, is_taken) in [(3, false), (4, true), (HALF, true), (HALF + 1, false)] {
        let engine = MemoryEngine::default();
        let seeded = seed_with(&disk, engine.clone(), Some(next_offset)).await;
        match seeded {
            Ok(seeded) => {
                assert!(is_taken);
                assert_eq!(seeded.next_offset.get(), next_offset);
                let log = join(&engine).await;
                for offset in next_offset..next_offset + 3 {
                    let appended = append_one(&log, draft(None, 1)).await.unwrap();
                    assert_eq!(appended.offset.get(), offset);
                }
                assert_eq!(all_of(&log).await.len(), 6);
            }
            Err(SeedError::NextOffset { asked, least: 4, most: HALF }) => {
                assert!(!is_taken && asked == next_offset);
                assert!(engine.log.state().identity.is_none());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn small_frames_near_in_time_are_joined_and_no_time_moves_by_three_seconds() {
    const COUNT: usize = 3000;
    for (apart_ms, batches) in [(0, 1), (1, 1), (1000, COUNT / 3), (2999, COUNT / 2), (3000, COUNT)]
    {
        let disk = source(&vec![1; COUNT], apart_ms, 0);
        let engine = MemoryEngine::default();
        seed(&disk, &engine).await.unwrap();
        let frames = frames(&engine);
        assert_eq!(frames.len(), batches + 1, "{apart_ms} ms apart");
        for record in frames.iter().flat_map(|frame| {
            frame.records.iter().map(|record| (record.offset, frame.header.time_ms))
        }) {
            let (offset, time_ms) = record;
            let own = 1_000_000 + apart_ms * (offset - 1);
            assert!((own..own + 3000).contains(&time_ms));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_has_at_most_a_mebibyte() {
    let disk = MemoryDisk::default();
    let view = View::open(Arc::new(disk.clone()), ViewSettings::default()).unwrap();
    let long = "\0".repeat(herald_types::DESCRIPTION_CHARS_MAX);
    let records = (1..=900).map(|number| prepared(number, 1, &long)).collect();
    let batch = Batch { id: 1, first_offset: 1, trim_point: 0, time_ms: 1, records };
    view.commit(&batch).unwrap();
    view.close();
    let engine = MemoryEngine::default();
    seed(&disk, &engine).await.unwrap();
    let frames = frames(&engine);
    let longest = frames.iter().map(|frame| frame.bytes.len()).max().unwrap();
    assert!(longest <= 1 << 20 && longest > (1 << 20) - 8000, "{longest}");
    assert_eq!(all_of(&join(&engine).await).await, all_in(&disk).await);
}

/// An engine whose client does not live to hear of one append.
#[derive(Clone)]
struct Killed {
    engine: MemoryEngine,
    /// Counts down; the append at 0 is the last.
    left: Arc<AtomicU64>,
    how: Kill,
    late: Arc<Mutex<Option<Entry>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Before,
    After,
    /// It is stored when the next client appends.
    Late,
}

impl Engine for Killed {
    type Follow = MemoryFollow;

    fn address(&self) -> String {
        self.engine.address()
    }

    async fn look(&self) -> Result<Option<Look>, EngineError> {
        self.engine.look().await
    }

    async fn create(&self, identity: &Identity) -> Result<(), EngineError> {
        self.engine.create(identity).await
    }

    async fn seeded(&self, identity: &Identity) -> Result<(), EngineError> {
        self.engine.seeded(identity).await
    }

    async fn append(&self, entry: &Entry) -> Result<(), AppendFailure> {
        let late = self.late.lock().unwrap().take();
        if let Some(late) = late {
            self.engine.append(&late).await?;
        }
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return self.engine.append(entry).await;
        }
        match self.how {
            Kill::Before => {}
            Kill::After => self.engine.append(entry).await?,
            Kill::Late => *self.late.lock().unwrap() = Some(entry.clone()),
        }
        Err(AppendFailure::Refused("killed".into()))
    }

    async fn follow(&self, from: Position) -> Result<MemoryFollow, EngineError> {
        self.engine.follow(from).await
    }

    async fn read(&self, position: Position) -> Result<Option<Bytes>, EngineError> {
        self.engine.read(position).await
    }

    async fn forget(&self, what: Forgettable) -> Result<(), EngineError> {
        self.engine.forget(what).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_seeding_that_is_cut_short_at_any_append_is_finished_by_the_next() {
    const FRAMES: usize = 12;
    let disk = source(&[2; FRAMES], APART_MS, 3);
    let before = all_in(&disk).await;
    for how in [Kill::Before, Kill::After, Kill::Late] {
        // One more than there are frames: the last one ends the seed. The first is below the trim point.
        for at in 0..FRAMES as u64 {
            let engine = MemoryEngine::default();
            let (left, late) = (Arc::new(AtomicU64::new(at)), Arc::default());
            let killed = Killed { engine: engine.clone(), left, how, late };
            let first = seed_with(&disk, killed.clone(), None).await;
            assert!(matches!(first, Err(SeedError::Refused(_))), "{how:?} {at}: {first:?}");
            assert!(engine.log.state().identity.unwrap().is_seeding);
            killed.left.store(u64::MAX, Ordering::Relaxed);
            let seeded = seed_with(&disk, killed, None).await.unwrap();
            assert_eq!(seeded.records, before.len() as u64);
            let expected: Vec<_> = (4..=24).collect();
            let offsets: Vec<_> = frames(&engine)
                .iter()
                .flat_map(|frame| frame.records.clone())
                .map(|record| record.offset)
                .collect();
            assert_eq!(offsets, expected, "{how:?} {at}");
            let log = join(&engine).await;
            assert_eq!(all_of(&log).await, before, "{how:?} {at}");
            assert_eq!(log.trim_point().get(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_are_found_in_the_engine() {
    let (disk, engine) = (source(&[2; 9], APART_MS, 0), MemoryEngine::default());
    engine.loses_answers.store(true, Ordering::Relaxed);
    seed(&disk, &engine).await.unwrap();
    engine.loses_answers.store(false, Ordering::Relaxed);
    assert_eq!(frames(&engine).len(), 10);
    assert_eq!(all_of(&join(&engine).await).await, all_in(&disk).await);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_asked_for_a_while_and_the_next_seeding_goes_on() {
    let (disk, engine) = (source(&[2; 9], APART_MS, 0), MemoryEngine::default());
    engine.is_away.store(true, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    let gave_up = seed(&disk, &engine).await.unwrap_err();
    assert!(matches!(gave_up, SeedError::Away { .. }) && gave_up.is_retryable(), "{gave_up:?}");
    assert!((30..35).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

    let back = tokio::spawn({
        let engine = engine.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(29)).await;
            engine.is_away.store(false, Ordering::Relaxed);
        }
    });
    let mut steps = Vec::new();
    let seeded = fill(Arc::new(disk.clone()), engine.clone(), None, |progress| {
        if steps.last() != Some(&progress.step) {
            steps.push(progress.step);
        }
    });
    seeded.await.unwrap();
    back.await.unwrap();
    use SeedStep::{Checking, Comparing, EngineAway, Filling};
    assert_eq!(steps, [Checking, EngineAway, Filling, Comparing]);
    assert_eq!(all_of(&join(&engine).await).await, all_in(&disk).await);
}

#[tokio::test(start_paused = true)]
async fn only_an_empty_engine_is_seeded() {
    let disk = source(&[2; 3], APART_MS, 0);
    let said = async |engine: &MemoryEngine| match seed(&disk, engine).await {
        Err(error @ SeedError::Taken { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    // A log of another history, without a notification, then with one.
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    let history = log.history().to_string();
    let text = said(&engine).await;
    assert!(text.contains(&history) && text.contains("up to position 0"), "{text}");
    append_one(&log, draft(None, 1)).await.unwrap();
    let text = said(&engine).await;
    assert!(text.contains(&history) && text.contains("up to position 1"), "{text}");
    assert_eq!(engine.log.state().newest(), Position(1));

    // The seed of another view.
    let engine = MemoryEngine::default();
    let other = source(&[5], 0, 0);
    let killed = Killed {
        engine: engine.clone(),
        left: Arc::new(AtomicU64::new(1)),
        how: Kill::Before,
        late: Arc::default(),
    };
    seed_with(&other, killed, None).await.unwrap_err();
    assert!(said(&engine).await.contains("another one"));

    // The log that the directory is a copy of.
    let (engine, copy) = (MemoryEngine::default(), MemoryDisk::default());
    let log = try_join(&engine, &copy).await.unwrap();
    append_one(&log, draft(None, 1)).await.unwrap();
    log.close().await;
    let text = seed(&copy, &engine).await.unwrap_err().to_string();
    assert!(text.contains("the directory is a copy of it"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_seeding_that_is_done_may_be_asked_for_again() {
    let (disk, engine) = (source(&[2; 3], APART_MS, 0), MemoryEngine::default());
    let seeded = seed(&disk, &engine).await.unwrap();
    assert_eq!(seed(&disk, &engine).await.unwrap(), seeded);
    let log = join(&engine).await;
    append_one(&log, draft(None, 1)).await.unwrap();
    let newest = engine.log.state().newest();
    assert_eq!(seed(&disk, &engine).await.unwrap(), seeded);
    assert_eq!(engine.log.state().newest(), newest, "nothing was written");
    let elsewhere = seed_with(&disk, engine.clone(), Some(7)).await.unwrap_err();
    assert!(elsewhere.to_string().contains("it goes on at offset 1000006"), "{elsewhere}");
    // A view that has gone on is another one.
    let view = View::open(Arc::new(disk.clone()), NO_MEMORY).unwrap();
    let batch = Batch {
        id: 1,
        first_offset: 7,
        trim_point: 0,
        time_ms: u64::MAX / 2,
        records: vec![prepared(7, 1, "x")],
    };
    view.commit(&batch).unwrap();
    view.close();
    assert!(matches!(seed(&disk, &engine).await, Err(SeedError::Taken { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_view_with_a_torn_end_and_leftovers_is_seeded_and_not_mended() {
    let disk = source(&[2; 3], APART_MS, 0);
    let before = all_in(&disk).await;
    let names = segment_names(&disk).unwrap();
    disk.edit(names.last().unwrap(), |bytes| *bytes.last_mut().unwrap() = 1);
    disk.create("x.index.new").unwrap();
    let calls = disk.calls().len();
    let engine = MemoryEngine::default();
    assert_eq!(seed(&disk, &engine).await.unwrap().tail, before.last().unwrap().offset);
    assert_eq!(disk.calls().len(), calls);
    assert_eq!(all_of(&join(&engine).await).await, before);
}

#[tokio::test(start_paused = true)]
async fn of_a_damaged_view_nothing_is_written() {
    let disk = source(&[4; 30], APART_MS, 0);
    let names = segment_names(&disk).unwrap();
    for name in [&names[0], &names[1], "header"] {
        let damaged = disk.copy();
        damaged.edit(name, |bytes| bytes[40] ^= 1);
        let engine = MemoryEngine::default();
        let refused = seed(&damaged, &engine).await;
        assert!(matches!(refused, Err(SeedError::Source(_))), "{name}: {refused:?}");
        assert!(engine.log.state().identity.is_none());
    }
    let holed = disk.copy();
    holed.remove(&names[1]).unwrap();
    let refused = seed(&holed, &MemoryEngine::default()).await;
    assert!(matches!(refused, Err(SeedError::Source(_))), "{refused:?}");
    let nothing = seed(&MemoryDisk::default(), &MemoryEngine::default()).await;
    assert!(matches!(nothing, Err(SeedError::Source(_))), "{nothing:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_trimmed_does_not_come_along_and_stays_trimmed() {
    // Between two frames, within one, and all.
    for trim_point in [6, 7, 30] {
        let (disk, engine) = (source(&[3; 10], APART_MS, trim_point), MemoryEngine::default());
        let seeded = seed(&disk, &engine).await.unwrap();
        assert_eq!(seeded.records, 30 - trim_point);
        let first = frames(&engine).remove(0).header.first_offset;
        let log = join(&engine).await;
        assert_eq!(all_of(&log).await, all_in(&disk).await);
        assert_eq!(log.trim_point().get(), first - 1);
        let expected = if trim_point == 30 { 1_000_029 } else { trim_point };
        assert_eq!(log.trim_point().get(), expected);
        assert_eq!(append_one(&log, draft(None, 1)).await.unwrap().offset.get(), 1_000_030);
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_that_never_held_a_notification_is_seeded() {
    let disk = MemoryDisk::default();
    open(&disk).close().await;
    let engine = MemoryEngine::default();
    let seeded = seed(&disk, &engine).await.unwrap();
    assert_eq!((seeded.records, seeded.tail.get()), (0, 0));
    let log = join(&engine).await;
    assert_eq!(log.history(), history_in(&disk));
    assert_eq!(append_one(&log, draft(None, 1)).await.unwrap().offset.get(), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_log_moves_again_and_again_with_its_jumps() {
    const FAR: u64 = 1 << 40;
    let first = source(&[2; 3], APART_MS, 0);
    let history = history_in(&first);
    let engine = MemoryEngine::default();
    seed_with(&first, engine.clone(), Some(FAR)).await.unwrap();
    // Moved at once, then with something behind the jump.
    let (mut disk, mut tail) = (MemoryDisk::default(), FAR - 1);
    try_join(&engine, &disk).await.unwrap().close().await;
    for round in 0..3 {
        let engine = MemoryEngine::default();
        let before = all_in_copy(&disk).await;
        let seeded = seed(&disk, &engine).await.unwrap();
        assert_eq!((seeded.tail.get(), seeded.records), (tail, before.len() as u64), "{round}");
        disk = MemoryDisk::default();
        let log = try_join(&engine, &disk).await.unwrap();
        assert_eq!(all_of(&log).await, before, "{round}");
        assert_eq!(log.history(), history);
        tail = append_one(&log, draft(None, 1)).await.unwrap().offset.get();
        assert_eq!(tail, seeded.next_offset.get());
        log.close().await;
        // And a restart reads its own files.
        let log = try_join(&engine, &disk).await.unwrap();
        assert_eq!(all_of(&log).await.len(), before.len() + 1);
        log.close().await;
    }
}

/// All that readers get of a replica's copy.
async fn all_in_copy(disk: &MemoryDisk) -> Vec<Record> {
    let alone = disk.copy();
    alone.remove("follows").unwrap();
    all_in(&alone).await
}

#[tokio::test(start_paused = true)]
async fn a_jump_grows_old_with_what_is_before_it() {
    let (first, engine) = (source(&[2; 3], APART_MS, 0), MemoryEngine::default());
    let seeded = seed(&first, &engine).await.unwrap();
    let disk = MemoryDisk::default();
    try_join(&engine, &disk).await.unwrap().close().await;
    let view = View::open(Arc::new(disk.clone()), NO_MEMORY).unwrap();
    let oldest = view.offset_at(1_000_000 + APART_MS).unwrap().unwrap();
    assert_eq!(oldest.get(), 4);
    let all = view.offset_at(1_000_000 + 2 * APART_MS).unwrap().unwrap();
    assert_eq!(all.get(), seeded.next_offset.get() - 1);
    view.close();

    // When all of it has aged out and is forgotten, a fresh replica finds a log that it can begin with.
    let log = join(&engine.another()).await;
    log.0.sequencer.trim(all).await;
    append_one(&log, draft(None, 1)).await.unwrap();
    let log_id = engine.log.state().identity.unwrap().log_id;
    let everything = Forgettable { log_id, trim_point: all.get(), before_ms: u64::MAX };
    engine.forget(everything).await.unwrap();
    let fresh = join(&engine.another()).await;
    assert_eq!(offsets_after(&fresh, Offset::ZERO).await, [seeded.next_offset.get()]);
}

#[tokio::test(start_paused = true)]
async fn replicas_of_the_old_log_go_on_with_the_new_one() {
    let old = MemoryEngine::default();
    let (disks, mut logs) = ([MemoryDisk::default(), MemoryDisk::default()], Vec::new());
    for disk in &disks {
        logs.push(try_join(&old, disk).await.unwrap());
    }
    for _ in 0..5 {
        append_one(&logs[0], draft(None, 1)).await.unwrap();
    }
    let tail = logs[0].tail().get();
    // The other one was stopped early, so it is behind.
    logs.remove(1).close().await;
    for _ in 0..5 {
        append_one(&logs[0], draft(None, 1)).await.unwrap();
    }
    logs.remove(0).close().await;
    let before = all_in_copy(&disks[0]).await;
    assert!(before.len() == 10 && tail == 5);

    let new = MemoryEngine::default();
    seed(&disks[0], &new).await.unwrap();
    for disk in &disks {
        let log = try_join(&new, disk).await.unwrap();
        assert_eq!(all_of(&log).await[..10], before);
        append_one(&log, draft(None, 1)).await.unwrap();
        log.close().await;
    }
    assert!(
        history_of(try_join(&old, &disks[0]).await).contains("offset 1000010"),
        "there is no way back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_shown_more_than_the_seed_is_refused() {
    let old = MemoryEngine::default();
    let (behind, ahead) = (MemoryDisk::default(), MemoryDisk::default());
    let logs = [try_join(&old, &behind).await.unwrap(), try_join(&old, &ahead).await.unwrap()];
    for _ in 0..5 {
        append_one(&logs[1], draft(None, 1)).await.unwrap();
    }
    reaches(&logs[0], 5).await;
    logs[0].close().await;
    append_one(&logs[1], draft(None, 1)).await.unwrap();
    logs[1].close().await;

    // With the jump, right behind the tail, and there with something else at that offset.
    for (next_offset, appends) in [(None, 0), (None, 3), (Some(6), 0), (Some(6), 1), (Some(6), 9)] {
        let new = MemoryEngine::default();
        seed_with(&behind, new.clone(), next_offset).await.unwrap();
        let log = join(&new.another()).await;
        for _ in 0..appends {
            append_one(&log, draft(None, 2)).await.unwrap();
        }
        log.close().await;
        let said = history_of(try_join(&new, &ahead.copy()).await);
        assert!(said.contains("offset 6"), "{next_offset:?} {appends}: {said}");
        try_join(&new, &behind.copy()).await.unwrap().close().await;
    }
    // Seeded from the one that has all.
    let new = MemoryEngine::default();
    seed(&ahead, &new).await.unwrap();
    for disk in [&ahead, &behind] {
        assert_eq!(all_of(&try_join(&new, disk).await.unwrap()).await.len(), 6);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_has_shown_and_retention_has_removed_since_is_not_missed() {
    let old = MemoryEngine::default();
    let (disk, late) = (MemoryDisk::default(), MemoryDisk::default());
    let log = try_join(&old, &disk).await.unwrap();
    append_one(&log, draft(None, 1)).await.unwrap();
    let other = try_join(&old, &late).await.unwrap();
    other.close().await;
    for _ in 0..3 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    log.0.sequencer.trim(Offset::new(2).unwrap()).await;
    log.close().await;
    let new = MemoryEngine::default();
    seed(&disk, &new).await.unwrap();
    let log = try_join(&new, &late).await.unwrap();
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn no_replica_follows_a_log_before_it_is_seeded() {
    let (disk, engine) = (source(&[2; 4], APART_MS, 0), MemoryEngine::default());
    let killed = Killed {
        engine: engine.clone(),
        left: Arc::new(AtomicU64::new(2)),
        how: Kill::Before,
        late: Arc::default(),
    };
    seed_with(&disk, killed, None).await.unwrap_err();
    let replica = tokio::spawn({
        let engine = engine.another();
        async move { all_of(&join(&engine).await).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!replica.is_finished());
    seed(&disk, &engine).await.unwrap();
    assert_eq!(replica.await.unwrap(), all_in(&disk).await);
}
