//! A consumer and its checkpoint: what is kept when, and what is refused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use herald_client::{
    Checkpoint, CheckpointError, CheckpointFile, Consumer, ConsumerError, Cursor, Event,
    Notification, Start,
};

use crate::{
    client, cursor, her_ids, offset,
    script::{Script, connected, event, page, wait_for_close, write},
};

const HISTORY: &str = "herald-history: 6f9619ff-8b86-d011-b42d-00cf4fc964ff\r\n";

/// A checkpoint in memory that can be told to fail, and counts.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    saved: Vec<Cursor>,
    fails: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no room")]
struct NoRoom;

impl Memory {
    fn offsets(&self) -> Vec<u64> {
        self.0.lock().unwrap().saved.iter().map(|cursor| cursor.offsets()[0].get()).collect()
    }

    fn fail(&self, fails: bool) {
        self.0.lock().unwrap().fails = fails;
    }
}

impl Checkpoint for Memory {
    type Error = NoRoom;

    async fn load(&mut self) -> Result<Option<Cursor>, NoRoom> {
        Ok(self.0.lock().unwrap().saved.last().cloned())
    }

    async fn save(&mut self, cursor: &Cursor) -> Result<(), NoRoom> {
        // Like a real one, this is not done at once.
        tokio::task::yield_now().await;
        let mut kept = self.0.lock().unwrap();
        if kept.fails {
            return Err(NoRoom);
        }
        kept.saved.push(cursor.clone());
        Ok(())
    }
}

/// A server with notifications 6 to 9, which then stays silent.
fn server() -> Script {
    Script::start(|_, request, stream| {
        let events: String = (request.after() + 1..=9).map(event).collect();
        write(stream, connected(HISTORY) + &events);
        wait_for_close(stream);
    })
}

async fn consume<C: Checkpoint>(server: &Script, checkpoint: C) -> Consumer<C> {
    let start = Start::After(offset(5));
    client(&server.url).consumer(her_ids(7..=7), checkpoint, start).await.unwrap()
}

async fn notification<C: Checkpoint>(consumer: &mut Consumer<C>) -> Notification {
    loop {
        if let Event::Notification(notification) = consumer.next().await.unwrap() {
            return notification;
        }
    }
}

#[tokio::test]
async fn each_acknowledgement_is_kept_and_what_was_not_acknowledged_comes_again() {
    let (server, memory) = (server(), Memory::default());
    let mut consumer = consume(&server, memory.clone()).await;
    assert_eq!(memory.offsets(), [0; 0], "no server has been heard yet");
    let six = notification(&mut consumer).await;
    consumer.ack(&six).await.unwrap();
    notification(&mut consumer).await;
    assert_eq!(memory.offsets(), [5, 6]);
    assert!(memory.0.lock().unwrap().saved.iter().all(|cursor| cursor.history().is_some()));
    drop(consumer);

    let mut consumer = consume(&server, memory.clone()).await;
    assert_eq!(notification(&mut consumer).await.offset(), offset(7));
    assert_eq!(server.requests()[1].after(), 6);
}

#[tokio::test(start_paused = true)]
async fn saving_now_and_then_saves_while_nothing_comes() {
    let (server, memory) = (server(), Memory::default());
    let mut consumer = consume(&server, memory.clone()).await.save_every(Duration::from_secs(3600));
    for _ in 6..=9 {
        let notification = notification(&mut consumer).await;
        consumer.ack(&notification).await.unwrap();
    }
    assert_eq!(memory.offsets(), [0; 0]);
    // The clock moves by itself when nothing else can happen; the stream counts as dead long before an hour is over.
    while memory.offsets().is_empty() {
        consumer.next().await.unwrap();
    }
    assert_eq!(memory.offsets(), [9]);
}

#[tokio::test]
async fn what_has_moved_can_be_kept_before_a_planned_end() {
    let (server, memory) = (server(), Memory::default());
    let mut consumer = consume(&server, memory.clone()).await.save_every(Duration::from_secs(3600));
    let six = notification(&mut consumer).await;
    consumer.ack(&six).await.unwrap();
    for _ in 0..2 {
        consumer.save().await.unwrap();
        assert_eq!(memory.offsets(), [6], "and only once");
    }
}

#[tokio::test]
async fn a_save_that_is_dropped_half_way_is_made_up_for() {
    let (server, memory) = (server(), Memory::default());
    let mut consumer = consume(&server, memory.clone()).await;
    let six = notification(&mut consumer).await;
    assert!(consumer.ack(&six).now_or_never().is_none());
    assert_eq!(memory.offsets(), [5]);
    assert_eq!(notification(&mut consumer).await.offset(), offset(7));
    assert_eq!(memory.offsets(), [5, 6]);
}

#[tokio::test]
async fn a_checkpoint_that_fails_is_said_each_time_and_caught_up_with() {
    let (server, memory) = (server(), Memory::default());
    let mut consumer = consume(&server, memory.clone()).await;
    let six = notification(&mut consumer).await;
    memory.fail(true);
    for error in [consumer.ack(&six).await.unwrap_err(), consumer.next().await.unwrap_err()] {
        assert!(matches!(error, ConsumerError::Checkpoint(NoRoom)) && !error.is_retryable());
    }
    memory.fail(false);
    assert_eq!(notification(&mut consumer).await.offset(), offset(7));
    assert_eq!(memory.offsets(), [5, 6]);
}

#[tokio::test]
async fn now_is_kept_before_anything_is_streamed() {
    let server = Script::start(|_, _, stream| {
        write(stream, page("200 OK", &format!("herald-tail: 8\r\n{HISTORY}"), &[]));
    });
    let memory = Memory::default();
    client(&server.url).consumer(her_ids(7..=7), memory.clone(), Start::Now).await.unwrap();
    assert_eq!(memory.offsets(), [8]);
    let requests = server.requests().len();
    client(&server.url).consumer(her_ids(7..=7), memory.clone(), Start::Now).await.unwrap();
    assert_eq!((server.requests().len(), memory.offsets()), (requests, vec![8]), "only once");

    memory.fail(true);
    memory.0.lock().unwrap().saved.clear();
    let begun = client(&server.url).consumer(her_ids(7..=7), memory, Start::Now).await;
    assert!(matches!(begun, Err(ConsumerError::Checkpoint(NoRoom))));
}

#[tokio::test]
async fn without_a_start_there_must_be_a_checkpoint() {
    let (server, memory) = (server(), Memory::default());
    let begun = client(&server.url).consumer(her_ids(7..=7), memory.clone(), None).await;
    assert!(matches!(begun, Err(ConsumerError::NoCheckpoint)));
    memory.0.lock().unwrap().saved.push(cursor(7..=7, 8));
    let mut consumer = client(&server.url).consumer(her_ids(7..=7), memory, None).await.unwrap();
    assert_eq!(notification(&mut consumer).await.offset(), offset(9));
}

#[tokio::test]
async fn a_checkpoint_of_other_receivers_is_refused() {
    let memory = Memory::default();
    memory.0.lock().unwrap().saved.push(cursor(7..=8, 8));
    let client = client("http://127.0.0.1:9");
    for others in [her_ids(7..=7), her_ids(8..=9), her_ids(7..=9)] {
        let begun = client.consumer(others, memory.clone(), Start::Beginning).await;
        assert!(matches!(begun, Err(ConsumerError::OtherReceivers { kept: 2, .. })));
    }
    let backwards = her_ids(7..=8).into_iter().rev().chain(her_ids(7..=7));
    client.consumer(backwards, memory, Start::Beginning).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_no_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint");
    std::fs::write(&path, "").unwrap();
    let begun = client("http://127.0.0.1:9")
        .consumer(her_ids(7..=7), CheckpointFile::new(&path), Start::Beginning)
        .await;
    let Err(ConsumerError::Checkpoint(CheckpointError::Damaged { .. })) = begun else {
        panic!("it is refused")
    };
}
