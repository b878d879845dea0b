//! Who appends and who polls through the balancer meanwhile.

use std::{sync::Arc, time::Duration};

use herald_client::Client;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use uuid::Uuid;

use super::{End, HER_ID_COUNT, HER_IDS};
use crate::support::{
    drafts::{Draft, ndjson},
    http::{self, identified, try_poll},
};

/// Producers that give ids, and repeat with the same ids whatever does not succeed.
const PRODUCERS: u64 = 3;
/// The most drafts of a request.
const DRAFTS_MAX: usize = 8;
/// How often each appends: enough that something is under way at every moment, and no more than two cores do on the side.
const APPEND_EVERY: Duration = Duration::from_millis(200);
/// Pollers, each for its part of the receivers.
const POLLERS: usize = 5;
const POLL_EVERY: Duration = Duration::from_millis(200);

/// Drafts as they were given, and the offsets that were answered.
#[derive(Default)]
pub(crate) struct Appended {
    pub(crate) with_ids: Vec<(Draft, u64)>,
    pub(crate) without_ids: Vec<(Uuid, Fate)>,
    /// How often a draft without an id was refused, and so sent again.
    pub(crate) refused: usize,
}

/// What a producer without ids knows of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    Unknown,
}

/// The producers at work.
pub(crate) struct Producers {
    is_over: watch::Sender<bool>,
    tasks: JoinSet<Appended>,
}

impl Producers {
    pub(crate) fn start(url: &str) -> Self {
        let is_over = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for number in 0..PRODUCERS {
            let client = Client::new(url, "producer").expect("a client");
            tasks.spawn(produce(client, number, is_over.subscribe()));
        }
        tasks.spawn(produce_without_ids(url.to_owned(), is_over.subscribe()));
        Self { is_over, tasks }
    }

    /// Ends them, each behind its last answer, and appends one notification for each receiver: whoever has that has seen all.
    pub(crate) async fn end(self, url: &str) -> (Appended, Arc<End>) {
        self.is_over.send_replace(true);
        let mut all = Appended::default();
        for one in self.tasks.join_all().await {
            all.with_ids.extend(one.with_ids);
            all.without_ids.extend(one.without_ids);
            all.refused += one.refused;
        }
        let mut rng = StdRng::seed_from_u64(PRODUCERS);
        let last = HER_IDS.map(|her_id| Draft::random(&mut rng, &[her_id])).collect();
        let last = append(&Client::new(url, "producer").expect("a client"), last).await;
        let newest =
            last.iter().map(|(draft, offset)| (draft.notification_receiver_her_id, *offset));
        let end = End(newest.collect());
        all.with_ids.extend(last);
        (all, Arc::new(end))
    }
}

/// Stores these drafts, once each however often it takes.
pub(crate) async fn append(client: &Client, drafts: Vec<Draft>) -> Vec<(Draft, u64)> {
    loop {
        match client.append_lines(ndjson(&drafts).into()).await {
            Ok(appended) => {
                let answers = appended.answers.iter().map(|one| one.fields().expect("fields"));
                return drafts.into_iter().zip(answers.map(|one| one.offset.get())).collect();
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// So many drafts, for some of the receivers.
pub(crate) fn drafts(rng: &mut StdRng, count: usize) -> Vec<Draft> {
    let her_ids: Vec<u32> = HER_IDS.collect();
    (0..count).map(|_| Draft::random(rng, &her_ids)).collect()
}

async fn produce(client: Client, seed: u64, is_over: watch::Receiver<bool>) -> Appended {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pace = pace(APPEND_EVERY);
    let mut all = Appended::default();
    while !*is_over.borrow() {
        pace.tick().await;
        let count = rng.random_range(1..=DRAFTS_MAX);
        let drafts = drafts(&mut rng, count);
        all.with_ids.extend(append(&client, drafts).await);
    }
    all
}

/// Repeats only what was refused before anything happened; the server gives the ids.
async fn produce_without_ids(url: String, is_over: watch::Receiver<bool>) -> Appended {
    let client = http::client();
    let mut rng = StdRng::seed_from_u64(PRODUCERS + 1);
    let mut pace = pace(APPEND_EVERY);
    let mut all = Appended::default();
    while !*is_over.borrow() {
        let draft = drafts(&mut rng, 1).remove(0);
        let mut body = json!(draft);
        body.as_object_mut().expect("an object").remove("notificationId");
        let body = json!({ "notifications": [body] }).to_string();
        loop {
            pace.tick().await;
            if let Some(fate) = append_without_id(&client, &url, &body).await {
                all.without_ids.push((draft.related_message_id, fate));
                break;
            }
            all.refused += 1;
        }
    }
    all
}

/// `None` when it was refused, and so may be repeated.
async fn append_without_id(client: &reqwest::Client, url: &str, body: &str) -> Option<Fate> {
    let post = identified(client.post(format!("{url}/notifications")));
    let post = post.header("content-type", "application/json").body(body.to_owned());
    let Ok(answer) = post.send().await else { return Some(Fate::Unknown) };
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    match status {
        201 => Some(Fate::Stored),
        503 => {
            let problem: Value = serde_json::from_str(&text).unwrap_or_default();
            let is_unknown = problem["type"] == "urn:herald:problem:outcome-unknown";
            is_unknown.then_some(Fate::Unknown)
        }
        // Of the balancer itself: it does not know what a replica that broke off has done.
        502 | 504 => Some(Fate::Unknown),
        _ => panic!("{status}: {text}"),
    }
}

/// What a poller was given.
pub(crate) struct Polled {
    pub(crate) receivers: Vec<u32>,
    pub(crate) given: Vec<(u64, String)>,
}

/// Starts pollers, each with a cursor, until the end that `end` will tell.
pub(crate) fn poll_all(url: &str, end: &watch::Receiver<Option<Arc<End>>>) -> JoinSet<Polled> {
    let mut pollers = JoinSet::new();
    for receivers in HER_IDS.collect::<Vec<u32>>().chunks(HER_ID_COUNT / POLLERS) {
        pollers.spawn(poll_on(url.to_owned(), receivers.to_vec(), end.clone()));
    }
    pollers
}

async fn poll_on(
    url: String,
    receivers: Vec<u32>,
    end: watch::Receiver<Option<Arc<End>>>,
) -> Polled {
    let client = http::client();
    let mut pace = pace(POLL_EVERY);
    let (mut given, mut after) = (Vec::new(), 0);
    loop {
        let newest = end.borrow().as_ref().map(|end| end.of(&receivers));
        if newest.is_some_and(|newest| after >= newest) {
            return Polled { receivers, given };
        }
        pace.tick().await;
        // A connection that the balancer closes just now is no answer; any answer must be a page.
        let Ok(page) = try_poll(&client, &url, &receivers, after, 1000).await else { continue };
        assert!(page.until >= after, "a cursor does not go back");
        given.extend(page.notifications);
        after = page.until;
    }
}

fn pace(every: Duration) -> tokio::time::Interval {
    let mut pace = interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
