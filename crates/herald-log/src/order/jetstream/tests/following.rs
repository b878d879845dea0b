//! Followers: their order, their signs of life and their ends.

use futures_util::FutureExt as _;

use super::*;

#[tokio::test]
async fn a_follower_gives_each_batch_once_and_signs_of_life_in_between() {
    let (_cluster, engine) = single().await;
    let mut early = engine.follow(Position(1)).await.unwrap();
    let idle = timeout(HANG, early.next()).await.unwrap().unwrap();
    assert_eq!((idle.batches.len(), idle.newest), (0, Position(0)));
    append_all(&engine, 1..=10).await;
    assert_eq!(follow_until(&mut early, 1, 10).await, (1..=10).map(frame).collect::<Vec<_>>());
    let mut late = engine.follow(Position(7)).await.unwrap();
    let followed = timeout(HANG, late.next()).await.unwrap().unwrap();
    assert_eq!(followed.newest, Position(10), "it knows what is still to come");
    let more = 10 - 6 - followed.batches.len() as u64;
    follow_until(&mut late, 11 - more, 10).await;
    let idle = timeout(HANG, late.next()).await.unwrap().unwrap();
    assert_eq!((idle.batches.len(), idle.newest), (0, Position(10)));
    append_all(&engine, 11..=11).await;
    follow_until(&mut late, 11, 11).await;
}

#[tokio::test]
async fn a_follower_may_begin_before_its_first_batch_is_there() {
    let (_cluster, engine) = single().await;
    append_all(&engine, 1..=2).await;
    // The server begins at what it has, if it has less than was asked for.
    let mut follower = engine.follow(Position(5)).await.unwrap();
    append_all(&engine, 3..=6).await;
    assert_eq!(follow_until(&mut follower, 5, 6).await, [frame(5), frame(6)]);
}

#[tokio::test]
async fn a_long_log_is_followed_in_groups_however_often_the_caller_looks_away() {
    const LENGTH: u64 = 30_000;
    // A long log in little time: neither synced, nor waiting for each answer.
    let unsafe_settings =
        Settings { nodes: 1, sync_interval: "2m".to_owned(), ..Settings::default() };
    let cluster = unsafe_settings.start().await.unwrap();
    let engine = engine(&cluster.url());
    engine.create(&identity(1)).await.unwrap();
    let session = engine.link.session(Instant::now() + HANG).await.unwrap();
    let subject = engine.link.target.subject(identity(1).log_id);
    let stored = async {
        for position in 1..=LENGTH {
            session.client.publish(subject.clone(), frame(position)).await.unwrap();
            // The server drops what it can not keep up with.
            if position % 500 == 0 {
                while engine.look().await.unwrap().unwrap().newest.0 < position {}
            }
        }
    };
    timeout(HANG, stored).await.unwrap();
    let mut follower = engine.follow(Position(1)).await.unwrap();
    let (mut next, mut groups, mut cancelled) = (1, 0, 0);
    while next <= LENGTH {
        // Polled once and dropped: nothing may be lost by it.
        if groups % 2 == 0 {
            let once = follower.next().now_or_never();
            let Some(followed) = once else {
                cancelled += 1;
                groups += 1;
                continue;
            };
            next = check_group(next, followed.unwrap());
        } else {
            next = check_group(next, timeout(HANG, follower.next()).await.unwrap().unwrap());
        }
        groups += 1;
    }
    assert!(cancelled > 0 && groups < LENGTH / 8, "{cancelled} of {groups} groups cancelled");
}

fn check_group(mut next: u64, followed: crate::order::engine::Followed) -> u64 {
    for (position, bytes) in followed.batches {
        assert_eq!((position.0, bytes), (next, frame(next)));
        next += 1;
    }
    next
}

#[tokio::test]
async fn a_missing_batch_is_never_passed_over() {
    let cluster = Cluster::start(1).await.unwrap();
    let engine = engine(&cluster.url());
    let subject = engine.link.target.subject(identity(1).log_id);
    // As Herald would never make it: a batch can be deleted.
    let config = stream::settings("HERALD", &subject, &identity(1), None, 1);
    let config = stream::with(&config, "deny_delete", json!(false));
    ask(&engine, "STREAM.CREATE.HERALD", config).await;
    *engine.log_id.lock().unwrap() = Some(identity(1).log_id);
    append_all(&engine, 1..=9).await;
    let mut running = engine.follow(Position(1)).await.unwrap();
    follow_until(&mut running, 1, 9).await;
    ask(&engine, "STREAM.MSG.DELETE.HERALD", json!({"seq": 5})).await;
    let mut follower = engine.follow(Position(3)).await.unwrap();
    follow_until(&mut follower, 3, 4).await;
    let error = timeout(HANG, follower.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, EngineError::Broken(text) if text.contains("5 is not there any more")),
        "{error}"
    );
    assert_eq!(engine.read(Position(5)).await.unwrap(), None);
    append_all(&engine, 10..=10).await;
    follow_until(&mut running, 10, 10).await;
}

#[tokio::test]
async fn a_follower_whose_server_is_gone_or_says_nothing_ends() {
    let (cluster, engine) = single().await;
    append_all(&engine, 1..=2).await;
    let mut follower = engine.follow(Position(1)).await.unwrap();
    follow_until(&mut follower, 1, 2).await;
    cluster.stop(0);
    let error = end_of(&mut follower).await;
    assert!(matches!(error, EngineError::Away(_)), "{error}");
    // Whatever is asked of a server that says nothing is answered all the same.
    for _ in 0..2 {
        let error = timeout(HANG, engine.look()).await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Away(_)), "{error}");
        let error = timeout(HANG, engine.read(Position(1))).await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Away(_)), "{error}");
    }
    cluster.go_on(0);
    let mut follower = again(&engine, Position(2)).await;
    follow_until(&mut follower, 2, 2).await;
    cluster.kill(0);
    let error = end_of(&mut follower).await;
    assert!(matches!(error, EngineError::Away(_)), "{error}");
    let outcome = timeout(HANG, engine.append(&entry(3))).await.unwrap();
    assert!(
        matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
        "nothing was sent: {outcome:?}"
    );
    cluster.restart(0).unwrap();
    let mut follower = again(&engine, Position(1)).await;
    append_all(&engine, 3..=3).await;
    follow_until(&mut follower, 1, 3).await;
}

#[tokio::test]
async fn a_batch_that_a_silent_server_was_given_has_an_unknown_outcome() {
    let (cluster, engine) = single().await;
    append_all(&engine, 1..=1).await;
    cluster.stop(0);
    // A signal takes a moment to be felt.
    let mut at = 2;
    let outcome = loop {
        match timeout(HANG, engine.append(&entry(at))).await.unwrap() {
            Ok(()) => at += 1,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(outcome, AppendFailure::Unknown(_)), "{outcome:?}");
    cluster.go_on(0);
    // It is what it may be: there, or to be stored by the same bytes on the same condition.
    let settled = async {
        loop {
            match engine.append(&entry(at)).await {
                Ok(()) | Err(AppendFailure::Conflict) => return,
                Err(_) => {}
            }
        }
    };
    timeout(HANG, settled).await.unwrap();
    assert_eq!(engine.read(Position(at)).await.unwrap(), Some(frame(at)));
    assert_eq!(engine.look().await.unwrap().unwrap().newest, Position(at));
}

pub(super) async fn end_of(follower: &mut Follower) -> EngineError {
    timeout(HANG, async {
        loop {
            if let Err(error) = follower.next().await {
                return error;
            }
        }
    })
    .await
    .unwrap()
}

/// Looks and follows until that works, as every caller does.
pub(super) async fn again(engine: &Jetstream, from: Position) -> Follower {
    timeout(HANG, async {
        loop {
            match engine.look().await {
                Ok(_) => {}
                Err(EngineError::Away(_)) => continue,
                Err(error) => panic!("{error}"),
            }
            match engine.follow(from).await {
                Ok(follower) => return follower,
                Err(EngineError::Away(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
    .unwrap()
}
