//! Whether the servers sync what they acknowledge, as far as they let one see it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::timeout;

use super::session::Session;

/// Every server of the cluster answers this, if the account may ask.
const QUESTION: &str = "$SYS.REQ.SERVER.PING.JSZ";
/// How long after the last answer another one may come.
const ANSWERS_WAIT: Duration = Duration::from_millis(300);
/// So many servers are listened to.
const SERVERS_MAX: usize = 64;

/// Says what was found, unless it has been said.
pub(super) async fn look(session: &Session, is_new: impl Fn(&'static str) -> bool) {
    let found = ask(session).await;
    let lax: Vec<&str> =
        found.iter().filter(|s| !s.is_always).map(|server| server.name.as_str()).collect();
    if found.is_empty() && is_new("sync unseen") {
        tracing::info!(
            setting = "sync_interval",
            "these NATS servers do not show whether they sync what they acknowledge: check that each has sync_interval: always"
        );
    }
    if !lax.is_empty() && is_new("sync lax") {
        tracing::warn!(
            setting = "sync_interval",
            servers = lax.join(", "),
            "NATS servers acknowledge what a power cut can take away: set sync_interval: always in their jetstream block"
        );
    }
}

struct Server {
    name: String,
    is_always: bool,
}

async fn ask(session: &Session) -> Vec<Server> {
    let inbox = session.client.new_inbox();
    let Ok(mut answers) = session.client.subscribe(inbox.clone()).await else { return Vec::new() };
    if session.client.publish_with_reply(QUESTION, inbox, Bytes::new()).await.is_err() {
        return Vec::new();
    }
    let mut found = Vec::new();
    while let Ok(Some(answer)) = timeout(ANSWERS_WAIT, answers.next()).await {
        // Nobody listens, because the account may not ask.
        if answer.status.is_some() || found.len() == SERVERS_MAX {
            break;
        }
        let Ok(answer) = serde_json::from_slice::<Value>(&answer.payload) else { continue };
        let config = &answer["data"]["config"];
        // A server without JetStream, or whose disk has ended it, says nothing of it.
        if config["store_dir"].is_string() {
            found.push(Server {
                name: answer["server"]["name"].as_str().unwrap_or("?").to_owned(),
                is_always: config["sync_always"] == true,
            });
        }
    }
    found
}
