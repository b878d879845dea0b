//! Three servers: making the log, its replicas, and the loss of one server.

use herald_rig::Cut;

use super::{
    following::{again, end_of},
    *,
};

#[tokio::test]
async fn three_servers_keep_one_log_and_any_one_of_them_may_go() {
    let cluster = Cluster::start(3).await.unwrap();
    many_who_make_a_log_make_one(&cluster).await;
    too_few_replicas_are_raised(&cluster).await;
    the_largest_batch_is_read_from_another_server(&cluster).await;
    a_follower_ends_with_the_server_that_serves_it(&cluster).await;
}

async fn many_who_make_a_log_make_one(cluster: &Cluster) {
    let engines: Vec<Jetstream> = (1..=6).map(|_| engine(&cluster.url())).collect();
    let made = engines.iter().zip(1..).map(|(engine, number)| async move {
        // Late answers are what a busy cluster gives: the next look tells.
        match engine.create(&identity(number)).await {
            Ok(()) | Err(EngineError::Away(_)) => {}
            Err(error) => panic!("{error}"),
        }
    });
    futures_util::future::join_all(made).await;
    let mut logs = Vec::new();
    for engine in &engines {
        again(engine, Position(1)).await;
        logs.push(engine.look().await.unwrap().unwrap().identity.log_id);
    }
    logs.dedup();
    assert_eq!(logs.len(), 1, "{logs:?}");
    let info = ask(&engines[0], "STREAM.INFO.HERALD", json!({})).await;
    assert_eq!(info["config"]["num_replicas"], 3);
}

async fn too_few_replicas_are_raised(cluster: &Cluster) {
    let url = format!("{}?stream=FEW", cluster.url());
    let first = engine(&url);
    let subject = first.link.target.subject(identity(1).log_id);
    let config = stream::settings("FEW", &subject, &identity(1), stream::age(DAY), 1);
    ask(&first, "STREAM.CREATE.FEW", config).await;
    append_all(&first, 1..=3).await;
    let later = engine(&url);
    again(&later, Position(1)).await;
    let info = ask(&first, "STREAM.INFO.FEW", json!({})).await;
    assert_eq!(info["config"]["num_replicas"], 3);
    // It has no leader for a moment.
    append_until_stored(&later, 4).await;
    append_until_stored(&later, 5).await;
    let mut follower = again(&later, Position(1)).await;
    follow_until(&mut follower, 1, 5).await;
}

async fn the_largest_batch_is_read_from_another_server(cluster: &Cluster) {
    let url = |node: usize| format!("nats://{}?stream=LARGE", cluster.addresses()[node]);
    let any = engine(&url(0));
    create_at_last(&any).await;
    again(&any, Position(1)).await;
    let large = Bytes::from(vec![b'x'; link::PAYLOAD_MIN - 1024]);
    any.append(&Entry { frame: large.clone(), ..entry(1) }).await.unwrap();
    let leader = cluster.stream_leader("LARGE").await.unwrap();
    let other = engine(&url((leader + 1) % 3));
    assert_eq!(other.read(Position(1)).await.unwrap(), Some(large.clone()));
    let mut follower = again(&other, Position(1)).await;
    assert_eq!(follow_until(&mut follower, 1, 1).await, [large]);
}

async fn a_follower_ends_with_the_server_that_serves_it(cluster: &Cluster) {
    let engine = engine(&format!("{}?stream=FEW", cluster.url()));
    let mut follower = again(&engine, Position(1)).await;
    follow_until(&mut follower, 1, 5).await;
    let host: usize = follower.host().strip_prefix('n').unwrap().parse().unwrap();
    cluster.kill(host - 1);
    let error = end_of(&mut follower).await;
    assert!(matches!(error, EngineError::Away(_)), "{error}");
    let mut follower = again(&engine, Position(6)).await;
    append_until_stored(&engine, 6).await;
    follow_until(&mut follower, 6, 6).await;
    cluster.restart(host - 1).unwrap();
    cluster.ready().await.unwrap();
}

/// A cluster that has just started may not be able to at once.
pub(super) async fn create_at_last(engine: &Jetstream) {
    let created = async {
        while let Err(error) = engine.create(&identity(1)).await {
            assert!(matches!(error, EngineError::Away(_)), "{error}");
        }
    };
    timeout(HANG, created).await.unwrap();
}

/// Repeats the batch for a position until something stands there, as every caller does.
async fn append_until_stored(engine: &Jetstream, position: u64) {
    let stored = async {
        loop {
            match engine.append(&entry(position)).await {
                Ok(()) => break,
                // Perhaps with what a leader has that is none any more, and what will never be kept: it is left after a look.
                Err(AppendFailure::Conflict) => drop(engine.look().await),
                Err(_) => {}
            }
            if let Ok(Some(_)) = engine.read(Position(position)).await {
                break;
            }
        }
    };
    timeout(HANG, stored).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_cut_off_from_the_others_is_left() {
    let settings = Settings { linked: true, ..Settings::default() };
    let cluster = settings.start().await.unwrap();
    let any = engine(&cluster.url());
    create_at_last(&any).await;
    again(&any, Position(1)).await;
    append_until_stored(&any, 1).await;
    let leader = cluster.stream_leader("HERALD").await.unwrap();
    // The old leader, which takes itself for that for a while, and one that never was.
    for cut_off in [leader, (leader + 1) % 3] {
        let newest = any_newest(&any).await;
        let engine = engine(&cluster.url());
        let address = format!("nats://{}", cluster.addresses()[cut_off]);
        engine.link.servers.lock().unwrap().sort_by_key(|server| *server != address);
        let mut follower = again_until(&engine, 1, newest).await;
        assert_eq!(engine.link.session.lock().await.as_ref().unwrap().server, address);
        for other in (0..3).filter(|other| *other != cut_off) {
            cluster.cut(cut_off, other, Cut::Silence);
        }
        append_until_stored(&engine, newest + 1).await;
        let error = end_of(&mut follower).await;
        assert!(matches!(error, EngineError::Away(_)), "{error}");
        again_until(&engine, newest + 1, newest + 1).await;
        assert_ne!(engine.link.session.lock().await.as_ref().unwrap().server, address);
        cluster.heal();
        cluster.ready().await.unwrap();
    }
}

/// Follows until `until`, from the beginning again where the servers have not settled.
async fn again_until(engine: &Jetstream, from: u64, until: u64) -> Follower {
    timeout(HANG, async {
        loop {
            let mut follower = again(engine, Position(from)).await;
            if try_follow_until(&mut follower, from, until).await.is_ok() {
                return follower;
            }
        }
    })
    .await
    .unwrap()
}

async fn any_newest(engine: &Jetstream) -> u64 {
    timeout(HANG, async {
        loop {
            if let Ok(Some(look)) = engine.look().await {
                return look.newest.0;
            }
        }
    })
    .await
    .unwrap()
}
