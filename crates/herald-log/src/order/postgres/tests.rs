//! Against real servers.

mod servers;

use uuid::Uuid;

use super::*;
use crate::order::engine::{Follow as _, Followed, Place};
use servers::Servers;

fn engine(url: &str) -> Postgres {
    let settings = EngineSettings { ca_file: None, credentials_file: None, retention: None };
    let place = url.parse().unwrap();
    let crate::OrderPlace::Postgres(url) = place else { panic!("{url}") };
    Postgres::new(&url, &settings).unwrap()
}

fn identity(seed: u128) -> Identity {
    let (history, log_id) = (Uuid::from_u128(seed), Uuid::from_u128(seed + 1));
    Identity { history, log_id, salt: u64::MAX - 5, is_seeding: false }
}

const START: Place = Place { position: Position(0), batch_id: 0 };

fn entry(after: Place, batch_id: u128, frame: &[u8]) -> Entry {
    let frame = Bytes::copy_from_slice(frame);
    let tail = after.position.0 + 1;
    Entry { log_id: Uuid::nil(), after, batch_id, frame, tail, time_ms: 1000 * tail }
}

fn place(position: u64, batch_id: u128) -> Place {
    Place { position: Position(position), batch_id }
}

/// Follows until so many batches have come.
async fn follow_up(follow: &mut PostgresFollow, count: usize) -> Vec<(Position, Bytes)> {
    let mut all = Vec::new();
    while all.len() < count {
        let Followed { batches, newest } = follow.next().await.unwrap();
        all.extend(batches);
        assert!(all.last().is_none_or(|(last, _)| *last <= newest));
    }
    all
}

#[tokio::test]
async fn a_log_is_made_once_and_gives_what_was_appended() {
    let servers = Servers::one("").await;
    let engine = engine(&servers.url("postgres"));
    assert_eq!(engine.look().await.unwrap(), None);
    engine.create(&identity(1)).await.unwrap();
    engine.create(&identity(7)).await.unwrap();
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!(look.identity, identity(1));
    assert_eq!((look.first, look.newest, look.term), (Position(1), Position(0), 1));

    let mut follow = engine.follow(Position(1)).await.unwrap();
    engine.append(&entry(START, 10, b"one")).await.unwrap();
    let twice = engine.append(&entry(START, 10, b"one")).await;
    assert!(matches!(twice, Err(AppendFailure::Conflict)), "{twice:?}");
    engine.append(&entry(place(1, 10), 11, b"two")).await.unwrap();
    for after in [place(1, 10), place(2, 10), place(3, 11), place(0, 0)] {
        let outcome = engine.append(&entry(after, 12, b"three")).await;
        assert!(matches!(outcome, Err(AppendFailure::Conflict)), "{after:?}: {outcome:?}");
    }
    let big = vec![7; 7 << 20];
    engine.append(&entry(place(2, 11), 12, &big)).await.unwrap();
    let expected = [
        (Position(1), Bytes::from_static(b"one")),
        (Position(2), Bytes::from_static(b"two")),
        (Position(3), Bytes::from(big)),
    ];
    assert_eq!(follow_up(&mut follow, 3).await, expected);
    let mut other = engine.follow(Position(2)).await.unwrap();
    assert_eq!(follow_up(&mut other, 2).await, expected[1..]);
    assert_eq!(engine.read(Position(2)).await.unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(engine.read(Position(4)).await.unwrap(), None);
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!((look.first, look.newest), (Position(1), Position(3)));
}
