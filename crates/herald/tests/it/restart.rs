//! A restart of the real server under open streams and running appends: nobody loses or repeats anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{
    drafts::{AppendAnswer, Appended, Draft, json},
    http::{self, Events, identified, poll_through},
    server::Server,
};

const READERS: usize = 200;
const PRODUCERS: usize = 4;
const RESTARTS: usize = 2;
const HER_IDS: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
/// How long a client that was refused waits; the real one waits longer.
const RETRY_WAIT: Duration = Duration::from_millis(20);
/// Longer than anything here may take; never waited for when all is well.
const PATIENCE: Duration = Duration::from_secs(60);
const BATCH: usize = 5;
const FLAGS: [&str; 4] = ["--drain", "2s", "--heartbeat", "1s"];

/// Where the server is now, and whether the producers may stop.
#[derive(Clone)]
struct World {
    client: reqwest::Client,
    url: Arc<Mutex<String>>,
    enough: watch::Receiver<bool>,
}

impl World {
    fn url(&self) -> String {
        self.url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Appends batch after batch, each repeated with the same ids until it is answered; what was acknowledged.
async fn produce(world: World, seed: u64) -> Vec<(Draft, Appended)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut acknowledged = Vec::new();
    while !*world.enough.borrow() {
        let drafts: Vec<Draft> = (0..BATCH).map(|_| Draft::random(&mut rng, &HER_IDS)).collect();
        loop {
            let request = world.client.post(format!("{}/notifications", world.url()));
            let request = identified(request).header("content-type", "application/json");
            match request.body(json(&drafts)).send().await {
                Ok(answer) if answer.status() == 201 => {
                    // The answer may be cut by the end of the process, like any other: then it is asked for again.
                    if let Ok(text) = answer.text().await {
                        let answer: AppendAnswer = serde_json::from_str(&text).expect("JSON");
                        acknowledged.extend(drafts.into_iter().zip(answer.notifications));
                        break;
                    }
                }
                Ok(answer) => assert_eq!(answer.status(), 503),
                Err(_) => {}
            }
            sleep(RETRY_WAIT).await;
        }
        sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

/// Streams one receiver's notifications, resuming behind the last one, up to `last`.
async fn read(
    world: World,
    her_id: u32,
    mut last: watch::Receiver<Option<u64>>,
) -> Vec<(u64, String)> {
    let mut read: Vec<(u64, String)> = Vec::new();
    loop {
        let after = read.last().map_or(0, |(offset, _)| *offset);
        if last.borrow().is_some_and(|last| after >= last) {
            return read;
        }
        let Some(mut events) = Events::open(&world.client, &world.url(), &[her_id], after).await
        else {
            sleep(RETRY_WAIT).await;
            continue;
        };
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => read.push(event),
                    None => break,
                },
                _ = last.changed() => {}
            }
            let after = read.last().map_or(0, |(offset, _)| *offset);
            if last.borrow().is_some_and(|last| after >= last) {
                return read;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_200_streams_and_running_appends_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(dir.path(), &FLAGS).await;
    let (enough, enough_seen) = watch::channel(false);
    let (lasts, _): (Vec<_>, Vec<_>) = HER_IDS.iter().map(|_| watch::channel(None)).unzip();
    let client = http::client();
    let world = World {
        client: client.clone(),
        url: Arc::new(Mutex::new(server.url())),
        enough: enough_seen,
    };

    let mut producers = JoinSet::new();
    for seed in 0..PRODUCERS as u64 {
        producers.spawn(produce(world.clone(), seed));
    }
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let her_id = HER_IDS[number % HER_IDS.len()];
        let last = lasts[number % HER_IDS.len()].subscribe();
        let world = world.clone();
        readers.spawn(async move { (her_id, read(world, her_id, last).await) });
    }
    for _ in 0..RESTARTS {
        // All are connected, and something has been appended since the start.
        streams_open(&client, &server, READERS).await;
        server.signal("-TERM");
        let (status, log) = server.ended();
        assert_eq!(status.code(), Some(0), "{log:#?}");
        server = Server::start(dir.path(), &FLAGS).await;
        *world.url.lock().unwrap_or_else(PoisonError::into_inner) = server.url();
    }
    streams_open(&client, &server, READERS).await;
    enough.send(true).expect("the producers listen");
    let acknowledged: Vec<_> = producers.join_all().await.into_iter().flatten().collect();

    let mut expected = BTreeMap::new();
    for (her_id, last) in HER_IDS.into_iter().zip(&lasts) {
        let all = poll_through(&client, &server.url(), &[her_id], 0).await;
        last.send(Some(all.last().map_or(0, |(offset, _)| *offset))).expect("the readers listen");
        expected.insert(her_id, all);
    }
    assert!(acknowledged.len() >= PRODUCERS * BATCH * RESTARTS);
    let stored: usize = expected.values().map(Vec::len).sum();
    assert_eq!(stored, acknowledged.len(), "each draft is stored once");
    for (draft, appended) in &acknowledged {
        let all = &expected[&draft.notification_receiver_her_id];
        let at = all.binary_search_by_key(&appended.offset, |(offset, _)| *offset);
        let object = &all[at.expect("an acknowledged draft is stored")].1;
        assert!(object.contains(&draft.notification_id.to_string()), "{object}");
    }
    let readers = timeout(PATIENCE, readers.join_all()).await.expect("every reader gets all");
    for (her_id, read) in readers {
        assert!(read == expected[&her_id], "a reader of {her_id} lost or repeated something");
    }
    assert_eq!(server.stop().code(), Some(0));
}

/// Waits until so many streams are open.
async fn streams_open(client: &reqwest::Client, server: &Server, count: usize) {
    let url = format!("http://{}/metrics", server.ops);
    let wanted = format!("\nherald_open_streams {count}\n");
    let opening = async {
        loop {
            let text = client.get(&url).send().await.expect("metrics").text().await.expect("text");
            if text.contains(&wanted) {
                return;
            }
            sleep(RETRY_WAIT).await;
        }
    };
    timeout(PATIENCE, opening).await.expect("all streams open");
}
