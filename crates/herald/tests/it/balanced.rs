//! Replicas behind real balancers: one that stops, or is gone, is nothing that a client hears of, and an engine that is gone
//! nothing that a reader hears of.

use std::time::Duration;

use herald_rig::{
    balancer::{Balancer, Kind},
    nats,
    replica::{Replica, Settings},
};
use reqwest::Client;
use tokio::time::sleep;

use crate::support::http::{self, Events, identified};

/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(50);

async fn replica(name: &str) -> Replica {
    let settings = Settings::new(name, env!("CARGO_BIN_EXE_herald"), "local");
    settings.flags(&["--drain", "2s"]).start().await.expect("a replica")
}

async fn poll(client: &Client, url: &str) -> u16 {
    let poll = identified(client.get(format!("{url}/notifications?HerIds=7&Offset=0")));
    // A connection of its own: a balancer chooses by connection or by request.
    let poll = poll.header("connection", "close").timeout(Duration::from_secs(30));
    poll.send().await.expect("the balancer answers").status().as_u16()
}

async fn a_stop_and_a_kill_are_not_heard_of_behind(kind: Kind) {
    let (one, two) = tokio::join!(replica("one"), replica("two"));
    let balancer = Balancer::start(kind, &[one.backend(), two.backend()]).await.expect("starts");
    let (client, url) = (http::client(), balancer.url());
    let mut events = Events::open(&client, &url, &[7], 0).await.expect("a stream");
    let (streams, on_two) = ("herald_open_streams", two.metric("herald_open_streams"));
    let has_stream = on_two.await.expect("metrics") == Some(1.0);
    let (drains, stays) = if has_stream { (&two, &one) } else { (&one, &two) };
    assert_eq!(drains.metric(streams).await.expect("metrics"), Some(1.0));

    let drain = drains.terminate();
    let polls = async {
        // As long as it is there: ready, then draining, then gone.
        while drains.metric(streams).await.is_ok() {
            assert_eq!(poll(&client, &url).await, 200);
        }
        assert!(events.next().await.is_none(), "the stream ends");
    };
    let (status, ()) = tokio::join!(drain, polls);
    assert_eq!(status.expect("it ends").code(), Some(0));
    assert_eq!(drains.lines("\"draining\"").len(), 1);
    assert!(!drains.is_running());

    let ports = (drains.api(), drains.ops());
    drains.restart().expect("a start");
    drains.ready().await.expect("ready again");
    assert_eq!((drains.api(), drains.ops()), ports);
    stays.kill();
    assert_eq!(poll(&client, &url).await, 200);
    assert!(Events::open(&client, &url, &[7], 0).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_or_is_killed_is_not_heard_of_behind_haproxy() {
    a_stop_and_a_kill_are_not_heard_of_behind(Kind::HaProxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_or_is_killed_is_not_heard_of_behind_nginx() {
    a_stop_and_a_kill_are_not_heard_of_behind(Kind::Nginx).await;
}

async fn append(client: &Client, url: &str) -> u16 {
    let draft = r#"{"relatedMessageId":"0f84d750-8ce3-4471-a1ac-ab7a55e609c0","type":"NewMessage","notificationReceiverHerId":7}"#;
    let append = identified(client.post(format!("{url}/notifications")));
    let append = append.header("connection", "close").header("content-type", "application/json");
    let append = append.body(format!(r#"{{"notifications":[{draft}]}}"#));
    append.send().await.expect("the balancer answers").status().as_u16()
}

async fn reads_go_on_without_the_engine_behind(kind: Kind) {
    let engine = nats::Cluster::start(1).await.expect("NATS");
    let replica = |name| Settings::new(name, env!("CARGO_BIN_EXE_herald"), &engine.url()).start();
    let (one, two) = tokio::try_join!(replica("one"), replica("two")).expect("replicas");
    let balancer = Balancer::start(kind, &[one.backend(), two.backend()]).await.expect("starts");
    let (client, url) = (http::client(), balancer.url());
    assert_eq!(append(&client, &url).await, 201);

    engine.kill(0);
    for replica in [&one, &two] {
        while replica.metric("herald_engine_away").await.expect("metrics") != Some(1.0) {
            sleep(LOOK_EVERY).await;
        }
    }
    // Each replica refuses some of them.
    for _ in 0..6 {
        assert_eq!(append(&client, &url).await, 503);
        assert_eq!(poll(&client, &url).await, 200);
        assert!(Events::open(&client, &url, &[7], 0).await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_and_streams_go_on_behind_haproxy_while_the_engine_is_away() {
    reads_go_on_without_the_engine_behind(Kind::HaProxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_and_streams_go_on_behind_nginx_while_the_engine_is_away() {
    reads_go_on_without_the_engine_behind(Kind::Nginx).await;
}
