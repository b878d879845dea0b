//! Against real servers.

mod access;
mod cluster;
mod single;

use herald_rig::postgres::Cluster;
use uuid::Uuid;

use super::*;
use crate::order::engine::{Follow as _, Followed, Place};

/// Longer than anything here takes; it only ends a test that hangs.
const HANG: Duration = Duration::from_secs(60);

fn engine(url: &str) -> Postgres {
    engine_with(url, None).unwrap()
}

fn engine_with(url: &str, ca_file: Option<std::path::PathBuf>) -> Result<Postgres, String> {
    let crate::OrderPlace::Postgres(url) = url.parse().unwrap() else { panic!("{url}") };
    Postgres::new(&url, &EngineSettings { ca_file, credentials_file: None, retention: None })
}

fn identity(seed: u128) -> Identity {
    let (history, log_id) = (Uuid::from_u128(seed), Uuid::from_u128(seed + 1));
    Identity { history, log_id, salt: u64::MAX - 5, is_seeding: false }
}

const START: Place = Place { position: Position(0), batch_id: 0 };

fn place(position: u64, batch_id: u128) -> Place {
    Place { position: Position(position), batch_id }
}

fn entry(after: Place, batch_id: u128, frame: &[u8]) -> Entry {
    let (log_id, frame) = (identity(1).log_id, Bytes::copy_from_slice(frame));
    let tail = after.position.0 + 1;
    Entry { log_id, after, batch_id, frame, tail, time_ms: 1000 * tail }
}

/// Appends so many, each with its position as its id.
async fn fill(engine: &Postgres, until: u64) {
    for position in 0..until {
        let id = u128::from(position);
        engine.append(&entry(place(position, id), id + 1, b"some bytes")).await.unwrap();
    }
}

/// Follows until so many batches have come.
async fn follow_up(follow: &mut PostgresFollow, count: usize) -> Vec<(Position, Bytes)> {
    let mut all = Vec::new();
    while all.len() < count {
        let followed = timeout(HANG, follow.next()).await.expect("a sign of life");
        let Followed { batches, newest } = followed.unwrap();
        all.extend(batches);
        assert!(all.last().is_none_or(|(last, _)| *last <= newest));
    }
    all
}

fn positions(batches: &[(Position, Bytes)]) -> Vec<u64> {
    batches.iter().map(|(position, _)| position.0).collect()
}

/// A server with a log in its database `herald`.
async fn made() -> (Cluster, Postgres) {
    let cluster = Cluster::start_alone().await.unwrap();
    let engine = engine(&cluster.url());
    engine.create(&identity(1)).await.unwrap();
    (cluster, engine)
}

/// Asks the first node.
async fn sql(cluster: &Cluster, text: &str) -> String {
    cluster.query_in(0, "herald", text).await.unwrap()
}

/// Asks it until the answer is the one that is waited for.
async fn until(cluster: &Cluster, question: &str, answer: &str) {
    let asking = async { while sql(cluster, question).await != answer {} };
    timeout(HANG, asking).await.unwrap_or_else(|_| panic!("{question} is not {answer}"));
}

/// Changes a setting of the server, and waits until it is in force.
async fn set(cluster: &Cluster, name: &str, value: &str) {
    sql(cluster, &format!("ALTER SYSTEM SET {name} = {value}")).await;
    sql(cluster, "SELECT pg_reload_conf()").await;
    until(cluster, &format!("SELECT current_setting('{name}')"), value).await;
}
