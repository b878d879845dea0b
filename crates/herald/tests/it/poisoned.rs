//! A log poisoned by a failed sync: it says so, acknowledges nothing more, and loses nothing that it acknowledged.

use rand::{SeedableRng as _, rngs::StdRng};
use reqwest::Client;
use serde_json::Value;

use crate::support::{
    drafts::{self, AppendAnswer, Appended, Draft},
    failing_sync::FailingSync,
    http::{self, Events, identified, poll, poll_through},
    server::Server,
};

const HER_IDS: [u32; 2] = [8_139_764, 8_139_765];

/// What the server stored, or the problem.
async fn append(client: &Client, url: &str, drafts: &[Draft]) -> Result<Vec<Appended>, Value> {
    let post = identified(client.post(format!("{url}/notifications")));
    let post = post.header("content-type", "application/json").body(drafts::json(drafts));
    let answer = post.send().await.expect("an append is answered");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.expect("a body");
    if status == 201 {
        let answer: AppendAnswer = serde_json::from_str(&text).expect("an answer to an append");
        return Ok(answer.notifications);
    }
    assert_eq!(status, 503, "{text}");
    assert!(headers.contains_key("retry-after"), "{text}");
    Err(serde_json::from_str(&text).expect("a problem"))
}

async fn ops(client: &Client, server: &Server, path: &str) -> (u16, String) {
    let answer = client.get(format!("http://{}{path}", server.ops)).send().await;
    let answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

/// The objects' offsets and ids.
fn ids(polled: &[(u64, String)]) -> Vec<(u64, String)> {
    let id = |object: &str| {
        serde_json::from_str::<Value>(object).expect("JSON")["notificationId"].to_string()
    };
    polled
        .iter()
        .map(|(offset, object)| (*offset, id(object).trim_matches('"').to_owned()))
        .collect()
}

async fn next_of(stream: &mut Events, count: usize) -> Vec<(u64, String)> {
    let mut streamed = Vec::new();
    while streamed.len() < count {
        streamed.push(stream.next().await.expect("a stream goes on"));
    }
    streamed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_acknowledging_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let syncs = FailingSync::build(dir.path());
    let server = Server::start_in(&syncs.environment(), &data_dir, &["--drain", "1s"]).await;
    let (client, url) = (http::client(), server.url());
    let mut rng = StdRng::seed_from_u64(1);
    let mut drafts = |count: usize| -> Vec<Draft> {
        (0..count).map(|_| Draft::random(&mut rng, &HER_IDS)).collect()
    };

    let mut stored = Vec::new();
    let mut acknowledged = Vec::new();
    for count in [1, 30, 3] {
        let drafts = drafts(count);
        acknowledged.extend(append(&client, &url, &drafts).await.expect("the disk is sound"));
        stored.extend(drafts);
    }
    let of_acknowledged: Vec<(u64, String)> =
        acknowledged.iter().map(|one| (one.offset, one.notification_id.to_string())).collect();
    let tail = of_acknowledged[of_acknowledged.len() - 1].0;
    let before = poll_through(&client, &url, &HER_IDS, 0).await;
    assert_eq!(ids(&before), of_acknowledged);
    assert_eq!(ops(&client, &server, "/health/ready").await.0, 200);
    let (_, metrics) = ops(&client, &server, "/metrics").await;
    assert!(metrics.contains("herald_log_poisoned 0"), "nothing has failed yet");
    let mut open_stream = Events::open(&client, &url, &HER_IDS, 0).await.expect("a stream opens");

    syncs.begin();
    let unknown = drafts(2);
    let problem = append(&client, &url, &unknown).await.expect_err("its sync failed");
    assert_eq!(problem["type"], "urn:herald:problem:outcome-unknown", "{problem}");
    let refused = drafts(2);
    for again in [&refused, &unknown, &refused] {
        let problem = append(&client, &url, again).await.expect_err("the log is poisoned");
        assert_eq!(problem["type"], "urn:herald:problem:append-refused", "{problem}");
    }

    let (status, reason) = ops(&client, &server, "/health/ready").await;
    assert_eq!((status, reason.contains("log-poisoned")), (503, true), "{reason}");
    assert_eq!(ops(&client, &server, "/health/live").await.0, 200);
    let (_, metrics) = ops(&client, &server, "/metrics").await;
    assert!(metrics.contains("herald_log_poisoned 1"), "{metrics}");
    assert!(metrics.contains(&format!("herald_tail_offset {tail}")), "{metrics}");

    // Readers go on, and see nothing of what was not acknowledged.
    assert_eq!(poll_through(&client, &url, &HER_IDS, 0).await, before);
    assert_eq!(poll(&client, &url, &HER_IDS, tail, 10).await.until, tail);
    assert_eq!(next_of(&mut open_stream, before.len()).await, before);
    let mut late_stream = Events::open(&client, &url, &HER_IDS, 0).await.expect("a stream opens");
    assert_eq!(next_of(&mut late_stream, before.len()).await, before);
    assert!(server.stop().success(), "a poisoned server stops cleanly");
    assert_eq!(open_stream.next().await, None);
    assert_eq!(late_stream.next().await, None);

    let server = Server::start(&data_dir, &["--drain", "0s"]).await;
    let url = server.url();
    let (_, metrics) = ops(&client, &server, "/metrics").await;
    assert!(metrics.contains("herald_log_poisoned 0"), "{metrics}");
    let after = poll_through(&client, &url, &HER_IDS, 0).await;
    assert_eq!(after[..before.len()], before, "to the byte what was acknowledged");

    // All of it again with the same ids: nothing is stored twice, nothing has another offset than it had.
    let again = append(&client, &url, &stored).await.expect("the disk is sound");
    let duplicates = acknowledged.into_iter().map(|one| Appended { duplicate: true, ..one });
    assert_eq!(again, duplicates.collect::<Vec<_>>());
    let mut expected = of_acknowledged;
    for drafts in [&unknown, &refused] {
        let answers = append(&client, &url, drafts).await.expect("the disk is sound");
        expected.extend(answers.iter().map(|one| (one.offset, one.notification_id.to_string())));
    }
    assert!(expected.is_sorted_by(|one, next| one.0 < next.0), "{expected:?}");
    assert_eq!(ids(&poll_through(&client, &url, &HER_IDS, 0).await), expected);
}
