//! Replicas behind real balancers: one that stops, or is gone, is nothing that a client hears of.

use std::time::Duration;

use herald_rig::{
    balancer::{Balancer, Kind},
    replica::{Replica, Settings},
};
use reqwest::Client;

use crate::support::http::{self, Events, identified};

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
