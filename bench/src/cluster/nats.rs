//! JetStream by `async-nats` alone: a stream like Herald's, one message a batch.

use anyhow::{Context as _, bail, ensure};
use async_nats::{HeaderMap, Subscriber, header};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

/// Herald's stream, as it is called where nobody says otherwise.
const HERALD: &str = "HERALD";
const STREAM: &str = "BARE";
const SUBJECT: &str = "bare.batches";
/// How many messages are asked of a consumer at a time.
const ASKED: u64 = 4096;
const ASKED_BYTES: u64 = 12 << 20;

pub(crate) struct Client {
    client: async_nats::Client,
    inbox: String,
    answers: Subscriber,
    /// The newest sequence that was sent, and that was answered for.
    sent: u64,
    stored: u64,
}

impl Client {
    pub(super) async fn open(url: &str, replicas: usize) -> anyhow::Result<Self> {
        let client = connect(url).await?;
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await?;
        let opened = Self { client, inbox, answers, sent: 0, stored: 0 };
        let _ = api(&opened.client, &format!("STREAM.DELETE.{STREAM}"), &json!({})).await;
        let config = json!({
            "name": STREAM, "subjects": [SUBJECT], "retention": "limits", "storage": "file",
            "num_replicas": replicas, "discard": "new", "max_consumers": -1, "max_msgs": -1,
            "max_bytes": -1, "max_msg_size": -1,
        });
        api(&opened.client, &format!("STREAM.CREATE.{STREAM}"), &config).await?;
        Ok(opened)
    }

    pub(super) async fn newest(&self) -> anyhow::Result<u64> {
        let info = api(&self.client, &format!("STREAM.INFO.{HERALD}"), &json!({})).await?;
        info["state"]["last_seq"].as_u64().context("no last sequence")
    }

    pub(super) async fn frames(&self, after: u64, until: u64) -> anyhow::Result<Vec<Bytes>> {
        let mut consumer = Consumer::begin(&self.client, HERALD, after + 1).await?;
        let mut frames = Vec::new();
        while (frames.len() as u64) < until - after {
            frames.push(consumer.next().await?);
        }
        Ok(frames)
    }

    pub(super) async fn send(&mut self, frame: Bytes) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_STREAM, STREAM);
        headers.insert(header::NATS_EXPECTED_LAST_SEQUENCE, self.sent.to_string());
        self.sent += 1;
        let reply = format!("{}.{}", self.inbox, self.sent);
        let sent = self.client.publish_with_reply_and_headers(SUBJECT, reply, headers, frame);
        Ok(sent.await?)
    }

    pub(super) async fn stored(&mut self) -> anyhow::Result<()> {
        let answer = self.answers.next().await.context("the connection ended")?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        self.stored += 1;
        ensure!(answer["seq"].as_u64() == Some(self.stored), "{} is {answer}", self.stored);
        Ok(())
    }

    pub(super) async fn listener(&self, url: &str) -> anyhow::Result<Listener> {
        Consumer::begin(&connect(url).await?, STREAM, self.stored + 1).await
    }
}

async fn connect(url: &str) -> anyhow::Result<async_nats::Client> {
    // Several servers in one URL, each to be named.
    let servers = url.strip_prefix("nats://").context("a URL of NATS")?;
    let servers: Vec<String> =
        servers.split(',').map(|server| format!("nats://{server}")).collect();
    Ok(async_nats::connect(servers).await?)
}

async fn api(client: &async_nats::Client, what: &str, question: &Value) -> anyhow::Result<Value> {
    let question = Bytes::from(question.to_string());
    let answer = client.request(format!("$JS.API.{what}"), question).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    if !answer["error"].is_null() {
        bail!("{what}: {}", answer["error"]);
    }
    Ok(answer)
}

pub(crate) type Listener = Consumer;

/// A consumer that acknowledges nothing.
pub(crate) struct Consumer {
    client: async_nats::Client,
    questions: String,
    inbox: String,
    messages: Subscriber,
    asked: u64,
}

impl Consumer {
    async fn begin(client: &async_nats::Client, stream: &str, from: u64) -> anyhow::Result<Self> {
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await?;
        let name = format!("bare-{:016x}", rand::random::<u64>());
        let config = json!({
            "stream_name": stream,
            "action": "create",
            "config": {
                "name": name, "deliver_policy": "by_start_sequence", "opt_start_seq": from,
                "ack_policy": "none", "replay_policy": "instant", "num_replicas": 1,
                "mem_storage": true,
            },
        });
        api(client, &format!("CONSUMER.CREATE.{stream}.{name}"), &config).await?;
        let questions = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        let mut consumer = Self { client: client.clone(), questions, inbox, messages, asked: 0 };
        consumer.ask().await?;
        Ok(consumer)
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        let question = json!({ "batch": ASKED, "max_bytes": ASKED_BYTES });
        let (to, inbox) = (self.questions.clone(), self.inbox.clone());
        let question = Bytes::from(question.to_string());
        self.client.publish_with_reply(to, inbox, question).await?;
        self.asked = ASKED;
        Ok(())
    }

    pub(crate) async fn next(&mut self) -> anyhow::Result<Bytes> {
        loop {
            if self.asked == 0 {
                self.ask().await?;
            }
            let message = self.messages.next().await.context("the connection ended")?;
            if message.status.is_some() {
                // A portion has ended before all of it had come.
                self.asked = 0;
                continue;
            }
            self.asked -= 1;
            return Ok(message.payload);
        }
    }
}
