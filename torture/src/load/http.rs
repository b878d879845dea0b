//! A plain HTTP client: what a call is told, in the words of a history.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::BoxStream};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::history::{Answered, Append, Appended, Head, Item, Outcome, Page, Seen};

/// Longer than the server ever takes.
const APPEND_TIMEOUT: Duration = Duration::from_secs(25);
const POLL_TIMEOUT: Duration = Duration::from_secs(15);
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream that is silent for so many heartbeats is dead.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Http(Client);

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

#[derive(Deserialize)]
struct Page200 {
    notifications: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Answer201 {
    notifications: Vec<Appended>,
}

#[derive(Deserialize)]
struct HasOffset {
    offset: u64,
}

impl Http {
    pub(super) fn new() -> anyhow::Result<Self> {
        // Another client of the same process may have installed it already.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder().no_proxy().no_gzip().connect_timeout(CONNECT_TIMEOUT);
        Ok(Self(client.build().context("no HTTP client")?))
    }

    /// Appends.
    pub(super) async fn append(&self, url: &str, append: &Append) -> Outcome {
        let (content_type, body) = body(append);
        let post = identified(self.0.post(format!("{url}/notifications")));
        let post = post.header("content-type", content_type).body(body).timeout(APPEND_TIMEOUT);
        let answer = match post.send().await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Nothing(text(&error)),
        };
        let status = answer.status();
        let may_repeat = answer.headers().contains_key("retry-after");
        let body = match answer.text().await {
            Ok(body) => body,
            Err(error) => return Outcome::Nothing(text(&error)),
        };
        match status {
            StatusCode::CREATED => match serde_json::from_str::<Answer201>(&body) {
                Ok(answer) => Outcome::Stored(answer.notifications),
                Err(error) => Outcome::Unexpected(format!("{error}: {body}")),
            },
            StatusCode::CONFLICT => Outcome::Differs,
            StatusCode::SERVICE_UNAVAILABLE if may_repeat => refused(&body),
            _ => Outcome::Unexpected(format!("{status}: {body}")),
        }
    }

    /// Polls.
    pub(super) async fn poll(
        &self,
        url: &str,
        receivers: &[u32],
        after: u64,
        limit: usize,
    ) -> Answered<Page> {
        let query = query(receivers);
        let url = format!("{url}/notifications?{query}Offset={after}&NotificationsToFetch={limit}");
        let answer = match identified(self.0.get(url)).timeout(POLL_TIMEOUT).send().await {
            Ok(answer) => answer,
            Err(error) => return Answered::Nothing(text(&error)),
        };
        let head = match good::<Page>(answer).await {
            Ok(answer) => answer,
            Err(other) => return other,
        };
        let headers = (self::head(&head), number(&head, "herald-until"));
        let (Some(head_told), Some(until)) = headers else {
            return Answered::Unexpected("a header is missing".to_owned());
        };
        let body = match head.text().await {
            Ok(body) => body,
            Err(error) => return Answered::Nothing(text(&error)),
        };
        match items(&body) {
            Ok(items) => Answered::Told(Page { head: head_told, until, items }),
            Err(error) => Answered::Unexpected(format!("{error}: {body}")),
        }
    }

    /// Opens a stream.
    pub(super) async fn stream(
        &self,
        url: &str,
        receivers: &[u32],
        after: u64,
        resumes: bool,
    ) -> Result<(Head, Events), Answered<Head>> {
        let mut query = query(receivers);
        if !resumes {
            query.push_str(&format!("Offset={after}"));
        }
        let mut get = identified(self.0.get(format!("{url}/notifications/stream?{query}")));
        get = get.header("accept", "text/event-stream");
        if resumes {
            get = get.header("last-event-id", after);
        }
        let answer = match timeout(POLL_TIMEOUT, get.send()).await {
            Ok(Ok(answer)) => good(answer).await?,
            Ok(Err(error)) => return Err(Answered::Nothing(text(&error))),
            Err(_) => return Err(Answered::Nothing("time out".to_owned())),
        };
        let missing = || Answered::Unexpected("a header is missing".to_owned());
        let head = head(&answer).ok_or_else(missing)?;
        let (bytes, buffered) = (answer.bytes_stream().boxed(), Vec::new());
        Ok((head, Events { bytes, buffered, seen: VecDeque::new() }))
    }

    /// Whether a replica is ready.
    pub(super) async fn ready(&self, ops: &str) -> Answered<bool> {
        let get = self.0.get(format!("{ops}/health/ready")).timeout(READY_TIMEOUT);
        match get.send().await {
            Ok(answer) => match answer.status() {
                StatusCode::OK => Answered::Told(true),
                StatusCode::SERVICE_UNAVAILABLE => {
                    Answered::NotNow(answer.text().await.unwrap_or_default())
                }
                other => Answered::Unexpected(other.to_string()),
            },
            Err(error) => Answered::Nothing(text(&error)),
        }
    }
}

fn identified(request: RequestBuilder) -> RequestBuilder {
    request.header("api-version", "3").header("nhn-source-system", "torture/1")
}

fn query(receivers: &[u32]) -> String {
    receivers.iter().map(|receiver| format!("HerIds={receiver}&")).collect()
}

fn body(append: &Append) -> (&'static str, String) {
    if append.is_atomic {
        let body = serde_json::json!({ "notifications": append.drafts });
        return ("application/json", body.to_string());
    }
    let line = |draft| serde_json::to_string(draft).expect("a draft is JSON") + "\n";
    ("application/x-ndjson", append.drafts.iter().map(line).collect())
}

fn refused(body: &str) -> Outcome {
    match serde_json::from_str::<Problem>(body) {
        Ok(Problem { kind, detail }) if kind.ends_with(":outcome-unknown") => {
            Outcome::Unknown(detail)
        }
        Ok(Problem { kind, detail }) => Outcome::Refused(format!("{kind}: {detail}")),
        Err(error) => Outcome::Unexpected(format!("{error}: {body}")),
    }
}

/// 200, or what else it is.
async fn good<T>(answer: Response) -> Result<Response, Answered<T>> {
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let may_repeat = answer.headers().contains_key("retry-after");
    let body = answer.text().await.unwrap_or_default();
    Err(if status == StatusCode::SERVICE_UNAVAILABLE && may_repeat {
        Answered::NotNow(body)
    } else {
        Answered::Unexpected(format!("{status}: {body}"))
    })
}

fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

fn number(answer: &Response, name: &str) -> Option<u64> {
    header(answer, name)?.parse().ok()
}

fn head(answer: &Response) -> Option<Head> {
    let (tail, trim) = (number(answer, "herald-tail")?, number(answer, "herald-trim")?);
    Some(Head { tail, trim, history: header(answer, "herald-history")?.to_owned() })
}

fn items(body: &str) -> serde_json::Result<Vec<Item>> {
    let page: Page200 = serde_json::from_str(body)?;
    let item = |object: Box<RawValue>| {
        let HasOffset { offset } = serde_json::from_str(object.get())?;
        Ok(Item { offset, body: object.get().into() })
    };
    page.notifications.into_iter().map(item).collect()
}

/// What went wrong, with its causes.
fn text(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// An open event stream, split at its blank lines.
pub(super) struct Events {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffered: Vec<u8>,
    seen: VecDeque<Seen>,
}

impl Events {
    /// The next thing that tells something; `None` when the stream has ended, however it did.
    pub(super) async fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.seen.pop_front() {
                return Some(seen);
            }
            let next = timeout(SILENCE_MAX, self.bytes.next()).await.ok()?;
            self.buffered.extend_from_slice(&next?.ok()?);
            let mut begin = 0;
            while let Some(len) = self.buffered[begin..].windows(2).position(|two| two == b"\n\n") {
                let event = std::str::from_utf8(&self.buffered[begin..begin + len]).ok()?;
                self.seen.extend(seen(event));
                begin += len + 2;
            }
            self.buffered.drain(..begin);
        }
    }
}

fn seen(event: &str) -> Option<Seen> {
    if let Some(until) = event.strip_prefix(": until ") {
        return Some(Seen::Until(until.trim().parse().ok()?));
    }
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    if field("event: ")? != "notification" {
        return None;
    }
    let (offset, body) = (field("id: ")?.parse().ok()?, Arc::from(field("data: ")?));
    Some(Seen::Item(Item { offset, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_notification_a_comment_or_nothing_that_tells_something() {
        let item = Item { offset: 7, body: "{}".into() };
        assert_eq!(seen("id: 7\nevent: notification\ndata: {}"), Some(Seen::Item(item)));
        assert_eq!(seen(": until 45"), Some(Seen::Until(45)));
        assert_eq!(seen("event: connected\ndata: "), None);
        assert_eq!(seen("retry: 700"), None);
    }

    #[test]
    fn a_503_says_whether_nothing_happened() {
        let body = |name: &str| format!(r#"{{"type":"urn:herald:problem:{name}","detail":"d"}}"#);
        assert_eq!(refused(&body("outcome-unknown")), Outcome::Unknown("d".to_owned()));
        assert!(matches!(refused(&body("append-refused")), Outcome::Refused(_)));
        assert!(matches!(refused("<html>"), Outcome::Unexpected(_)));
    }
}
