//! What the examples promise.

#![allow(dead_code, reason = "an example's main is not called here")]

#[path = "../../examples/services.rs"]
mod services;
#[path = "../../examples/shutdown.rs"]
mod shutdown;
#[path = "../../examples/sqlite.rs"]
mod sqlite;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use herald_client::{Checkpoint as _, CheckpointFile, Start, types::NotificationType};
use rusqlite::Connection;

use crate::{
    client, her_ids, offset,
    script::{Script, connected, event, wait_for_close, write},
};

/// A server of notifications 1 to `last` that now and then ends a stream early, and repeats what it was told is handled.
fn server(last: u64) -> Script {
    Script::start(move |number, request, stream| {
        let first = request.after().max(1);
        let until = if number % 2 == 0 { last.min(first + 3) } else { last };
        let events: String = (first..=until).map(event).collect();
        write(stream, connected("") + &events + ": until 4\n\n");
        if until == last {
            wait_for_close(stream);
        }
    })
}

fn handled(path: &str) -> Vec<u64> {
    let db = Connection::open(path).unwrap();
    let mut all = db.prepare("SELECT notification_offset FROM inbox ORDER BY 1").unwrap();
    let rows = all.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    rows.map(|row| row.unwrap().try_into().unwrap()).collect()
}

/// A consumer that is dropped at any await, as a crash would leave it, comes back and handles each notification once.
#[tokio::test]
async fn with_the_cursor_in_the_transaction_of_the_work_each_notification_takes_effect_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db").into_os_string().into_string().unwrap();
    let server = server(20);
    let mut rounds = 0_u64;
    while handled_or_none(&path).len() < 20 {
        let mut journal = sqlite::Journal::open(&path).unwrap();
        let client = client(&server.url);
        let follow = sqlite::follow(&client, &mut journal, her_ids(7..=7));
        // Another end each round, before the first event in some.
        let cut = tokio::time::sleep(std::time::Duration::from_micros(300 * (rounds % 40)));
        tokio::select! {
            outcome = follow => panic!("{outcome:?}"),
            () = cut => {}
        }
        rounds += 1;
        assert!(rounds < 10_000, "{:?}", handled(&path));
    }
    assert_eq!(handled(&path), (1..=20).collect::<Vec<_>>());
}

fn handled_or_none(path: &str) -> Vec<u64> {
    if std::fs::exists(path).unwrap() { handled(path) } else { Vec::new() }
}

#[tokio::test]
async fn a_transaction_that_fails_leaves_the_cursor_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db").into_os_string().into_string().unwrap();
    let mut journal = sqlite::Journal::open(&path).unwrap();
    let block = "CREATE TRIGGER refuse BEFORE INSERT ON inbox WHEN new.notification_offset = 3
                 BEGIN SELECT RAISE(ABORT, 'not this one'); END;";
    Connection::open(&path).unwrap().execute_batch(block).unwrap();
    let server = server(5);
    let client = client(&server.url);
    let failed = sqlite::follow(&client, &mut journal, her_ids(7..=7)).await.unwrap_err();
    assert!(failed.to_string().contains("not this one"));
    assert_eq!(handled(&path), [1, 2]);
    assert_eq!(journal.cursor().unwrap().unwrap().offsets(), [offset(2)]);
}

#[test]
fn two_services_share_all_types_between_them_with_unknown_ones_for_exactly_one() {
    for kind in NotificationType::ALL.into_iter().map(Some).chain([None]) {
        assert_ne!(services::is_inbound(kind), services::is_outbound(kind), "{kind:?}");
    }
}

#[tokio::test]
async fn a_shutdown_finishes_the_work_under_way_and_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint");
    let server = server(20);
    let consumer = client(&server.url)
        .consumer(her_ids(7..=7), CheckpointFile::new(&path), Start::Beginning)
        .await
        .unwrap();
    let mut consumer = consumer.save_every(std::time::Duration::from_secs(3600));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let stopped = std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        let is_set = stop.load(Ordering::Relaxed);
        if is_set { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    let work = async |notification: &herald_client::Notification| {
        // The signal comes in the middle of the third.
        if notification.offset() == offset(3) {
            stop.store(true, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
        done.fetch_add(1, Ordering::Relaxed);
    };
    shutdown::run(&mut consumer, stopped, work).await.unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 3);
    let kept = CheckpointFile::new(&path).load().await.unwrap().unwrap();
    assert_eq!(kept.offsets(), [offset(3)]);
}
