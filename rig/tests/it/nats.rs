//! A cluster of real `nats-server` processes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use herald_rig::{
    Certificates, Cut,
    nats::{Access, Cluster, PASSWORD, Settings},
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

/// What a server says of itself to whoever connects.
fn info(address: SocketAddr) -> serde_json::Value {
    let socket = TcpStream::connect(address).expect("a node listens");
    let line = BufReader::new(socket).lines().next().expect("a line").expect("a text");
    serde_json::from_str(line.strip_prefix("INFO ").expect("INFO comes first")).expect("JSON")
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

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_clients_speak_tls_and_clients_need_a_password_if_it_is_set_so() {
    let certificates = tempfile::tempdir().unwrap();
    let tls = Certificates::make(certificates.path()).unwrap();
    let settings = Settings { tls: Some(tls), access: Access::Password, ..Settings::default() };
    // It is ready, so the nodes have found each other.
    let cluster = settings.start().await.unwrap();
    let info = info(cluster.addresses()[0]);
    assert_eq!((&info["tls_required"], &info["auth_required"]), (&true.into(), &true.into()));
    assert!(cluster.url().starts_with(&format!("tls://herald:{PASSWORD}@127.0.0.1:")));
    assert!(cluster.system_url().starts_with(&format!("tls://sys:{PASSWORD}@127.0.0.1:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_knows_no_way_but_its_own_and_loses_it_when_it_is_cut() {
    let settings = Settings { nodes: 1, access: Access::Token, ..Settings::default() };
    let cluster = settings.start().await.unwrap();
    let way = cluster.way().unwrap();
    let link = &way.links()[0];
    assert_eq!(way.url(), format!("nats://{PASSWORD}@{}", link.address()));
    let info = info(link.address());
    assert_eq!(info["auth_required"], true);
    assert!(info.get("connect_urls").is_none(), "{info}");
    way.cut(Cut::Reset);
    while TcpStream::connect(link.address()).is_ok() {}
    assert!(TcpStream::connect(link.target()).is_ok());
    way.heal();
    while TcpStream::connect(link.address()).is_err() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_cut_off_from_each_other_are_not_brought_together_by_a_third() {
    let cluster = Settings { linked: true, ..Settings::default() }.start().await.unwrap();
    // With the leader as the third, JetStream has all it needs.
    let third = cluster.meta_leader().await.unwrap();
    let others: Vec<usize> = (0..3).filter(|node| *node != third).collect();
    cluster.cut(others[0], others[1], Cut::Reset);
    // It tells each of the other as soon as that one connects.
    cluster.restart(others[1]).unwrap();
    cluster.ready().await.unwrap();
    assert_eq!(cluster.routes(third).await.unwrap(), others);
    assert_eq!(cluster.routes(others[0]).await.unwrap(), [third]);
    assert_eq!(cluster.routes(others[1]).await.unwrap(), [third]);
}
