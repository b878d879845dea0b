//! Several replicas on one engine in memory: what they do when others come first, when answers are lost, and when the
//! engine's log is not the one they know.

use std::time::Duration;

use futures_util::{FutureExt as _, future::join_all};

use super::*;
use crate::order::{Position, join::Joining, memory::MemoryEngine};

pub(super) async fn try_join(engine: &MemoryEngine, disk: &MemoryDisk) -> Result<Log, JoinError> {
    loop {
        let joining = Joining {
            disk: Arc::new(disk.clone()),
            engine: Arc::new(engine.clone()),
            view_settings: ViewSettings::default(),
            settings: LogSettings { retention: None },
            own_clock: Arc::new(|| 0),
            progress: Progress::default(),
        };
        if let Some(log) = joining.join().await? {
            return Ok(log);
        }
    }
}

pub(super) async fn join(engine: &MemoryEngine) -> Log {
    try_join(engine, &MemoryDisk::default()).await.unwrap()
}

/// Waits until a replica has followed to `tail`.
pub(super) async fn reaches(log: &Log, tail: u64) {
    while log.tail().get() < tail {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_show_the_same_and_number_without_gap_or_repeat() {
    let engine = MemoryEngine::default();
    let logs = [join(&engine).await, join(&engine.another()).await, join(&engine.another()).await];
    let appends = (0..300_u32)
        .map(|number| append_one(&logs[number as usize % 3], draft(None, 1 + number % 4)));
    let mut offsets: Vec<u64> = join_all(appends)
        .await
        .into_iter()
        .map(|appended| appended.unwrap().offset.get())
        .collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (1..=300).collect::<Vec<_>>());
    for log in &logs {
        reaches(log, 300).await;
        assert_eq!(offsets_after(log, Offset::ZERO).await, offsets);
        assert_eq!(log.history(), logs[0].history());
    }
}

#[tokio::test(start_paused = true)]
async fn one_id_on_many_replicas_at_once_is_stored_once_and_other_content_is_refused() {
    let engine = MemoryEngine::default();
    let logs = [join(&engine).await, join(&engine.another()).await, join(&engine.another()).await];
    for round in 0..50_u32 {
        // The same id everywhere, on every second replica with another receiver.
        let appends = (0..6_u32).map(|at| {
            let log = &logs[at as usize % 3];
            log.append(vec![draft(Some(round.into()), 1 + at % 2), draft(None, 3)], NOW)
        });
        let answers = join_all(appends).await;
        let stored: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(stored.len(), 3, "those with the first one's content");
        let first = stored.iter().filter(|answer| !answer[0].duplicate).count();
        assert_eq!(first, 1);
        assert!(stored.iter().all(|answer| answer[0].offset == stored[0][0].offset));
        let refused = answers.iter().filter(|answer| {
            matches!(answer, Err(AppendError::ContentDiffers { drafts }) if drafts[0].0 == 0)
        });
        assert_eq!(refused.count(), 3);
    }
    let tail = logs.iter().map(|log| log.tail().get()).max().unwrap();
    assert_eq!(tail, 50 * 4, "nothing of a refused request is stored");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_resolved_by_what_stands_at_the_position() {
    let engine = MemoryEngine::default();
    let (log, other) = (join(&engine).await, join(&engine.another()).await);
    engine.loses_answers.store(true, Ordering::Relaxed);
    for number in 1..=20 {
        assert_eq!(append_one(&log, draft(None, 1)).await.unwrap().offset.get(), number);
    }
    reaches(&other, 20).await;
    assert_eq!(offsets_after(&other, Offset::ZERO).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_said_within_ten_seconds_and_it_heals_by_itself() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    append_one(&log, draft(Some(1), 1)).await.unwrap();
    engine.is_away.store(true, Ordering::Relaxed);
    let began = tokio::time::Instant::now();
    let appends = (2..100).map(|id| append_one(&log, draft(Some(id), 1)));
    let answers = join_all(appends).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(matches!(answers[0], Err(AppendError::Unknown(_))));
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Err(AppendError::Unknown(_) | AppendError::EngineAway)))
    );
    assert!(matches!(append_one(&log, draft(None, 1)).await, Err(AppendError::EngineAway)));
    assert_eq!(log.condition(), Condition::Away);
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1], "reads go on");
    let lag = log.shared().unwrap().lag();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(log.shared().unwrap().lag() >= lag + 9, "the lag grows");

    engine.is_away.store(false, Ordering::Relaxed);
    while log.condition() != Condition::Fine {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // To repeat with the same ids is safe, whatever became of the first try.
    let again = join_all((1..100).map(|id| append_one(&log, draft(Some(id), 1)))).await;
    let mut offsets: Vec<u64> =
        again.into_iter().map(|answer| answer.unwrap().offset.get()).collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), 99);
    assert_eq!(offsets_after(&log, Offset::ZERO).await.len(), 99);
    assert_eq!(log.shared().unwrap().lag(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_an_older_batch_is_answered_within_ten_seconds_as_well() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    engine.is_away.store(true, Ordering::Relaxed);
    let first = async {
        let answer = append_one(&log, draft(Some(1), 1)).await;
        engine.is_away.store(true, Ordering::Relaxed);
        answer
    };
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = tokio::time::Instant::now();
        let answer = append_one(&log, draft(Some(2), 1)).await;
        (answer, began.elapsed())
    };
    let back_for_the_first = async {
        tokio::time::sleep(Duration::from_millis(5500)).await;
        engine.is_away.store(false, Ordering::Relaxed);
    };
    let (first, (second, took), ()) = tokio::join!(first, second, back_for_the_first);
    assert_eq!(first.unwrap().offset.get(), 1);
    assert!(matches!(second, Err(AppendError::Unknown(_))), "{second:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_view_ends() {
    let engine = MemoryEngine::default();
    let disk = MemoryDisk::default();
    let log = try_join(&engine, &disk).await.unwrap();
    append_one(&log, draft(None, 1)).await.unwrap();
    log.close().await;
    let other = join(&engine.another()).await;
    append_one(&other, draft(None, 1)).await.unwrap();
    let log = try_join(&engine, &disk).await.unwrap();
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1, 2]);
    assert_eq!(append_one(&log, draft(None, 1)).await.unwrap().offset.get(), 3);
}

pub(super) fn history_of(joined: Result<Log, JoinError>) -> String {
    match joined {
        Err(error @ JoinError::History(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn another_log_a_lost_one_and_one_that_fell_back_are_refused_at_the_start() {
    let engine = MemoryEngine::default();
    let disk = MemoryDisk::default();
    let log = try_join(&engine, &disk).await.unwrap();
    for _ in 0..3 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    log.close().await;
    let whole = engine.log.state().clone();

    engine.log.change(|state| drop(state.batches.pop()));
    let said = history_of(try_join(&engine, &disk).await);
    assert!(said.contains("history") && said.contains("position 2"), "{said}");

    // It has lost the last one, and somebody else has appended another.
    let other = join(&engine.another()).await;
    append_one(&other, draft(None, 2)).await.unwrap();
    other.close().await;
    assert!(history_of(try_join(&engine, &disk).await).contains("another batch at position 3"));

    engine.log.change(|state| *state = crate::order::memory::State::default());
    assert!(history_of(try_join(&engine, &disk).await).contains("has no log"));
    let other = join(&engine.another()).await;
    append_one(&other, draft(None, 2)).await.unwrap();
    other.close().await;
    assert!(
        history_of(try_join(&engine, &disk).await).contains("the engine's log has the history")
    );

    engine.log.change(|state| *state = whole.clone());
    engine.log.change(|state| {
        state.forgotten = state.newest().0;
        state.batches.clear();
    });
    assert!(history_of(try_join(&engine, &disk).await).contains("nothing of it is left"));

    engine.log.change(|state| *state = whole);
    let log = try_join(&engine, &disk).await.unwrap();
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_loses_what_it_acknowledged_is_noticed_while_running() {
    for loses_and_goes_on in [false, true] {
        let engine = MemoryEngine::default();
        let (log, other) = (join(&engine).await, join(&engine.another()).await);
        for _ in 0..3 {
            append_one(&log, draft(None, 1)).await.unwrap();
        }
        reaches(&other, 3).await;
        engine.log.change(|state| drop(state.batches.pop()));
        if loses_and_goes_on {
            // A fresh replica knows nothing of what was lost.
            let fresh = join(&engine.another()).await;
            append_one(&fresh, draft(None, 2)).await.unwrap();
            append_one(&fresh, draft(None, 2)).await.unwrap();
        }
        let appended = append_one(&log, draft(None, 1)).await;
        assert!(appended.is_err(), "{appended:?}");
        for log in [&log, &other] {
            while !matches!(log.condition(), Condition::Refused(_)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(matches!(
                append_one(log, draft(None, 1)).await,
                Err(AppendError::OtherHistory)
            ));
            assert_eq!(offsets_after(log, Offset::ZERO).await, [1, 2, 3], "reads go on");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_purged_is_noticed_while_running() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    for _ in 0..3 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    engine.log.change(|state| state.forget(3));
    let what = loop {
        match log.condition() {
            Condition::Refused(what) => break what,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert!(what.contains("it was purged"), "{what}");
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1, 2, 3], "reads go on");
    assert!(log.outrun().now_or_never().is_none(), "a restart would not help");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_away_for_too_long_ends_and_its_copy_is_built_again() {
    let engine = MemoryEngine::default();
    let other = join(&engine.another()).await;
    append_one(&other, draft(None, 1)).await.unwrap();
    let disk = MemoryDisk::default();
    let log = try_join(&engine, &disk).await.unwrap();
    engine.is_away.store(true, Ordering::Relaxed);
    for _ in 0..4 {
        append_one(&other, draft(None, 1)).await.unwrap();
    }
    other.0.sequencer.trim(Offset::new(4).unwrap()).await;
    assert_eq!(other.trim_point().get(), 4);
    engine.log.change(|state| state.forget(4));
    assert!(log.outrun().now_or_never().is_none());
    engine.is_away.store(false, Ordering::Relaxed);
    log.outrun().await;
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1], "reads go on until it ends");
    log.close().await;
    let log = try_join(&engine, &disk).await.unwrap();
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_begins_with_what_readers_are_shown_and_not_with_what_is_about_to_go() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    for _ in 0..4 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    log.0.sequencer.trim(Offset::new(3).unwrap()).await;
    // All that is trimmed goes between the look and the first batch.
    engine.log.state().forgets_next = 3;
    let fresh = join(&engine.another()).await;
    assert_eq!((fresh.trim_point().get(), fresh.tail().get()), (3, 4));
    assert_eq!(offsets_after(&fresh, Offset::ZERO).await, [4]);
    assert_eq!(fresh.condition(), Condition::Fine);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_outrun_before_it_has_caught_up_is_begun_again() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    for _ in 0..3 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    // A real one, which is given back and taken again.
    let dir = tempfile::tempdir().unwrap();
    let (settings, progress) = (LogSettings { retention: None }, Progress::default());
    let join_in = || Log::join(dir.path(), settings, engine.another(), &progress);
    join_in().await.unwrap().close().await;
    for _ in 0..3 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    log.0.sequencer.trim(Offset::new(6).unwrap()).await;
    engine.log.state().forgets_next = 5;
    let late = join_in().await.unwrap();
    assert_eq!((late.trim_point().get(), late.tail().get()), (6, 6));
    assert!(matches!(Log::open(dir.path(), settings), Err(OpenError::InUse { .. })));
    let appended = append_one(&late, draft(None, 1)).await.unwrap();
    assert_eq!(appended.offset.get(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_proven_is_no_reason_to_begin_again() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    for _ in 0..3 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    engine.is_away.store(true, Ordering::Relaxed);
    engine.log.change(|state| drop(state.batches.pop()));
    let fresh = join(&engine.another()).await;
    for _ in 0..3 {
        append_one(&fresh, draft(None, 2)).await.unwrap();
    }
    engine.is_away.store(false, Ordering::Relaxed);
    while !matches!(log.condition(), Condition::Refused(_)) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    engine.log.change(|state| state.forget(5));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(log.outrun().now_or_never().is_none());
    assert!(matches!(log.condition(), Condition::Refused(_)));
}

#[tokio::test(start_paused = true)]
async fn batches_grow_no_older_when_the_engines_clock_is_set_back() {
    let engine = MemoryEngine::default();
    engine.log.change(|state| state.time_ms = 10_000_000);
    let log = join(&engine).await;
    append_one(&log, draft(None, 1)).await.unwrap();
    engine.log.change(|state| state.time_ms = 1_000_000);
    // Some looks later.
    tokio::time::sleep(Duration::from_secs(600)).await;
    append_one(&log, draft(None, 1)).await.unwrap();
    let stamped = engine.log.state().batches[1].time_ms;
    assert!((10_600_000..10_601_000).contains(&stamped), "{stamped}");
}

#[tokio::test(start_paused = true)]
async fn batches_get_their_times_by_the_engines_clock_whatever_a_replicas_own_says() {
    let engine = MemoryEngine::default();
    engine.log.change(|state| state.time_ms = 1_000_000);
    // Its own clock stands at 1970.
    let log = join(&engine).await;
    append_one(&log, draft(None, 1)).await.unwrap();
    let stamped = engine.log.state().batches[0].time_ms;
    assert!((1_000_000..1_001_000).contains(&stamped), "{stamped}");
}

#[tokio::test(start_paused = true)]
async fn a_fresh_replica_has_all_that_was_there_before_it_serves() {
    let engine = MemoryEngine::default();
    let log = join(&engine).await;
    for _ in 0..250 {
        append_one(&log, draft(None, 1)).await.unwrap();
    }
    let fresh = join(&engine.another()).await;
    assert_eq!(fresh.tail().get(), 250);
    assert_eq!(engine.log.state().newest(), Position(250));
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_served_as_a_log_of_its_own() {
    let (engine, disk) = (MemoryEngine::default(), MemoryDisk::default());
    let log = try_join(&engine, &disk).await.unwrap();
    append_one(&log, draft(None, 1)).await.unwrap();
    log.close().await;
    let settings = LogSettings { retention: None };
    let alone = Log::start(Arc::new(disk), ViewSettings::default(), settings, Arc::new(|| 0));
    assert!(matches!(alone, Err(OpenError::Follows(_))));
}
