//! A plain HTTP client that knows nothing of Herald's own: it polls page by page and splits event streams by itself.

use futures_util::StreamExt as _;
use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A client that keeps its connections.
pub(crate) fn client() -> Client {
    // Another test of the same process may have installed it already.
    rustls::crypto::ring::default_provider().install_default().ok();
    // Not even gzip, which the client under test turns on in the library that both use.
    Client::builder().no_proxy().no_gzip().build().expect("a client without special settings")
}

/// Adds the headers that every call needs.
pub(crate) fn identified(request: RequestBuilder) -> RequestBuilder {
    request.header("api-version", "3").header("nhn-source-system", "tests/1")
}

/// `HerIds=1&HerIds=2&Offset=…`
pub(crate) fn query(her_ids: &[u32], after: u64) -> String {
    let her_ids: String = her_ids.iter().map(|her_id| format!("HerIds={her_id}&")).collect();
    format!("{her_ids}Offset={after}")
}

/// One poll's answer.
pub(crate) struct Page {
    /// The objects to the byte, with their offsets.
    pub(crate) notifications: Vec<(u64, String)>,
    /// `herald-tail`.
    pub(crate) tail: u64,
    /// `herald-until`.
    pub(crate) until: u64,
    /// `herald-history`.
    pub(crate) history: String,
}

#[derive(Deserialize)]
struct Body {
    notifications: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct HasOffset {
    offset: u64,
}

/// The offset of a notification's object.
pub(crate) fn offset_of(object: &str) -> u64 {
    serde_json::from_str::<HasOffset>(object).expect("a notification has an offset").offset
}

/// One page of `limit`.
pub(crate) async fn poll(
    client: &Client,
    url: &str,
    her_ids: &[u32],
    after: u64,
    limit: usize,
) -> Page {
    try_poll(client, url, her_ids, after, limit).await.expect("a poll is answered")
}

/// The same where the connection may break; an answer must be a page all the same.
pub(crate) async fn try_poll(
    client: &Client,
    url: &str,
    her_ids: &[u32],
    after: u64,
    limit: usize,
) -> reqwest::Result<Page> {
    let url = format!("{url}/notifications?{}&NotificationsToFetch={limit}", query(her_ids, after));
    let answer = identified(client.get(url)).send().await?;
    assert_eq!(answer.status(), 200);
    let (tail, until) = (number(&answer, "herald-tail"), number(&answer, "herald-until"));
    let history = header(&answer, "herald-history").to_owned();
    let text = answer.text().await?;
    let body: Body = serde_json::from_str(&text).expect("a poll's body is JSON");
    let objects = body.notifications.into_iter().map(|object| object.get().to_owned());
    let notifications = objects.map(|object| (offset_of(&object), object)).collect();
    Ok(Page { notifications, tail, until, history })
}

/// Page after page until one says that there is no more below its tail.
pub(crate) async fn poll_through(
    client: &Client,
    url: &str,
    her_ids: &[u32],
    after: u64,
) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    let mut after = after;
    loop {
        let page = poll(client, url, her_ids, after, 1000).await;
        all.extend(page.notifications);
        if page.until == page.tail {
            return all;
        }
        assert!(page.until > after, "a page must lead on");
        after = page.until;
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).unwrap_or_else(|| panic!("no {name}")).to_str().expect("ASCII")
}

fn number(answer: &Response, name: &str) -> u64 {
    header(answer, name).parse().expect("a number")
}

/// An open event stream, split at its blank lines and nothing more.
pub(crate) struct Events {
    answer: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffered: Vec<u8>,
}

impl Events {
    /// Opens a stream; `None` when the server does not answer with one.
    pub(crate) async fn open(
        client: &Client,
        url: &str,
        her_ids: &[u32],
        after: u64,
    ) -> Option<Self> {
        let url = format!("{url}/notifications/stream?{}", query(her_ids, after));
        let request = identified(client.get(url)).header("accept", "text/event-stream");
        let answer = request.send().await.ok().filter(|answer| answer.status() == 200)?;
        Some(Self { answer: answer.bytes_stream().boxed(), buffered: Vec::new() })
    }

    /// The next notification: its `id` and its `data`; `None` when the stream has ended, however it did.
    pub(crate) async fn next(&mut self) -> Option<(u64, String)> {
        loop {
            while let Some(end) = self.buffered.windows(2).position(|two| two == b"\n\n") {
                let rest = self.buffered.split_off(end + 2);
                let event = std::mem::replace(&mut self.buffered, rest);
                let event = String::from_utf8(event).expect("a stream is UTF-8");
                if let Some(notification) = notification(&event) {
                    return Some(notification);
                }
            }
            self.buffered.extend_from_slice(&self.answer.next().await?.ok()?);
        }
    }
}

fn notification(event: &str) -> Option<(u64, String)> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
    if field("event: ")? != "notification" {
        return None;
    }
    let offset = field("id: ").expect("a notification has an id").parse().expect("a number");
    Some((offset, field("data: ").expect("a notification has data").to_owned()))
}
