//! What holds whoever keeps the order: the same tests for a single node and for every engine, unchanged.
//!
//! They run on a single node; with `HERALD_TEST_LOG` set to the URL of an engine, on a log of their own there. The gate runs
//! them once for each.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;

use super::*;

/// A place for a log of one test's own.
struct Here {
    dir: tempfile::TempDir,
    place: OrderPlace,
}

impl Here {
    fn new() -> Self {
        let url = herald_rig::test_log();
        let place = url.map_or(OrderPlace::Local, |url| url.parse().unwrap());
        Self { dir: tempfile::tempdir().unwrap(), place }
    }

    async fn open_with(&self, retention: Option<Duration>) -> Log {
        let engine = EngineSettings { ca_file: None, credentials_file: None, retention };
        let (settings, progress) = (LogSettings { retention }, Progress::default());
        Log::open_at(&self.place, &engine, self.dir.path(), settings, &progress).await.unwrap()
    }

    async fn open(&self) -> Log {
        self.open_with(None).await
    }
}

#[tokio::test]
async fn an_id_that_is_stored_is_answered_as_the_first_time() {
    let here = Here::new();
    let log = here.open().await;
    let first = append_one(&log, draft(Some(1), 1)).await.unwrap();
    append_one(&log, draft(None, 1)).await.unwrap();
    let later = NOW.checked_add(jiff::SignedDuration::from_secs(9)).unwrap();
    let again = log.append(vec![draft(Some(1), 1)], later).await.unwrap().remove(0);
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1, 2]);
}

#[tokio::test]
async fn other_content_under_a_stored_id_is_refused_whole() {
    let here = Here::new();
    let log = here.open().await;
    let with_description = Draft { description: Some("a".into()), ..draft(Some(1), 1) };
    append_one(&log, with_description.clone()).await.unwrap();
    let other = Draft { description: Some("b".into()), ..draft(Some(1), 1) };
    let request = vec![draft(Some(2), 1), other, draft(Some(1), 2), draft(None, 3)];
    let Err(AppendError::ContentDiffers { drafts }) = log.append(request, NOW).await else {
        panic!("it was taken");
    };
    assert_eq!(drafts.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1]);
    // What is left out equals whatever is stored.
    assert!(append_one(&log, draft(Some(1), 1)).await.unwrap().duplicate);
}

#[tokio::test]
async fn an_id_twice_in_one_request_follows_the_same_rule() {
    let here = Here::new();
    let log = here.open().await;
    let request = vec![draft(Some(1), 1), draft(None, 2), draft(Some(1), 1), draft(None, 2)];
    let answers = log.append(request, NOW).await.unwrap();
    let told: Vec<_> =
        answers.iter().map(|answer| (answer.offset.get(), answer.duplicate)).collect();
    assert_eq!(told, [(1, false), (2, false), (1, true), (3, false)]);
    let request = vec![draft(Some(5), 1), draft(Some(5), 2)];
    assert!(matches!(log.append(request, NOW).await, Err(AppendError::ContentDiffers { .. })));
    assert_eq!(log.tail().get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_ascend_in_the_order_of_answers_and_without_a_gap() {
    let here = Here::new();
    let log = here.open().await;
    let appends = (0..200).map(|number| {
        let log = log.clone();
        tokio::spawn(async move { append_one(&log, draft(None, 1 + number % 4)).await.unwrap() })
    });
    let offsets: HashSet<u64> =
        join_all(appends).await.into_iter().map(|told| told.unwrap().offset.get()).collect();
    assert_eq!(offsets, (1..=200).collect());
    let next = append_one(&log, draft(None, 1)).await.unwrap().offset.get();
    assert_eq!(next, 201, "later answered, later in order");
    assert_eq!(offsets_after(&log, Offset::ZERO).await, (1..=201).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_is_all_or_nothing() {
    let here = Here::new();
    let log = here.open().await;
    append_one(&log, draft(Some(1), 1)).await.unwrap();
    let request: Vec<Draft> =
        (2..=1000).map(|id| draft(Some(id), 1)).chain([draft(Some(1), 2)]).collect();
    assert!(matches!(log.append(request, NOW).await, Err(AppendError::ContentDiffers { .. })));
    assert_eq!(log.tail().get(), 1);
    let request = (2..=1000).map(|id| draft(Some(id), 1)).collect();
    let told = log.append(request, NOW).await.unwrap();
    assert_eq!(told.last().unwrap().offset.get(), 1000);
}

#[tokio::test]
async fn a_batch_of_the_longest_drafts_is_stored_and_read_back() {
    let here = Here::new();
    let log = here.open().await;
    let longest = Draft { description: Some("\u{0}".repeat(1024)), ..draft(None, 1) };
    let told = log.append(vec![longest; 1000], NOW).await.unwrap();
    assert_eq!(told.len(), 1000);
    assert_eq!(offsets_after(&log, Offset::ZERO).await.len(), 1000);
}

#[tokio::test]
async fn whoever_watches_is_woken_by_an_append() {
    let here = Here::new();
    let log = here.open().await;
    let watch = log.watch(&receivers([2]));
    append_one(&log, draft(None, 1)).await.unwrap();
    append_one(&log, draft(None, 2)).await.unwrap();
    watch.woken().await;
    assert_eq!(log.tail().get(), 2);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_numbers_go_on() {
    let here = Here::new();
    let log = here.open().await;
    let history = log.history();
    for id in 1..=50 {
        append_one(&log, draft(Some(id), 1)).await.unwrap();
    }
    log.close().await;
    assert!(matches!(append_one(&log, draft(None, 1)).await, Err(AppendError::Closed)));
    drop(log);
    let log = here.open().await;
    assert_eq!(log.history(), history);
    assert_eq!(offsets_after(&log, Offset::ZERO).await, (1..=50).collect::<Vec<_>>());
    assert!(append_one(&log, draft(Some(50), 1)).await.unwrap().duplicate);
    assert_eq!(append_one(&log, draft(Some(51), 1)).await.unwrap().offset.get(), 51);
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_hidden_and_its_id_is_new_again() {
    let here = Here::new();
    let log = here.open_with(Some(Duration::from_secs(1))).await;
    append_one(&log, draft(Some(1), 1)).await.unwrap();
    while log.trim_point().get() < 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [0_u64; 0]);
    let again = append_one(&log, draft(Some(1), 2)).await.unwrap();
    assert_eq!((again.offset.get(), again.duplicate), (2, false));
}
