//! What can go wrong between a client and a server, and whether to try again.

use std::{fmt, time::Duration};

use herald_types::{RECEIVERS_MAX, draft::DRAFTS_MAX};
use reqwest::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

#[cfg(feature = "helseid")]
use crate::SignInError;
use crate::{
    InvalidCursor,
    challenge::{self, Challenge},
    notification::Undecodable,
    sse,
};

/// Why a call failed or a stream ended.
///
/// [`Error::is_retryable`] tells the two kinds apart: what passes by itself, and what needs somebody to look.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection could not be made or broke.
    #[error("no connection to the server")]
    Transport(#[source] TransportError),
    /// The server ended the stream, as it may at any time.
    #[error("the server ended the stream")]
    Ended,
    /// Nothing came for too long, not even a comment.
    #[error("the connection was silent for {0:?}")]
    Silent(Duration),
    /// The stream was opened, but its first event did not come: something on the way is holding it back.
    #[error("no `connected` event within {0:?}")]
    NotConnected(Duration),
    /// The server answered with a status that is not the one of success.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The issuer gave no token to call with.
    #[cfg(feature = "helseid")]
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// A stream that is not an event stream.
    #[error("status 200 with content type {found:?} where text/event-stream should be")]
    ContentType {
        /// The content type of the answer, empty if it had none.
        found: String,
    },
    /// A call takes 1 to 1500 receivers.
    #[error("a call takes 1 to {RECEIVERS_MAX} receivers, not {count}")]
    Receivers {
        /// How many it was given.
        count: usize,
    },
    /// An append takes 1 to 1000 drafts.
    #[error("an append takes 1 to {DRAFTS_MAX} drafts, not {count}")]
    Drafts {
        /// How many it was given.
        count: usize,
    },
    /// A cursor cannot be made of this.
    #[error(transparent)]
    Cursor(#[from] InvalidCursor),
    /// The answer is not what the page describes.
    #[error("status 200 with {what} that cannot be read")]
    Undecodable {
        /// Which part of the answer.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: UndecodableSource,
    },
    /// An append is stored, but what the server says of it cannot be read: the same ids, sent again, are found to be stored.
    #[error("status 201, so everything is stored, but the answer cannot be read")]
    Stored {
        /// What is wrong with it.
        #[source]
        source: UndecodableSource,
    },
    /// The server's offsets are those of another log than before.
    #[error("{}", other_history(*.expected, *.found))]
    OtherHistory {
        /// The log that the cursor belongs to.
        expected: Uuid,
        /// The log that the server has, if it says.
        found: Option<Uuid>,
    },
}

fn other_history(expected: Uuid, found: Option<Uuid>) -> String {
    let found = found.map_or("does not name its history".into(), |found| format!("is {found}"));
    format!(
        "the offsets belong to the history {expected}, but the server {found}: it is another log, \
         and going on would skip or repeat notifications"
    )
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndecodableSource {
    /// It is not JSON of the right shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is not a notification.
    #[error(transparent)]
    Notification(#[from] Undecodable),
    /// An event is too long.
    #[error(transparent)]
    Event(#[from] sse::TooLong),
    /// There is not one answer for each draft.
    #[error("{answers} answers to {drafts} drafts")]
    Answers {
        /// How many answers.
        answers: usize,
        /// How many drafts.
        drafts: usize,
    },
    /// The body is too long.
    #[error("more than {limit_bytes} bytes")]
    Body {
        /// The most bytes that are read.
        limit_bytes: usize,
    },
}

impl Error {
    /// Whether the same call may succeed later: transport errors, ended streams, 408, 429 and 5xx; and for two minutes a 401
    /// that means the token, where a call of a client with credentials has succeeded before.
    ///
    /// Everything else (204, other statuses, a wrong content type, undecodable data, another history) stays as it is
    /// until somebody has looked.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_retryable(),
            Self::Ended | Self::Silent(_) | Self::NotConnected(_) => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            #[cfg(feature = "helseid")]
            Self::SignIn(error) => error.is_retryable(),
            Self::ContentType { .. }
            | Self::Receivers { .. }
            | Self::Drafts { .. }
            | Self::Cursor(_)
            | Self::Undecodable { .. }
            | Self::Stored { .. }
            | Self::OtherHistory { .. } => false,
        }
    }

    /// How long the server asked to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            #[cfg(feature = "helseid")]
            Self::SignIn(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Whether a server did not take the token, so that another may do.
    pub(crate) fn refuses_token(&self) -> bool {
        let Self::Refused(refusal) = self else { return false };
        refusal.challenge.as_ref().is_some_and(Challenge::refuses_token)
    }

    /// Whether the same call, made at once, would be made with another token than the refused one.
    #[cfg(feature = "helseid")]
    pub(crate) fn has_another_token(&self) -> bool {
        let Self::Refused(refusal) = self else { return false };
        refusal.challenge.as_ref().is_some_and(|challenge| challenge.is_token_replaced)
    }
}

/// What the HTTP library said; which library that is may change.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(reqwest::Error);

impl TransportError {
    /// Without the address, which names up to 1500 HER-ids.
    pub(crate) fn new(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }

    pub(crate) fn is_retryable(&self) -> bool {
        !self.0.is_builder()
    }
}

/// An answer that is not the one of success.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Its status.
    pub status: StatusCode,
    /// What it asked to wait.
    pub retry_after: Option<Duration>,
    /// Its problem details, if it had any that could be read.
    pub problem: Option<Problem>,
    /// Of a 401: what it says of token and proof.
    pub(crate) challenge: Option<Challenge>,
}

impl Refusal {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        is_retryable(self.status) || self.challenge.as_ref().is_some_and(|it| it.may_pass)
    }

    /// Of a 401: the code of its challenge for tokens that are bound to a key, `invalid_token` and the like.
    #[must_use]
    pub fn challenge_code(&self) -> Option<&str> {
        self.challenge.as_ref()?.error.as_deref()
    }

    /// Of a 401: by how many seconds this machine's clock is ahead of the server's, if that is more than a few; negative if it
    /// is behind.
    #[must_use]
    pub fn clock_ahead_seconds(&self) -> Option<i64> {
        self.challenge.as_ref()?.clock_ahead
    }
}

/// Whether what was answered with this status may pass by itself.
pub(crate) fn is_retryable(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        let text = self.problem.as_ref().and_then(Problem::text);
        if let Some(challenge) = &self.challenge {
            challenge.write_beside(text, f)?;
        }
        if let Some(problem) = &self.problem {
            problem.write(f)?;
        }
        f.write_str(&challenge::clock(self.challenge.as_ref().and_then(|it| it.clock_ahead)))
    }
}

/// Problem details as servers of the page write them: nothing is certain to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Problem {
    /// A few words.
    pub title: Option<String>,
    /// What went wrong here.
    pub detail: Option<String>,
    /// The page's own code.
    pub error_code: Option<i64>,
    /// What to name when asking the server's operators.
    pub request_id: Option<String>,
    /// Every violation found.
    pub validation_errors: Option<Vec<String>>,
}

impl Problem {
    /// Reads a body that may be a problem; HTML of a gateway and the like is none.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        crate::notification::read_object(body).ok()
    }

    fn text(&self) -> Option<&str> {
        self.detail.as_deref().or(self.title.as_deref())
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.text() {
            write!(f, ": {text}")?;
        }
        if let Some(violations) = self.validation_errors.as_ref().filter(|all| !all.is_empty()) {
            write!(f, " ({})", violations.join("; "))?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " [request {id}]")?;
        }
        Ok(())
    }
}

/// Settings that no client can be made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The address is not one of a server.
    #[error("{url:?} is not the address of a server: {why}")]
    #[non_exhaustive]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The source system cannot be sent.
    #[error(
        "a source system has 1 to {SOURCE_SYSTEM_CHARS_MAX} characters, not only blanks, and no control characters"
    )]
    SourceSystem,
    /// What is to be trusted is not one or more certificates.
    #[error("the trusted certificates cannot be used: {why}")]
    #[non_exhaustive]
    Trust {
        /// What is wrong with them.
        why: String,
    },
    /// The client certificate and its key cannot be used.
    #[error("the client certificate cannot be used: {why}")]
    #[non_exhaustive]
    Identity {
        /// What is wrong with them.
        why: String,
    },
    /// The issuer's address cannot be one.
    #[cfg(feature = "helseid")]
    #[error("{url:?} is not the address of an issuer: {why}")]
    #[non_exhaustive]
    Issuer {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The client id cannot be one.
    #[cfg(feature = "helseid")]
    #[error("a client id is not blank and has no control characters")]
    ClientId,
    /// The client's key cannot be used.
    #[cfg(feature = "helseid")]
    #[error("the client's key cannot be used: {why}")]
    #[non_exhaustive]
    Key {
        /// What is wrong with it.
        why: String,
    },
    /// The scope cannot be asked for.
    #[cfg(feature = "helseid")]
    #[error(
        "a scope is one or more words of visible ASCII characters without quotation marks and backslashes"
    )]
    Scope,
    /// The HTTP client could not be set up.
    #[error("could not set up the HTTP client")]
    Http(#[source] TransportError),
}

/// The most characters of the `nhn-source-system` header.
pub const SOURCE_SYSTEM_CHARS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

    use super::*;

    fn refusal(status: u16, body: &str) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        let problem = Problem::parse(body.as_bytes());
        Error::Refused(Box::new(Refusal { status, retry_after: None, problem, challenge: None }))
    }

    #[test]
    fn only_408_429_and_5xx_are_worth_another_try() {
        for status in 200..600 {
            let retryable = matches!(status, 408 | 429 | 500..=599);
            assert_eq!(refusal(status, "").is_retryable(), retryable, "{status}");
        }
        assert!(Error::Ended.is_retryable() && Error::Silent(Duration::ZERO).is_retryable());
        assert!(!Error::ContentType { found: "text/html".into() }.is_retryable());
        assert!(!Error::OtherHistory { expected: Uuid::nil(), found: None }.is_retryable());
    }

    #[test]
    fn a_refusal_says_status_detail_violations_and_request() {
        let problem = r#"{"title":"t","detail":"2 things","validationErrors":["a","b"],"requestId":"r1","errorCode":1001,"new":[]}"#;
        assert_eq!(
            refusal(400, problem).to_string(),
            "the server answered 400 Bad Request: 2 things (a; b) [request r1]"
        );
        let plain = r#"{"title":"Forbidden","detail":null,"validationErrors":null}"#;
        assert_eq!(refusal(403, plain).to_string(), "the server answered 403 Forbidden: Forbidden");
    }

    #[test]
    fn a_challenge_is_told_before_the_detail_and_nothing_twice() {
        let told = |description: &str, detail: &str| {
            let value =
                format!("DPoP error=\"invalid_token\", error_description=\"{description}\"");
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.parse().unwrap())]);
            let problem = Problem { detail: Some(detail.to_owned()), ..Problem::default() };
            let challenge = Some(Challenge::read(&headers, SystemTime::now()));
            let status = StatusCode::UNAUTHORIZED;
            Refusal { status, retry_after: None, problem: Some(problem), challenge }.to_string()
        };
        let begin = "the server answered 401 Unauthorized: invalid_token: ";
        for (description, detail, text) in [
            ("It ran out.", "It ran out.", "It ran out."),
            ("It ran out.", "It ran out. Explanation: 5 s.", "It ran out. Explanation: 5 s."),
            ("It ran out.", "Sign in.", "It ran out.: Sign in."),
        ] {
            assert_eq!(told(description, detail), format!("{begin}{text}"));
        }
        let long = "word ".repeat(100);
        assert_eq!(told(&long, &long), format!("{begin}{long}"));
    }

    #[test]
    fn a_body_that_is_no_problem_does_no_harm() {
        for body in ["", "<html>502</html>", "[1]", "\"x\"", r#"{"detail":5}"#] {
            assert_eq!(
                refusal(502, body).to_string(),
                "the server answered 502 Bad Gateway",
                "{body}"
            );
        }
    }
}
