//! Against real servers.

mod access;
mod cluster;
mod following;
mod settings;
mod storm;

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use herald_rig::nats::{Cluster, Settings};
use tokio::time::timeout;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::order::engine::{Follow as _, Place};

/// Longer than any call may take; it only ends a test that hangs.
const HANG: Duration = Duration::from_secs(90);

fn engine(url: &str) -> Jetstream {
    engine_with(url, &EngineSettings { ca_file: None, credentials_file: None, retention: DAY })
}

const DAY: Option<Duration> = Some(Duration::from_secs(86_400));

fn engine_with(url: &str, settings: &EngineSettings) -> Jetstream {
    Jetstream::new(&url_of(url), settings).unwrap()
}

fn url_of(url: &str) -> EngineUrl {
    match url.parse().unwrap() {
        crate::OrderPlace::Jetstream(url) => url,
        other => panic!("{other}"),
    }
}

fn identity(number: u128) -> Identity {
    Identity {
        history: Uuid::from_u128(number << 64),
        log_id: Uuid::from_u128(number),
        salt: u64::MAX - 1,
        is_seeding: false,
    }
}

fn batch_id(position: u64) -> u128 {
    u128::from(position) << 32
}

fn frame(position: u64) -> Bytes {
    Bytes::from(format!("batch {position}"))
}

/// The batch for a position.
fn entry(position: u64) -> Entry {
    let after = position - 1;
    let after_id = if after == 0 { 0 } else { batch_id(after) };
    Entry {
        log_id: identity(1).log_id,
        after: Place { position: Position(after), batch_id: after_id },
        batch_id: batch_id(position),
        frame: frame(position),
        tail: position,
        time_ms: position,
    }
}

async fn append_all(engine: &Jetstream, positions: std::ops::RangeInclusive<u64>) {
    for position in positions {
        engine.append(&entry(position)).await.unwrap();
    }
}

/// One node, a log on it, and its engine.
async fn single() -> (Cluster, Jetstream) {
    let cluster = Cluster::start(1).await.unwrap();
    let engine = engine(&cluster.url());
    engine.create(&identity(1)).await.unwrap();
    engine.look().await.unwrap().unwrap();
    (cluster, engine)
}

/// A question to JetStream that the engine itself does not ask.
async fn ask(engine: &Jetstream, what: &str, question: Value) -> Value {
    let deadline = Instant::now() + HANG;
    let session = engine.link.session(deadline).await.unwrap();
    session.call(&format!("$JS.API.{what}"), &question, deadline).await.unwrap()
}

/// What an engine says is unfit.
fn unfit<T: std::fmt::Debug>(outcome: Result<T, EngineError>) -> String {
    match outcome {
        Err(EngineError::Unfit(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Follows until a position has come; each must come behind the other.
async fn follow_until(follower: &mut Follower, from: u64, until: u64) -> Vec<Bytes> {
    try_follow_until(follower, from, until).await.unwrap()
}

async fn try_follow_until(
    follower: &mut Follower,
    from: u64,
    until: u64,
) -> Result<Vec<Bytes>, EngineError> {
    let mut frames = Vec::new();
    while from + frames.len() as u64 <= until {
        let followed = timeout(HANG, follower.next()).await.unwrap()?;
        for (position, frame) in followed.batches {
            assert_eq!(position.0, from + frames.len() as u64);
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// What was logged in this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(logged.clone()).finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    fn lines_with(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logged {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_log_is_made_and_what_is_appended_to_it_is_there() {
    let cluster = Cluster::start(1).await.unwrap();
    let engine = engine(&cluster.url());
    assert_eq!(engine.look().await.unwrap(), None);
    engine.create(&identity(1)).await.unwrap();
    let empty = engine.look().await.unwrap().unwrap();
    assert_eq!(empty.identity, identity(1));
    assert_eq!((empty.first, empty.newest, empty.term), (Position(1), Position(0), 0));
    assert!(empty.time_ms > 1_700_000_000_000, "{}", empty.time_ms);
    assert_eq!(engine.read(Position(1)).await.unwrap(), None);

    append_all(&engine, 1..=3).await;
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!((look.first, look.newest), (Position(1), Position(3)));
    for position in 1..=3 {
        assert_eq!(engine.read(Position(position)).await.unwrap(), Some(frame(position)));
    }
    assert_eq!(engine.read(Position(4)).await.unwrap(), None);
    let log_id = look.identity.log_id;
    engine.forget(Forgettable { log_id, trim_point: 3, before_ms: u64::MAX }).await.unwrap();
    assert_eq!(engine.read(Position(1)).await.unwrap(), Some(frame(1)), "its age does it");
}

#[tokio::test]
async fn a_batch_is_stored_right_behind_its_place_or_not_at_all() {
    let (_cluster, engine) = single().await;
    append_all(&engine, 1..=3).await;
    for position in [1, 3, 5, 9] {
        let outcome = engine.append(&entry(position)).await;
        assert!(matches!(outcome, Err(AppendFailure::Conflict)), "{position}: {outcome:?}");
    }
    let other_log = Entry { log_id: identity(2).log_id, ..entry(4) };
    let outcome = engine.append(&other_log).await;
    assert!(
        matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
        "{outcome:?}"
    );
    assert_eq!(engine.look().await.unwrap().unwrap().newest, Position(3));
    append_all(&engine, 4..=4).await;
    assert_eq!(engine.read(Position(4)).await.unwrap(), Some(frame(4)));
}

#[tokio::test]
async fn the_largest_batch_is_stored_read_and_followed() {
    let (_cluster, engine) = single().await;
    let large = Bytes::from(vec![b'x'; link::PAYLOAD_MIN - 1024]);
    for position in 1..=4 {
        engine.append(&Entry { frame: large.clone(), ..entry(position) }).await.unwrap();
    }
    assert_eq!(engine.read(Position(2)).await.unwrap(), Some(large.clone()));
    let mut follower = engine.follow(Position(1)).await.unwrap();
    let frames = follow_until(&mut follower, 1, 4).await;
    assert!(frames.iter().all(|frame| *frame == large));

    let too_large = Bytes::from(vec![b'x'; 9 * 1024 * 1024]);
    let outcome = engine.append(&Entry { frame: too_large, ..entry(5) }).await;
    assert!(
        matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
        "{outcome:?}"
    );
    append_all(&engine, 5..=5).await;
}

#[tokio::test]
async fn a_log_that_is_being_seeded_says_so_until_it_has_been() {
    let cluster = Cluster::start(1).await.unwrap();
    let engine = engine(&cluster.url());
    let seeding = Identity { is_seeding: true, ..identity(1) };
    engine.create(&seeding).await.unwrap();
    assert_eq!(engine.look().await.unwrap().unwrap().identity, seeding);
    append_all(&engine, 1..=2).await;
    let error = unfit(engine.seeded(&identity(2)).await);
    assert!(error.contains("made anew"), "{error}");
    engine.seeded(&seeding).await.unwrap();
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!((look.identity, look.newest), (identity(1), Position(2)));
}

#[tokio::test]
async fn a_stream_that_has_been_emptied_goes_on_behind_its_last_batch() {
    let (_cluster, engine) = single().await;
    append_all(&engine, 1..=5).await;
    let info = ask(&engine, "STREAM.INFO.HERALD", json!({})).await;
    // The shortest that the server takes.
    let brief = stream::with(&info["config"], "max_age", json!(100_000_000));
    ask(&engine, "STREAM.UPDATE.HERALD", brief).await;
    let gone = async {
        while ask(&engine, "STREAM.INFO.HERALD", json!({})).await["state"]["messages"] != 0 {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    timeout(HANG, gone).await.unwrap();

    let look = engine.look().await.unwrap().unwrap();
    assert_eq!((look.first, look.newest, look.is_hollow()), (Position(6), Position(5), true));
    let info = ask(&engine, "STREAM.INFO.HERALD", json!({})).await;
    let kept = info["config"]["max_age"].as_i64().unwrap();
    assert_eq!(kept, stream::nanos(stream::age(DAY)), "looking has raised it again");
    assert_eq!(engine.read(Position(5)).await.unwrap(), None);
    let error = engine.follow(Position(5)).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, EngineError::Broken(text) if text.contains("begins at position 6")),
        "{error}"
    );
    let mut follower = engine.follow(Position(6)).await.unwrap();
    append_all(&engine, 6..=6).await;
    assert_eq!(follow_until(&mut follower, 6, 6).await, [frame(6)]);
}

#[tokio::test]
async fn a_log_is_never_taken_for_the_one_that_took_its_place() {
    let (_cluster, engine) = single().await;
    append_all(&engine, 1..=3).await;
    let mut follower = engine.follow(Position(1)).await.unwrap();
    follow_until(&mut follower, 1, 3).await;
    ask(&engine, "STREAM.DELETE.HERALD", json!({})).await;
    let other = self::engine(&engine.link.target.servers[0]);
    other.create(&identity(2)).await.unwrap();
    other.look().await.unwrap().unwrap();
    for position in 1..=3 {
        let entry = Entry { log_id: identity(2).log_id, ..entry(position) };
        other.append(&entry).await.unwrap();
    }
    // The new log stands where the old one stood.
    let outcome = engine.append(&entry(4)).await;
    assert!(
        matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
        "{outcome:?}"
    );
    let ended = timeout(HANG, async {
        loop {
            match follower.next().await {
                Ok(followed) => assert_eq!(followed.batches, []),
                Err(error) => return error,
            }
        }
    });
    let error = ended.await.unwrap();
    assert!(matches!(error, EngineError::Away(_)), "{error}");
    let error = engine.follow(Position(4)).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, EngineError::Broken(text) if text.contains("another log")), "{error}");
    assert_eq!(engine.look().await.unwrap().unwrap().identity, identity(2));
}
