//! The whole log on a disk in memory: what a producer is told, and what readers see of it.

use std::{
    collections::HashSet,
    io,
    sync::{
        Condvar,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use herald_types::{Grant, HerId, HerIds, NotificationType, PageLimit};

use super::*;
use crate::disk::memory::{Call, Failure, MemoryDisk};

mod cluster;
mod conformance;
mod seed;

const EVERYONE: std::ops::RangeInclusive<u32> = 1..=4;
const NOW: Timestamp = Timestamp::UNIX_EPOCH;
/// So little recent memory that nearly every request must look again.
const NO_MEMORY: ViewSettings =
    ViewSettings { segment_bytes: 4000, reserve_step_bytes: 512, recent_bytes: 0 };

fn open_with(disk: &MemoryDisk, view_settings: ViewSettings) -> Log {
    let settings = LogSettings { retention: None };
    Log::start(Arc::new(disk.clone()), view_settings, settings, Arc::new(|| 0)).unwrap()
}

fn open(disk: &MemoryDisk) -> Log {
    open_with(disk, ViewSettings::default())
}

fn receivers(numbers: impl IntoIterator<Item = u32>) -> Receivers {
    let her_ids = numbers.into_iter().map(|number| HerId::new(number).unwrap());
    Grant::everything().narrow(HerIds::new(her_ids).unwrap()).unwrap()
}

fn draft(id: Option<u128>, receiver: u32) -> Draft {
    Draft {
        notification_id: id.map(Uuid::from_u128),
        related_message_id: Uuid::from_u128(7),
        kind: NotificationType::NewMessage,
        receiver: HerId::new(receiver).unwrap(),
        triggered_by: None,
        description: None,
    }
}

const PAGE: PageBounds = PageBounds { records: PageLimit::MAX, bytes: usize::MAX };

async fn offsets_after(log: &Log, after: Offset) -> Vec<u64> {
    let (_, records) = log.read::<Vec<Record>>(&receivers(EVERYONE), after, PAGE).await.unwrap();
    records.iter().map(|record| record.offset.get()).collect()
}

async fn append_one(log: &Log, draft: Draft) -> Result<Appended, AppendError> {
    Ok(log.append(vec![draft], NOW).await?.remove(0))
}

#[tokio::test]
async fn what_waits_together_shares_one_sync() {
    let disk = MemoryDisk::default();
    let log = open(&disk);
    let before = disk.calls().iter().filter(|call| **call == Call::Sync).count();
    let appends = (0..200).map(|_| append_one(&log, draft(None, 1)));
    let answers = futures_util::future::join_all(appends).await;
    let offsets: HashSet<u64> =
        answers.into_iter().map(|answer| answer.unwrap().offset.get()).collect();
    assert_eq!(offsets, (1..=200).collect());
    let syncs = disk.calls().iter().filter(|call| **call == Call::Sync).count() - before;
    assert!(syncs <= 10, "{syncs} syncs for 200 appends that waited together");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_from_many_producers_at_once_is_stored_once() {
    for settings in [ViewSettings::default(), NO_MEMORY] {
        let log = open_with(&MemoryDisk::default(), settings);
        for round in 0..20_u32 {
            let producers = (0..16).map(|producer| {
                // Half of them say something else.
                let request = vec![draft(Some(round.into()), 1 + producer % 2), draft(None, 3)];
                let log = log.clone();
                tokio::spawn(async move { log.append(request, NOW).await })
            });
            let answers = futures_util::future::join_all(producers).await;
            let taken: Vec<Vec<Appended>> =
                answers.into_iter().filter_map(|answer| answer.unwrap().ok()).collect();
            assert_eq!(taken.len(), 8, "those who said the same as the first");
            let first: HashSet<u64> = taken.iter().map(|answer| answer[0].offset.get()).collect();
            assert_eq!(first.len(), 1);
            assert_eq!(taken.iter().filter(|answer| !answer[0].duplicate).count(), 1);
        }
        // One with the id and eight without in each round.
        assert_eq!(log.tail().get(), 20 * 9);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_has_seen_an_offset_is_shown_or_denied_one_below_it() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 300;
    let log = open_with(&MemoryDisk::default(), ViewSettings { recent_bytes: 20_000, ..NO_MEMORY });
    let writers = (0..WRITERS).map(|writer| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                let receiver = 1 + u32::try_from((writer + number) % 4).unwrap();
                let told = append_one(&log, draft(None, receiver)).await.unwrap();
                // Once answered, every later read sees it.
                let before = Offset::new(told.offset.get() - 1).unwrap();
                let read = log.read::<Vec<Record>>(&receivers([receiver]), before, PAGE).await;
                assert_eq!(read.unwrap().1[0].offset, told.offset);
            }
        })
    });
    let readers = (0..4).map(|_| {
        let log = log.clone();
        tokio::spawn(async move {
            let (mut seen, mut after) = (Vec::new(), Offset::ZERO);
            let watch = log.watch(&receivers(EVERYONE));
            while seen.len() as u64 != WRITERS * EACH {
                let read = log.read::<Vec<Record>>(&receivers(EVERYONE), after, PAGE).await;
                let (page, records) = read.unwrap();
                seen.extend(records.iter().map(|record| record.offset.get()));
                after = page.until();
                if page.is_empty() {
                    watch.woken().await;
                }
            }
            // With dense offsets, whoever missed one has a gap.
            assert_eq!(seen, (1..=WRITERS * EACH).collect::<Vec<_>>());
        })
    });
    let tasks: Vec<_> = writers.chain(readers).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_sync_poisons_the_log_until_it_is_opened_again() {
    let disk = MemoryDisk::default();
    let log = open(&disk);
    append_one(&log, draft(Some(1), 1)).await.unwrap();
    let (kind, only) = (io::ErrorKind::Other, Some(Call::Sync));
    disk.fail(Some(Failure { at: 0, kind, for_ever: true, only }));
    let unknown = append_one(&log, draft(Some(2), 1)).await.unwrap_err();
    assert!(!unknown.is_refused() && matches!(unknown, AppendError::Unknown(_)), "{unknown}");
    let poisoned = append_one(&log, draft(Some(3), 1)).await.unwrap_err();
    assert!(poisoned.is_refused() && matches!(poisoned, AppendError::Poisoned), "{poisoned}");
    assert!(log.is_poisoned());
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1]);
    log.close().await;

    disk.fail(None);
    let log = open(&disk);
    assert!(!log.is_poisoned());
    let again = append_one(&log, draft(Some(2), 1)).await.unwrap();
    assert_eq!(again.offset.get(), 2);
    assert_eq!(append_one(&log, draft(Some(3), 1)).await.unwrap().offset.get(), 3);
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let disk = MemoryDisk::default();
    let log = open_with(&disk, NO_MEMORY);
    append_one(&log, draft(None, 1)).await.unwrap();
    let kind = io::ErrorKind::StorageFull;
    disk.fail(Some(Failure { at: 0, kind, for_ever: true, only: None }));
    for _ in 0..3 {
        let refused = append_one(&log, draft(Some(9), 1)).await.unwrap_err();
        assert!(refused.is_refused() && refused.is_retryable(), "{refused}");
    }
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [1]);
    disk.fail(None);
    let taken = append_one(&log, draft(Some(9), 1)).await.unwrap();
    assert_eq!((taken.offset.get(), taken.duplicate), (2, false));
}

#[tokio::test(start_paused = true)]
async fn retention_hides_what_is_older_and_its_ids_are_new_again() {
    let now_ms = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&now_ms);
    let settings = LogSettings { retention: Some(Duration::from_secs(60)) };
    let log = Log::start(
        Arc::new(MemoryDisk::default()),
        NO_MEMORY,
        settings,
        Arc::new(move || clock.load(Ordering::Relaxed)),
    );
    let log = log.unwrap();
    for id in 1..=20 {
        append_one(&log, draft(Some(id), 1)).await.unwrap();
    }
    now_ms.fetch_add(30_000, Ordering::Relaxed);
    append_one(&log, draft(Some(21), 1)).await.unwrap();
    now_ms.fetch_add(31_000, Ordering::Relaxed);
    // Within 10 s of its time; the clock above stands still meanwhile.
    let hidden = async {
        while log.trim_point().get() != 20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), hidden).await.expect("the trim point moves");
    assert_eq!(offsets_after(&log, Offset::ZERO).await, [21]);
    let again = append_one(&log, draft(Some(1), 1)).await.unwrap();
    assert_eq!((again.offset.get(), again.duplicate), (22, false));
    assert!(append_one(&log, draft(Some(21), 1)).await.unwrap().duplicate);
    let one_segment = async {
        while log.0.view.held().segments > 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), one_segment).await.expect("space comes back");
}

#[tokio::test]
async fn a_directory_belongs_to_one_log_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), LogSettings::default()).unwrap();
    let history = log.history();
    append_one(&log, draft(None, 1)).await.unwrap();
    let settings = LogSettings::default();
    assert!(matches!(Log::open(dir.path(), settings), Err(OpenError::InUse(_))));
    assert!(matches!(check(dir.path()), Err(OpenError::InUse(_))));
    log.close().await;
    assert!(matches!(append_one(&log, draft(None, 1)).await, Err(AppendError::Closed)));
    assert_eq!(check(dir.path()).unwrap().records, 1);
    let log = Log::open(dir.path(), settings).unwrap();
    assert_eq!((log.history(), log.tail().get()), (history, 1));
}

/// A disk on which publishing an index takes until the directory is released, or long enough that it should have been.
struct SlowPublishing {
    disk: MemoryDisk,
    began: tokio::sync::Notify,
    released: (Mutex<bool>, Condvar),
    wait: Duration,
    /// Whether that happened while something was being published.
    released_meanwhile: AtomicBool,
}

impl SlowPublishing {
    /// A disk that holds a log of several segments without an index.
    async fn with_full_segments(wait: Duration) -> Arc<Self> {
        let disk = MemoryDisk::default();
        let log = open_with(&disk, NO_MEMORY);
        for _ in 0..30 {
            append_one(&log, draft(None, 1)).await.unwrap();
        }
        log.close().await;
        for name in disk.list().unwrap() {
            // Whatever that one's keeper has sealed already.
            if name.ends_with(".index") {
                disk.remove(&name).unwrap();
            }
        }
        let (began, released, released_meanwhile) = Default::default();
        Arc::new(Self { disk, began, released, wait, released_meanwhile })
    }
}

impl Disk for SlowPublishing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn disk::File>> {
        self.disk.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn disk::File>> {
        self.disk.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if to.ends_with(".index") {
            self.began.notify_one();
            let (released, changed) = &self.released;
            let released = released.lock().unwrap();
            let waited = changed.wait_timeout_while(released, self.wait, |is| !*is).unwrap();
            self.released_meanwhile.fetch_or(*waited.0, Ordering::Relaxed);
        }
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.disk.path(name)
    }

    fn release(&self) {
        *self.released.0.lock().unwrap() = true;
        self.released.1.notify_all();
    }
}

#[tokio::test]
async fn a_closed_log_touches_its_directory_no_more() {
    let wait = Duration::from_millis(300);
    let disk = SlowPublishing::with_full_segments(wait).await;
    let settings = LogSettings { retention: None };
    let on: Arc<dyn Disk> = Arc::clone(&disk) as _;
    let log = Log::start(on, NO_MEMORY, settings, Arc::new(|| 0)).unwrap();
    disk.began.notified().await;
    log.close().await;
    // Another server may have it by now, and its own next segment would have the same name.
    let (released, _) = &disk.released;
    assert!(*released.lock().unwrap());
    tokio::time::sleep(wait).await;
    assert!(
        !disk.released_meanwhile.load(Ordering::Relaxed),
        "an index was published behind the release"
    );
}

#[tokio::test]
async fn the_trim_point_moves_while_segments_are_sealed() {
    // Never waited for when all is well.
    let disk = SlowPublishing::with_full_segments(Duration::from_secs(5)).await;
    let settings = LogSettings { retention: Some(Duration::from_secs(1)) };
    let now_ms = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now_ms);
    let on: Arc<dyn Disk> = Arc::clone(&disk) as _;
    let clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let log = Log::start(on, NO_MEMORY, settings, clock).unwrap();
    disk.began.notified().await;
    now_ms.store(60_000, Ordering::Relaxed);
    while log.trim_point() != log.tail() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    disk.release();
    log.close().await;
    assert!(disk.released_meanwhile.load(Ordering::Relaxed), "it waited for the sealing");
}

#[tokio::test]
async fn another_format_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), LogSettings::default()).unwrap().close().await;
    let path = dir.path().join("header");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let checksum = frame::checksum(0, &[&bytes[..12], &bytes[16..]]);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let refused = Log::open(dir.path(), LogSettings::default()).unwrap_err();
    assert!(matches!(refused, OpenError::UnknownFormat { found: 9, known: 1, .. }), "{refused}");
}
