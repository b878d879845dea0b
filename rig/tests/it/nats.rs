//! A cluster of real `nats-server` processes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use herald_rig::{
    Cut,
    nats::{Cluster, Settings},
};

/// A client of a few lines: one request, one answer.
fn request(address: SocketAddr, subject: &str, payload: &str) -> String {
    // A leader that has just been chosen may not be known everywhere yet.
    loop {
        if let Some(answer) = try_request(address, subject, payload) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `None` when nobody is there to answer.
fn try_request(address: SocketAddr, subject: &str, payload: &str) -> Option<String> {
    let mut socket = TcpStream::connect(address).expect("a node listens");
    let len = payload.len();
    write!(
        socket,
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB answer 1\r\n\
         PUB {subject} answer {len}\r\n{payload}\r\n"
    )
    .expect("a node reads");
    let mut lines = BufReader::new(socket).lines().map_while(Result::ok);
    let head =
        lines.find(|line| line.starts_with("MSG") || line.starts_with("HMSG")).expect("an answer");
    head.starts_with("MSG").then(|| lines.next().expect("a payload"))
}

fn make_stream(cluster: &Cluster) {
    let replicas = cluster.len();
    let config = format!(
        r#"{{"name":"herald","subjects":["herald"],"storage":"file","num_replicas":{replicas}}}"#
    );
    let answer = request(cluster.addresses()[0], "$JS.API.STREAM.CREATE.herald", &config);
    assert!(!answer.contains("\"error\""), "{answer}");
}

fn messages(address: SocketAddr) -> u64 {
    let answer = request(address, "$JS.API.STREAM.INFO.herald", "");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    answer["state"]["messages"].as_u64().expect("a number")
}

fn append(address: SocketAddr) {
    let answer = request(address, "herald", "a batch");
    assert!(answer.contains("\"seq\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_leads_when_the_leader_is_killed_and_the_old_one_comes_back_where_it_was() {
    let cluster = Cluster::start(3).await.unwrap();
    make_stream(&cluster);
    let old = cluster.stream_leader("herald").await.unwrap();
    let addresses = cluster.addresses();
    append(addresses[old]);
    cluster.kill(old);
    assert!(!cluster.is_running(old));
    let new = cluster.stream_leader("herald").await.unwrap();
    assert_ne!(new, old);
    append(addresses[new]);

    cluster.restart(old).unwrap();
    cluster.ready().await.unwrap();
    assert_eq!(cluster.addresses(), addresses);
    assert_eq!(messages(addresses[old]), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_from_the_others_leads_no_more() {
    let cluster = Settings { linked: true, ..Settings::default() }.start().await.unwrap();
    make_stream(&cluster);
    let old = cluster.stream_leader("herald").await.unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != old).collect();
    others.iter().for_each(|other| cluster.cut(old, *other, Cut::Reset));
    let new = loop {
        // The others need a moment to notice.
        let leader = cluster.stream_leader("herald").await.unwrap();
        if leader != old {
            break leader;
        }
    };
    append(cluster.addresses()[new]);
    assert!(cluster.is_running(old), "it can still be reached");
    cluster.heal();
    // Until it has heard of the others it still answers as a leader, with what it knew.
    while messages(cluster.addresses()[old]) != 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_acknowledged_is_lost_when_an_older_store_is_put_back() {
    let cluster = Cluster::start(1).await.unwrap();
    let address = cluster.addresses()[0];
    make_stream(&cluster);
    append(address);
    assert!(cluster.terminate(0).await.unwrap().code().is_some());
    let kept = cluster.keep(0).await.unwrap();
    cluster.restart(0).unwrap();
    cluster.ready().await.unwrap();
    append(address);
    assert_eq!(messages(address), 2);
    assert!(cluster.wipe(0).is_err(), "it runs");
    cluster.kill(0);
    cluster.put_back(0, &kept).await.unwrap();
    cluster.restart(0).unwrap();
    cluster.ready().await.unwrap();
    assert_eq!(messages(address), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_how_the_server_syncs() {
    let cluster = Cluster::start(1).await.unwrap();
    let answer = request(cluster.addresses()[0], "$SYS.REQ.SERVER.PING.JSZ", "");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["data"]["config"]["sync_always"], true, "{answer}");
}
