//! Engines that lose what they have acknowledged: every replica that has seen it notices, says so, and takes nothing more,
//! since the numbers of what is lost are about to be given to something else.

use std::time::Duration;

use herald_rig::{
    nats, postgres,
    replica::{Replica, Settings},
};
use reqwest::Client;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::http::{self, identified};

const HER_ID: u32 = 8_139_764;
/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// More than a replica may take to answer an append.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// Replicas of one cluster.
struct Replicas {
    all: Vec<Replica>,
    client: Client,
}

impl Replicas {
    async fn start(count: usize, log: &str) -> Self {
        Self::start_with(count, log, &[]).await
    }

    async fn start_with(count: usize, log: &str, flags: &[&str]) -> Self {
        let settings =
            |number| Settings::new(&format!("r{number}"), env!("CARGO_BIN_EXE_herald"), log);
        let launch = |number| settings(number).flags(flags).launch().expect("a replica starts");
        let all: Vec<Replica> = (0..count).map(launch).collect();
        for replica in &all {
            replica.ready().await.expect("it is ready");
        }
        Self { all, client: http::client() }
    }

    /// One append to one of them: its status, and the offset or the problem.
    async fn append(&self, replica: &Replica) -> (u16, Value) {
        let draft = serde_json::json!({
            "notificationId": Uuid::new_v4(),
            "relatedMessageId": Uuid::new_v4(),
            "type": "NewMessage",
            "notificationReceiverHerId": HER_ID,
        });
        let body = serde_json::json!({ "notifications": [draft] }).to_string();
        let post = identified(self.client.post(format!("{}/notifications", replica.url())));
        let post = post.header("content-type", "application/json").body(body);
        let answer = post.timeout(ANSWERED_WITHIN).send().await.expect("an append is answered");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    /// Appends so many, in turn on all, until each is acknowledged; then waits until all replicas show the last.
    async fn append_all(&self, count: usize) {
        let mut newest = 0;
        for number in 0..count {
            let replica = &self.all[number % self.all.len()];
            newest = loop {
                // The engine may be electing a leader; what nobody has heard of is no loss.
                let (status, answer) = self.append(replica).await;
                if status == 201 {
                    break answer["notifications"][0]["offset"].as_u64().expect("an offset");
                }
                assert_eq!(status, 503, "{answer}");
                sleep(LOOK_EVERY).await;
            };
        }
        for replica in &self.all {
            while http::poll(&self.client, &replica.url(), &[HER_ID], 0, 1).await.tail < newest {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn health(&self, replica: &Replica) -> (u16, String) {
        let url = format!("http://{}/health/ready", replica.ops());
        let answer = self.client.get(url).send().await.expect("health is answered");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    /// Waits until a running replica has noticed, and looks at all that it then does.
    async fn notices(&self, replica: &Replica) {
        let health = loop {
            let (status, health) = self.health(replica).await;
            if status == 503 {
                break health;
            }
            sleep(LOOK_EVERY).await;
        };
        assert!(health.contains("history"), "{health}");
        let (status, problem) = self.append(replica).await;
        assert_eq!(status, 503, "{problem}");
        assert_eq!(problem["type"], "urn:herald:problem:append-refused", "{problem}");
        let lines = replica.lines("history");
        assert!(lines.iter().any(|line| line.contains("ERROR")), "{lines:?}");
        // What it has shown, it goes on showing.
        let page = http::poll(&self.client, &replica.url(), &[HER_ID], 0, 1).await;
        assert_eq!(page.notifications.len(), 1);
    }

    /// One that is started on such a log ends, and says why.
    async fn refuses_to_start(&self, replica: &Replica) {
        replica.kill();
        let before = replica.lines("history").len();
        replica.restart().expect("it is started");
        let status = replica.ended().await.expect("it ends by itself");
        assert_eq!(status.code(), Some(1));
        assert!(replica.lines("history").len() > before);
    }

    async fn all_notice_and_refuse_to_start(&self) {
        for replica in &self.all {
            self.notices(replica).await;
        }
        for replica in &self.all {
            self.refuses_to_start(replica).await;
        }
    }
}

/// Three nodes that have gone back to where they were before the newest batches.
async fn nats_that_loses(
    between: impl AsyncFn(&Replicas),
    replicas: &Replicas,
    nats: &nats::Cluster,
) {
    replicas.append_all(6).await;
    let mut kept = Vec::new();
    for node in 0..nats.len() {
        nats.terminate(node).await.expect("a node ends");
        kept.push(nats.keep(node).await.expect("its store is copied"));
    }
    (0..nats.len()).for_each(|node| nats.restart(node).expect("a node starts"));
    nats.ready().await.expect("all nodes are well");
    replicas.append_all(6).await;
    between(replicas).await;
    (0..nats.len()).for_each(|node| nats.kill(node));
    for (node, kept) in kept.iter().enumerate() {
        nats.put_back(node, kept).await.expect("its store is put back");
        nats.restart(node).expect("a node starts");
    }
    nats.ready().await.expect("all nodes are well");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_a_nats_cluster_has_lost_are_noticed_by_every_replica() {
    let nats = nats::Cluster::start(3).await.expect("NATS");
    let replicas = Replicas::start(3, &nats.url()).await;
    nats_that_loses(async |_| {}, &replicas, &nats).await;
    replicas.all_notice_and_refuse_to_start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_cluster_that_has_lost_batches_and_stored_others_in_their_place_is_noticed() {
    let nats = nats::Cluster::start(3).await.expect("NATS");
    let replicas = Replicas::start(2, &nats.url()).await;
    let [running, stopped] = &replicas.all[..] else { unreachable!("two were started") };
    // Neither sees how the log got shorter: one is not there, the other one is stopped.
    let leave = async |_: &Replicas| {
        running.kill();
        stopped.stop();
    };
    nats_that_loses(leave, &replicas, &nats).await;
    let other = Replicas::start(1, &nats.url()).await;
    other.append_all(12).await;
    stopped.go_on();
    replicas.notices(stopped).await;
    replicas.refuses_to_start(stopped).await;
    replicas.refuses_to_start(running).await;
    assert_eq!(other.health(&other.all[0]).await.0, 200, "it has seen nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_has_deleted_from_postgres_are_noticed_by_every_replica() {
    let postgres = postgres::Cluster::start_alone().await.expect("PostgreSQL");
    let replicas = Replicas::start(3, &postgres.url()).await;
    replicas.append_all(6).await;
    let delete =
        "DELETE FROM herald.batch WHERE position > (SELECT max(position) - 3 FROM herald.batch)";
    postgres.query_in(0, "herald", delete).await.expect("a superuser may");
    replicas.all_notice_and_refuse_to_start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_base_of_postgres_that_is_put_back_is_noticed_by_every_replica() {
    let postgres = postgres::Cluster::start().await.expect("PostgreSQL");
    let replicas = Replicas::start(3, &postgres.url()).await;
    replicas.append_all(6).await;
    let mut kept = Vec::new();
    for node in 0..postgres.len() {
        postgres.terminate(node).await.expect("a node ends");
        kept.push(postgres.keep(node).await.expect("its data is copied"));
    }
    (0..postgres.len()).for_each(|node| postgres.restart(node).expect("a node starts"));
    postgres.ready().await.expect("all nodes are well");
    replicas.append_all(6).await;
    (0..postgres.len()).for_each(|node| postgres.kill(node));
    for (node, kept) in kept.iter().enumerate() {
        postgres.put_back(node, kept).await.expect("its data is put back");
        postgres.restart(node).expect("a node starts");
    }
    postgres.ready().await.expect("all nodes are well");
    replicas.all_notice_and_refuse_to_start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_comes_back_in_place_of_the_new_one_is_noticed_by_every_replica() {
    let postgres = postgres::Cluster::start().await.expect("PostgreSQL");
    let replicas = Replicas::start(3, &postgres.url()).await;
    replicas.append_all(6).await;
    let old = postgres.primary().await.expect("a primary");
    // Not fenced, as the runbook says it must be.
    postgres.kill(old);
    let new = postgres.received_most().await.expect("a standby");
    postgres.promote(new).await.expect("it is promoted");
    let third = (0..3).find(|node| ![old, new].contains(node)).expect("three nodes");
    postgres.follow(third, new).await.expect("it follows");
    replicas.append_all(6).await;
    postgres.kill(new);
    postgres.kill(third);
    postgres.restart(old).expect("the old primary starts");
    replicas.all_notice_and_refuse_to_start().await;
}

/// The newest offset that retention has removed, as a replica's metrics say.
async fn trimmed(replicas: &Replicas, replica: &Replica) -> u64 {
    let url = format!("http://{}/metrics", replica.ops());
    let metrics =
        replicas.client.get(url).send().await.expect("metrics").text().await.expect("text");
    let line = metrics.lines().find_map(|line| line.strip_prefix("herald_trim_offset "));
    line.expect("it is always there").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_for_longer_than_batches_are_kept_ends_and_comes_back_whole() {
    let postgres = postgres::Cluster::start_alone().await.expect("PostgreSQL");
    let flags = ["--retention", "2s", "--drain", "2s"];
    let replicas = Replicas::start_with(2, &postgres.url(), &flags).await;
    replicas.append_all(4).await;
    let [away, other] = &replicas.all[..] else { unreachable!("two were started") };
    away.stop();
    for _ in 0..4 {
        assert_eq!(replicas.append(other).await.0, 201);
    }
    while trimmed(&replicas, other).await < 8 {
        sleep(LOOK_EVERY).await;
    }
    // As the upkeep of the others does after an hour.
    let delete =
        "DELETE FROM herald.batch WHERE position < (SELECT max(position) FROM herald.batch)";
    postgres.query_in(0, "herald", delete).await.expect("a superuser may");
    away.go_on();
    let status = away.ended().await.expect("it ends by itself");
    assert_eq!(status.code(), Some(1));
    assert!(!away.lines("this replica was away for too long").is_empty());
    away.restart().expect("its supervisor starts it again");
    away.ready().await.expect("its view is built again");
    let (status, answer) = replicas.append(away).await;
    assert_eq!((status, answer["notifications"][0]["offset"].as_u64()), (201, Some(9)));
}
