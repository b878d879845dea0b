//! Producers that repeat what they got no answer to, and a reader that resumes: the load under which the server is killed.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Client;

use super::model::Model;
use crate::support::{
    drafts::{self, AppendAnswer, Draft},
    http::{Events, client, identified},
};

/// Whom the producers write for; the first half is read by a stream all the time.
pub(crate) const HER_IDS: [u32; 8] = [1, 2, 77, 4711, 90_215, 8_139_764, 8_139_765, 2_147_483_647];
/// The most drafts of one JSON request here.
const JSON_DRAFTS_MAX: usize = 40;
/// The most drafts of one NDJSON request here.
const NDJSON_DRAFTS_MAX: usize = 250;

/// What all tasks of the test share.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    model: Arc<Mutex<Model>>,
    is_over: Arc<AtomicBool>,
}

impl Shared {
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("no task broke the model")
    }

    /// Says that the server has been killed (or is about to be), or lives again.
    pub(crate) fn set_over(&self, is_over: bool) {
        self.is_over.store(is_over, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// One producer, until the server is gone.
pub(crate) async fn produce(shared: Shared, url: String, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = client();
    while !shared.is_over() {
        let request = choose(&shared, &mut rng);
        send(&shared, &client, &url, request).await;
    }
}

/// Mostly something new; otherwise again what got no answer, or what got one.
fn choose(shared: &Shared, rng: &mut StdRng) -> usize {
    let mut model = shared.model();
    let count = model.requests.len();
    if count > 0 && rng.random_bool(0.3) {
        let from = rng.random_range(0..count);
        let open = (from..count).chain(0..from).find(|at| !model.requests[*at].is_acknowledged);
        return open.filter(|_| rng.random_bool(0.7)).unwrap_or(from);
    }
    let is_json = rng.random_bool(0.6);
    let max = if is_json { JSON_DRAFTS_MAX } else { NDJSON_DRAFTS_MAX };
    let drafts = (0..rng.random_range(1..=max)).map(|_| Draft::random(rng, &HER_IDS)).collect();
    model.add(drafts, is_json)
}

/// Sends a request and judges its answer, if one comes.
pub(crate) async fn send(shared: &Shared, client: &Client, url: &str, request: usize) {
    let (sent, before) = {
        let model = shared.model();
        (model.requests[request].clone(), model.before(request))
    };
    let (content_type, body) = if sent.is_json {
        ("application/json", drafts::json(&sent.drafts))
    } else {
        ("application/x-ndjson", drafts::ndjson(&sent.drafts))
    };
    let post = identified(client.post(format!("{url}/notifications")));
    let Ok(answer) = post.header("content-type", content_type).body(body).send().await else {
        return;
    };
    let status = answer.status();
    let Ok(text) = answer.text().await else { return };
    assert_eq!(status, 201, "{text}");
    let answer: AppendAnswer = serde_json::from_str(&text).expect("an answer to an append");
    shared.model().acknowledge(request, &answer.notifications, before);
}

/// A reader with a cursor: everything that a stream ever showed it.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) seen: Vec<(u64, String)>,
}

impl Reader {
    /// The receivers it reads for.
    pub(crate) const HER_IDS: &'static [u32] = HER_IDS.split_at(4).0;

    /// The last offset handled.
    pub(crate) fn after(&self) -> u64 {
        self.seen.last().map_or(0, |(offset, _)| *offset)
    }

    /// Streams on from its cursor, until the server is gone.
    pub(crate) async fn follow(mut self, shared: Shared, url: String) -> Self {
        let client = client();
        while !shared.is_over() {
            let Some(mut events) = Events::open(&client, &url, Self::HER_IDS, self.after()).await
            else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            while let Some((offset, object)) = events.next().await {
                assert!(offset > self.after(), "a stream ascends");
                shared.model().show(offset, &object);
                self.seen.push((offset, object));
            }
        }
        self
    }
}
