//! A primary and two standbys, and what becomes of them.

use tokio::task::JoinSet;

use super::*;

/// A frame that says which batch it is.
fn named(after: Place, batch_id: u128) -> Entry {
    entry(after, batch_id, &batch_id.to_be_bytes())
}

fn name_of(frame: &Bytes) -> u128 {
    u128::from_be_bytes(frame[..].try_into().unwrap())
}

/// Appends batches as a sequencer does, through whatever happens: what is unknown is repeated until something
/// stands there.
async fn append_all(engine: &Postgres, ids: std::ops::Range<u128>) -> Vec<Place> {
    let begun = Instant::now();
    let mut acknowledged = Vec::new();
    let mut after = START;
    for id in ids {
        loop {
            assert!(begun.elapsed() < HANG, "{after:?}");
            match engine.append(&named(after, id)).await {
                Ok(()) => after = Place { position: after.position.next(), batch_id: id },
                Err(AppendFailure::Conflict) => {
                    let Ok(Some(frame)) = engine.read(after.position.next()).await else {
                        continue;
                    };
                    after = Place { position: after.position.next(), batch_id: name_of(&frame) };
                    if after.batch_id != id {
                        continue;
                    }
                }
                Err(AppendFailure::Away(_) | AppendFailure::Unknown(_)) => continue,
                Err(error @ AppendFailure::Refused(_)) => panic!("{error:?}"),
            }
            acknowledged.push(after);
            break;
        }
    }
    acknowledged
}

/// Follows until a batch is seen, through whatever happens.
async fn follow_to(engine: &Postgres, last: impl Fn(&[Place]) -> bool) -> Vec<Place> {
    let begun = Instant::now();
    let mut seen: Vec<Place> = Vec::new();
    loop {
        let from = seen.last().map_or(Position(1), |place| place.position.next());
        if let Ok(mut follow) = engine.follow(from).await {
            while let Ok(followed) = follow.next().await {
                for (position, frame) in followed.batches {
                    assert_eq!(position, seen.last().map_or(Position(1), |at| at.position.next()));
                    seen.push(Place { position, batch_id: name_of(&frame) });
                }
                if last(&seen) {
                    return seen;
                }
                assert!(begun.elapsed() < HANG, "{} seen", seen.len());
            }
        }
        assert!(begun.elapsed() < HANG, "{} seen", seen.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three appenders at once, and a follower that sees all they have done.
async fn compete(
    url: &str,
    each: u128,
    trouble: impl Future<Output = ()>,
) -> (Vec<Place>, Vec<Place>) {
    let mut appenders = JoinSet::new();
    for appender in 0..3 {
        let (url, first) = (url.to_owned(), appender * 1_000_000 + 1);
        appenders.spawn(async move { append_all(&engine(&url), first..first + each).await });
    }
    let follower = engine(url);
    let total = usize::try_from(each * 3).unwrap();
    let followed = follow_to(&follower, |seen| seen.len() >= total);
    let (seen, appended, ()) = tokio::join!(followed, appenders.join_all(), trouble);
    (seen, appended.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn competing_appenders_get_each_position_once_through_the_loss_of_the_primary() {
    let cluster = Cluster::start().await.unwrap();
    let url = cluster.url();
    engine(&url).create(&identity(1)).await.unwrap();
    let trouble = async {
        let watcher = engine(&url);
        while watcher.look().await.unwrap().unwrap().newest < Position(100) {}
        cluster.kill(0);
        cluster.fail_over(0).await.unwrap();
    };
    let (seen, mut acknowledged) = compete(&url, 150, trouble).await;
    acknowledged.sort_by_key(|place| place.position);
    // Each batch was acknowledged once, at a place of its own; and these are exactly those that were followed.
    assert_eq!(acknowledged, seen);
    let look = engine(&url).look().await.unwrap().unwrap();
    assert_eq!((look.term, look.newest), (2, seen.last().unwrap().position));
}

type Waiting = tokio::task::JoinHandle<Result<(), AppendFailure>>;

/// How many processes wait for a standby; of this database, since one of another may not have noticed that it need not wait
/// any more.
fn waiting(database: &str) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = '{database}'"
    )
}

/// A batch whose commit waits for standbys that are stopped.
async fn begin_waiting(cluster: &Cluster, database: &str) -> (Arc<Postgres>, Waiting) {
    let url = cluster.database(database).await.unwrap();
    let engine = Arc::new(engine(&url));
    engine.create(&identity(1)).await.unwrap();
    cluster.stop(1);
    cluster.stop(2);
    let appending = Arc::clone(&engine);
    let append = tokio::spawn(async move { appending.append(&named(START, 5)).await });
    until(cluster, &waiting(database), "1").await;
    (engine, append)
}

/// What can be seen is not followed as long as no standby has confirmed it; and it is, as soon as one has.
async fn assert_followed_only_when_safe(cluster: &Cluster, database: &str, engine: &Postgres) {
    assert!(engine.read(Position(1)).await.unwrap().is_some(), "it can be seen");
    let followed = engine.follow(Position(1)).await;
    assert!(matches!(followed, Err(EngineError::Away(_))), "not yet safe");
    // Nor is a process left that waits for a standby.
    until(cluster, &waiting(database), "0").await;
    cluster.go_on(1);
    cluster.go_on(2);
    assert_eq!(follow_to(engine, |seen| !seen.is_empty()).await, [place(1, 5)]);
}

/// Several ways, in one cluster, of which each takes some seconds to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_no_standby_has_confirmed_is_not_followed_until_one_has() {
    let cluster = Cluster::start().await.unwrap();
    within(&cluster, a_wait_that_is_cancelled(&cluster)).await;
    within(&cluster, a_wait_that_lasts(&cluster)).await;
    within(&cluster, a_wait_that_a_crash_ends(&cluster)).await;
}

/// Shows what the primary has done if this takes too long.
async fn within(cluster: &Cluster, steps: impl Future<Output = ()>) {
    if timeout(HANG, steps).await.is_err() {
        panic!("{}", std::fs::read_to_string(cluster.log(0)).unwrap());
    }
}

async fn a_wait_that_is_cancelled(cluster: &Cluster) {
    let (engine, append) = begin_waiting(cluster, "cancelled").await;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    sql(cluster, cancel).await;
    let outcome = append.await.unwrap();
    assert!(matches!(outcome, Err(AppendFailure::Unknown(_))), "{outcome:?}");
    assert_followed_only_when_safe(cluster, "cancelled", &engine).await;
}

async fn a_wait_that_lasts(cluster: &Cluster) {
    let (engine, append) = begin_waiting(cluster, "lasting").await;
    let outcome = append.await.unwrap();
    assert!(matches!(outcome, Err(AppendFailure::Unknown(_))), "{outcome:?}");
    // The same again waits behind the first, no longer than the server lets it, and leaves nothing behind.
    let outcome = engine.append(&named(START, 5)).await;
    assert!(
        matches!(outcome, Err(AppendFailure::Away(_) | AppendFailure::Unknown(_))),
        "{outcome:?}"
    );
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'herald'
                AND state = 'active'";
    until(cluster, ours, "1").await;
    cluster.go_on(1);
    cluster.go_on(2);
    assert_eq!(follow_to(&engine, |seen| !seen.is_empty()).await, [place(1, 5)]);
    let outcome = engine.append(&named(START, 5)).await;
    assert!(matches!(outcome, Err(AppendFailure::Conflict)), "{outcome:?}");
}

async fn a_wait_that_a_crash_ends(cluster: &Cluster) {
    let (engine, append) = begin_waiting(cluster, "crashed").await;
    cluster.kill(0);
    let outcome = append.await.unwrap();
    assert!(matches!(outcome, Err(AppendFailure::Unknown(_))), "{outcome:?}");
    cluster.restart(0).unwrap();
    while engine.look().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_followed_only_when_safe(cluster, "crashed", &engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_nobody_has_stopped_is_told_by_its_timeline() {
    let cluster = Cluster::start().await.unwrap();
    let url = cluster.url();
    let witness = engine(&url);
    witness.create(&identity(1)).await.unwrap();
    witness.append(&named(START, 5)).await.unwrap();
    let mut follow = witness.follow(Position(1)).await.unwrap();
    follow_up(&mut follow, 1).await;
    // It does not answer, is replaced, and comes back.
    cluster.stop(0);
    let outcome = witness.append(&named(place(1, 5), 6)).await;
    assert!(matches!(outcome, Err(AppendFailure::Unknown(_))), "{outcome:?}");
    while follow.next().await.is_ok() {}
    assert!(matches!(witness.look().await, Err(EngineError::Away(_))));
    cluster.promote(1).await.unwrap();
    cluster.follow(2, 1).await.unwrap();
    let look = witness.look().await.unwrap().unwrap();
    assert_eq!((look.term, look.newest), (2, Position(1)));
    witness.append(&named(place(1, 5), 7)).await.unwrap();
    cluster.go_on(0);
    // Whoever knows both takes the newer, whoever knows one is told which it is, and whoever has seen the newer
    // is told it, too, and appends nothing there.
    let alone = format!("postgres://postgres@{}/herald", cluster.addresses()[0]);
    assert_eq!(engine(&alone).look().await.unwrap().unwrap().term, 1);
    let look = engine(&url).look().await.unwrap().unwrap();
    assert_eq!((look.term, look.newest), (2, Position(2)));
    // Alone, it may be looked at; nothing is appended to it, and nobody follows it.
    cluster.kill(1);
    let look = loop {
        // The first may be told that its connection has ended.
        match witness.look().await {
            Ok(look) => break look.unwrap(),
            Err(error) => assert!(matches!(error, EngineError::Away(_)), "{error:?}"),
        }
    };
    assert_eq!(look.term, 1);
    let mut failure = witness.append(&named(place(2, 7), 8)).await.unwrap_err();
    // The first may have been under way on the connection that has ended.
    while let AppendFailure::Unknown(_) = failure {
        failure = witness.append(&named(place(2, 7), 8)).await.unwrap_err();
    }
    let AppendFailure::Away(error) = failure else { panic!("{failure:?}") };
    let told = herald_types::with_causes(&*error);
    assert!(told.contains("timeline 1"), "{told}");
    let look = async {
        loop {
            // The first may be told that its connection has ended.
            if let Ok(look) = witness.look().await {
                break look.unwrap();
            }
        }
    };
    let look = timeout(HANG, look).await.unwrap();
    assert_eq!((look.term, look.newest), (1, Position(1)));
    let outcome = witness.append(&named(place(1, 5), 8)).await;
    assert!(matches!(outcome, Err(AppendFailure::Away(_))), "{outcome:?}");
    let Err(EngineError::Away(source)) = witness.follow(Position(1)).await else {
        panic!("it must not be followed")
    };
    assert!(source.to_string().contains("timeline 1"), "{source}");
}
