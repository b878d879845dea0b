//! The calls of the page, one request each, and the settings that they share.

#[cfg(feature = "helseid")]
use std::sync::Arc;
use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
#[cfg(feature = "helseid")]
use futures_util::{FutureExt as _, future::BoxFuture};
use futures_util::{StreamExt as _, stream::BoxStream};
use herald_types::{Draft, HerId, Offset, PageLimit, RECEIVERS_MAX, draft::DRAFTS_MAX};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
        RETRY_AFTER,
    },
};
use uuid::Uuid;

#[cfg(feature = "helseid")]
use crate::helseid::Session;
use crate::{
    Appended, BODY_BYTES_MAX, ClientBuilder, Cursor, Error, Notification, Notifications, Pages,
    Problem, Refusal, SettingsError, TransportError,
    body::{read_answers, read_body, read_notifications, undecodable},
    challenge::Challenge,
    drafts,
    retry::{self, Backoff},
};

/// How long making a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a poll may take, its body included.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an append may take, its body included.
pub const APPEND_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a poll or an append is tried again when its failure may pass.
pub const RETRIES_MAX: u32 = 3;
/// The most bytes of a problem that are read, and how long that may take.
const PROBLEM_BYTES_MAX: usize = 256 * 1024;
const PROBLEM_TIMEOUT: Duration = Duration::from_secs(5);

/// A server of the page, and who is calling it. Clones share their connections.
///
/// Every stream has a connection of its own (HTTP/1.1), so that a dead one takes no other with it.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) source_system: HeaderValue,
    /// Of a client with credentials.
    #[cfg(feature = "helseid")]
    pub(crate) session: Option<Arc<Session>>,
}

/// One page of notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The notifications, ascending by offset.
    pub notifications: Vec<Notification>,
    /// Every notification of these receivers up to here is in this answer. Herald's own, like the three below.
    pub until: Option<Offset>,
    /// Where the log stands.
    pub position: LogPosition,
    /// Of [`Pages`]: which run it is of, and up to where it has notifications.
    pub(crate) run: usize,
    pub(crate) last: Offset,
}

/// What a server says about its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPosition {
    /// The newest offset.
    pub tail: Option<Offset>,
    /// The newest offset that retention has removed.
    pub trim: Option<Offset>,
    /// The name of this space of offsets.
    pub history: Option<Uuid>,
}

/// An open event stream.
pub(crate) struct Opened {
    pub(crate) position: LogPosition,
    pub(crate) bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password in an address is nobody's business.
        let place = (self.base.host_str(), self.base.port_or_known_default(), self.base.path());
        f.debug_struct("Client").field("server", &place).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url`, which calls itself `source_system` (name and version of the calling system).
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong with them.
    pub fn new(url: &str, source_system: &str) -> Result<Self, SettingsError> {
        Self::builder(url, source_system).build()
    }

    /// A client with more settings than [`Client::new`] takes.
    pub fn builder(url: &str, source_system: &str) -> ClientBuilder {
        ClientBuilder::new(url, source_system)
    }

    /// One page: up to `limit` notifications for `receivers` (1 to 1500) after `after`.
    ///
    /// A failure that may pass is tried again up to [`RETRIES_MAX`] times.
    ///
    /// # Errors
    /// [`Error::Receivers`] for none or more than 1500 of them; [`Error`] when the server refuses, or goes on failing.
    pub async fn poll(
        &self,
        receivers: &[HerId],
        after: Offset,
        limit: PageLimit,
    ) -> Result<Page, Error> {
        if receivers.is_empty() || receivers.len() > RECEIVERS_MAX {
            return Err(Error::Receivers { count: receivers.len() });
        }
        retrying(|| self.poll_once(receivers, after, limit)).await
    }

    /// One page, tried once.
    pub(crate) async fn poll_once(
        &self,
        receivers: &[HerId],
        after: Offset,
        limit: PageLimit,
    ) -> Result<Page, Error> {
        self.signed_in(|| self.ask_page(receivers, after, limit)).await
    }

    async fn ask_page(
        &self,
        receivers: &[HerId],
        after: Offset,
        limit: PageLimit,
    ) -> Result<Page, Error> {
        let mut url = self.url("notifications", receivers, after);
        url.query_pairs_mut().append_pair("NotificationsToFetch", &limit.get().to_string());
        let request = self.request(Method::GET, url).header(ACCEPT, "application/json");
        let answer = self.send(request.timeout(POLL_TIMEOUT)).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        let position = LogPosition::read(answer.headers());
        let until = number(answer.headers(), "herald-until");
        let body = read_body(answer, BODY_BYTES_MAX).await?;
        let mut notifications = read_notifications(&body)
            .map_err(|source| undecodable("a body", source))?
            .into_iter()
            .map(Notification::parse)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| undecodable("a notification", source))?;
        // All of it is here, so a server that does not sort loses nothing.
        notifications.sort_by_key(Notification::offset);
        Ok(Page { notifications, until, position, run: 0, last: Offset::ZERO })
    }

    /// Page after page of up to `limit` notifications after `cursor`, until none is left.
    #[must_use]
    pub fn pages(&self, cursor: Cursor, limit: PageLimit) -> Pages {
        Pages::new(self.clone(), cursor, limit)
    }

    /// Appends 1 to 1000 drafts, all or none.
    ///
    /// A draft without a `notification_id` is given one before it is sent: a failure that may pass is tried again up to
    /// [`RETRIES_MAX`] times, and with the same ids nothing is stored twice. Who must be able to repeat the whole call, after
    /// a crash perhaps, gives the ids.
    ///
    /// # Errors
    /// [`Error::Drafts`] for none or more than 1000 of them; [`Error`] when the server refuses, or goes on failing.
    pub async fn append(&self, drafts: impl IntoIterator<Item = Draft>) -> Result<Appended, Error> {
        let (count, body) = drafts::request(drafts);
        if count == 0 || count > DRAFTS_MAX {
            return Err(Error::Drafts { count });
        }
        let append = || self.append_once("application/json", body.clone(), count);
        retrying(|| self.signed_in(append)).await
    }

    /// Appends drafts, one a line (NDJSON); at most 10,000 lines a call is a good habit, 100,000 the server's limit.
    ///
    /// Each draft should have a `notificationId`, as [`drafts::Batch`](crate::drafts::Batch) gives them: they are sent
    /// again as they are when a failure may pass. The drafts before a refused one may be
    /// stored.
    ///
    /// # Errors
    /// [`Error`] when the server refuses, or goes on failing.
    pub async fn append_lines(&self, lines: Bytes) -> Result<Appended, Error> {
        let drafts =
            lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let count = drafts.count();
        let append = || self.append_once("application/x-ndjson", lines.clone(), count);
        retrying(|| self.signed_in(append)).await
    }

    async fn append_once(
        &self,
        content_type: &str,
        body: Bytes,
        drafts: usize,
    ) -> Result<Appended, Error> {
        let request = self
            .request(Method::POST, self.path("notifications"))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, content_type);
        let answer = self.send(request.timeout(APPEND_TIMEOUT).body(body)).await?;
        if answer.status() != StatusCode::CREATED {
            return Err(refusal(answer).await);
        }
        let history = LogPosition::read(answer.headers()).history;
        let body = read_body(answer, BODY_BYTES_MAX).await?;
        let answers = read_answers(&body, drafts).map_err(|source| Error::Stored { source })?;
        Ok(Appended { answers, history })
    }

    /// Everything after `cursor`, stored and live, for ever: connects, catches up, and comes back by itself.
    #[must_use]
    pub fn notifications(&self, cursor: Cursor) -> Notifications {
        Notifications::new(self, cursor)
    }

    /// Opens one stream, or says why not.
    pub(crate) async fn open(&self, receivers: &[HerId], after: Offset) -> Result<Opened, Error> {
        let url = self.url("notifications/stream", receivers, after);
        let request = self
            .request(Method::GET, url)
            .header(ACCEPT, "text/event-stream")
            // What compresses holds back what it has until it is worth a block.
            .header(ACCEPT_ENCODING, "identity")
            // As a browser does: no cache on the way may answer with a stream of earlier.
            .header(CACHE_CONTROL, "no-cache");
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        let content_type = answer.headers().get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
        let found = String::from_utf8_lossy(content_type);
        let essence = found.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(Error::ContentType { found: found.into_owned() });
        }
        let position = LogPosition::read(answer.headers());
        let bytes = answer.bytes_stream().map(|piece| piece.map_err(transport)).boxed();
        Ok(Opened { position, bytes })
    }

    /// Waits until there is a token to call with; `None` for a client that needs none.
    #[cfg(feature = "helseid")]
    pub(crate) fn sign_in(&self) -> Option<BoxFuture<'static, Result<(), Error>>> {
        let session = Arc::clone(self.session.as_ref()?);
        Some(async move { session.sign_in().await }.boxed())
    }

    /// Calls, and once more at once if it was the token that the server did not take: the next call waits for a new one.
    async fn signed_in<T, F: Future<Output = Result<T, Error>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, Error> {
        let outcome = call().await;
        #[cfg(feature = "helseid")]
        if let Err(error) = &outcome
            && self.session.is_some()
            && error.has_another_token()
        {
            return call().await;
        }
        outcome
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        #[cfg(feature = "helseid")]
        if let Some(session) = &self.session {
            return session.send(&self.http, request).await;
        }
        request.send().await.map_err(transport)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http
            .request(method, url)
            .header("api-version", "3")
            .header("nhn-source-system", &self.source_system)
    }

    fn path(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        url
    }

    fn url(&self, path: &str, receivers: &[HerId], after: Offset) -> Url {
        let mut url = self.path(path);
        let mut query = url.query_pairs_mut();
        for receiver in receivers {
            query.append_pair("HerIds", &receiver.to_string());
        }
        query.append_pair("Offset", &after.to_string());
        drop(query);
        url
    }
}

impl LogPosition {
    fn read(headers: &HeaderMap) -> Self {
        let history = headers.get("herald-history").and_then(|value| value.to_str().ok());
        Self {
            tail: number(headers, "herald-tail"),
            trim: number(headers, "herald-trim"),
            history: history.and_then(|value| value.trim().parse().ok()),
        }
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Option<Offset> {
    headers.get(HeaderName::from_static(name))?.to_str().ok()?.trim().parse().ok()
}

/// Calls until it succeeds, fails for good, or has failed [`RETRIES_MAX`] times more.
async fn retrying<T, F: Future<Output = Result<T, Error>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, Error> {
    let mut backoff = Backoff::new();
    let mut retries = 0;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && retries < RETRIES_MAX => {
                retries += 1;
                let wait = backoff.wait(rand::random(), error.retry_after());
                tracing::warn!(
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    error = &error as &dyn std::error::Error,
                    "trying again"
                );
                tokio::time::sleep(wait).await;
            }
            outcome => return outcome,
        }
    }
}

async fn refusal(mut answer: Response) -> Error {
    let status = answer.status();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| retry::retry_after(text, SystemTime::now()));
    let challenge = (status == StatusCode::UNAUTHORIZED).then(|| {
        // With credentials it has been read.
        let read = answer.extensions_mut().remove();
        read.unwrap_or_else(|| Challenge::read(answer.headers(), SystemTime::now()))
    });
    let body = tokio::time::timeout(PROBLEM_TIMEOUT, read_body(answer, PROBLEM_BYTES_MAX)).await;
    let problem = body.ok().and_then(Result::ok).and_then(|body| Problem::parse(&body));
    Error::Refused(Box::new(Refusal { status, retry_after, problem, challenge }))
}

pub(crate) fn transport(error: reqwest::Error) -> Error {
    Error::Transport(TransportError::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn her_ids(range: std::ops::RangeInclusive<u32>) -> Vec<HerId> {
        range.filter_map(HerId::new).collect()
    }

    #[test]
    fn the_query_repeats_her_ids_and_keeps_the_base_path() {
        for base in ["http://127.0.0.1:8080/edi", "http://127.0.0.1:8080/edi/"] {
            let client = Client::new(base, "test").unwrap();
            let url = client.url("notifications/stream", &her_ids(7..=8), Offset::MAX);
            assert_eq!(
                url.as_str(),
                "http://127.0.0.1:8080/edi/notifications/stream?HerIds=7&HerIds=8&Offset=9223372036854775807"
            );
        }
    }
}
