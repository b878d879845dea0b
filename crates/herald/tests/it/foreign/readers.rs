//! Readers of event streams: each pages through and streams 10,000 notifications, the last of them live, and must have
//! been given exactly the log.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use rand::{SeedableRng as _, rngs::StdRng};
use reqwest::Client;
use serde_json::Value;

use super::{program, run, script, tools};
use crate::support::{
    drafts::{AppendAnswer, Draft, ndjson},
    http::{client, identified, offset_of, poll_through, query},
    server::Server,
};

/// Whom the readers ask for.
const HER_IDS: [u32; 3] = [90_215, 8_139_764, 2_147_483_647];
/// Whom others ask for: gaps in the offsets.
const OTHER_HER_IDS: [u32; 2] = [7, 4711];
/// Appended before a reader comes, for it alone.
const STORED: usize = 9_000;
/// Appended while its stream is open.
const LIVE: usize = 1_000;

/// A server with a log, and what was appended for the readers.
struct Source {
    server: Server,
    client: Client,
    appended: Vec<Draft>,
    rng: StdRng,
    _home: tempfile::TempDir,
}

impl Source {
    async fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let server = Server::start(&home.path().join("data"), &[]).await;
        let (client, rng) = (client(), StdRng::seed_from_u64(10_000));
        let mut source = Self { server, client, appended: Vec::new(), rng, _home: home };
        source.append(STORED).await;
        source
    }

    /// Appends so many notifications for the readers, and every fifth as many for others between them.
    async fn append(&mut self, count: usize) {
        let mut drafts = Vec::new();
        for place in 0..count {
            let draft = Draft::random(&mut self.rng, &HER_IDS);
            self.appended.push(draft.clone());
            drafts.push(draft);
            if place % 5 == 0 {
                drafts.push(Draft::random(&mut self.rng, &OTHER_HER_IDS));
            }
        }
        let post = identified(self.client.post(format!("{}/notifications", self.server.url())));
        let post = post.header("content-type", "application/x-ndjson").body(ndjson(&drafts));
        let answer = post.send().await.expect("an append is answered");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert_eq!(status, 201, "{text}");
        let answer: AppendAnswer = serde_json::from_str(&text).expect("an answer to an append");
        assert_eq!(answer.notifications.len(), drafts.len());
    }

    /// The log as plain polls show it, which is what was appended.
    async fn log(&self) -> Vec<(u64, String)> {
        let log = poll_through(&self.client, &self.server.url(), &HER_IDS, 0).await;
        let shown = log.iter().map(|(_, object)| serde_json::from_str::<Draft>(object));
        let shown: Vec<Draft> = shown.map(|draft| draft.expect("an object of the page")).collect();
        assert!(shown == self.appended, "the log is what was appended");
        log
    }

    /// Gives a reader its live part when its stream is open, and judges what it printed.
    async fn judge(mut self, mut reader: Child) {
        let stored = self.log().await;
        let stdout = reader.stdout.take().expect("stdout is piped");
        let (mut polled, mut streamed) = (Vec::new(), Vec::new());
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("a reader prints text");
            match line.split_once(' ').expect("a word and what it is about") {
                ("polled", object) => polled.push(object.to_owned()),
                ("connected", _) => self.append(LIVE).await,
                ("streamed", event) => {
                    let (id, data) = event.split_once(' ').expect("an id and data");
                    streamed.push((id.parse::<u64>().expect("a number"), data.to_owned()));
                }
                (word, _) => panic!("a reader printed {word}"),
            }
        }
        assert!(reader.wait().expect("a child").success());
        assert!(values(&polled).eq(values(stored.iter().map(|(_, object)| object))), "polled");
        assert_eq!(streamed.len(), STORED + LIVE);
        assert!(streamed == self.log().await, "a stream has the bytes of the log");
    }
}

/// Readers may print an object in their own way; it is the same value.
fn values<'a>(objects: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = Value> {
    objects.into_iter().map(|object| serde_json::from_str(object).expect("an object"))
}

fn arguments(command: &mut Command, source: &Source) -> Child {
    command.arg(source.server.url()).arg((STORED + LIVE).to_string());
    command.args(HER_IDS.map(|her_id| her_id.to_string())).stdout(Stdio::piped());
    command.spawn().expect("the tool is installed: cargo xtask foreign")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn httpx_sse_is_given_exactly_the_log() {
    let source = Source::new().await;
    let python = tools().join("python/bin/python");
    let reader = arguments(program(python).arg(script("httpx_sse_reader.py")), &source);
    source.judge(reader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn npm_eventsource_with_headers_of_its_own_is_given_exactly_the_log() {
    let source = Source::new().await;
    let reader = arguments(program("node").arg(script("eventsource_reader.mjs")), &source);
    source.judge(reader).await;
}

fn curl() -> Command {
    let mut curl = program("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]);
    curl.args(["--header", "api-version: 3", "--header", "nhn-source-system: curl/1"]);
    curl
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn curl_is_given_exactly_the_log() {
    let mut source = Source::new().await;
    let url = source.server.url();
    let (mut paged, mut after) = (Vec::new(), 0);
    loop {
        let query = query(&HER_IDS, after);
        let page = format!("{url}/notifications?{query}&NotificationsToFetch=1000");
        let page: Value =
            serde_json::from_slice(&run(curl().arg(page)).stdout).expect("a page is JSON");
        let page = page["notifications"].as_array().expect("an array").clone();
        let Some(last) = page.last() else { break };
        after = last["offset"].as_u64().expect("an offset");
        paged.extend(page);
    }
    assert!(values(source.log().await.iter().map(|(_, object)| object)).eq(paged), "polled");

    let mut curl = curl();
    curl.args(["--no-buffer", "--header", "accept: text/event-stream"]);
    curl.arg(format!("{url}/notifications/stream?{}", query(&HER_IDS, 0)));
    let mut child = curl.stdout(Stdio::piped()).spawn().expect("curl is installed");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("a stream is text"));
    let mut event = || loop {
        let event: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        assert!(!event.is_empty(), "the stream goes on");
        let is_comment = event.iter().all(|line| line.starts_with(':'));
        if !is_comment {
            return event;
        }
    };
    assert_eq!(event(), ["event: connected", "data:"]);
    source.append(LIVE).await;
    for (offset, object) in source.log().await {
        let [id, data] = [format!("id: {offset}"), format!("data: {object}")];
        assert_eq!(event(), [id.as_str(), "event: notification", &data]);
    }
    child.kill().expect("curl can be killed");
    child.wait().expect("a child");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "goes with the other readers: cargo xtask foreign"]
async fn the_crate_eventsource_stream_is_given_exactly_the_log() {
    let mut source = Source::new().await;
    let url = format!("{}/notifications/stream?{}", source.server.url(), query(&HER_IDS, 0));
    let request = identified(source.client.get(url)).header("accept", "text/event-stream");
    let answer = request.send().await.expect("a stream is answered");
    assert_eq!(answer.status(), 200);
    let mut events = answer.bytes_stream().eventsource();
    let connected = events.next().await.expect("a first event").expect("an event");
    assert_eq!((connected.event.as_str(), connected.data.as_str()), ("connected", ""));
    source.append(LIVE).await;
    for (offset, object) in source.log().await {
        let event = events.next().await.expect("the stream goes on").expect("an event");
        assert_eq!((event.event.as_str(), &event.data), ("notification", &object));
        assert_eq!((event.id, offset_of(&event.data)), (offset.to_string(), offset));
    }
}
