//! Every error of the API to its problem, in one match without a wildcard.

use std::{borrow::Cow, error::Error as StdError, sync::Arc};

use herald_auth::Refused;
use herald_log::{AppendError, ReadError};
use herald_types::{
    NotGranted, STREAM_OFFSET_REQUIRED, Violations,
    problem::{ProblemDetails, ProblemType},
};

use http::HeaderValue;

use crate::{lifecycle::Unavailable, limits::TooMany};

/// After how long an append that the log refused is worth repeating.
const REFUSED_RETRY_AFTER_SECONDS: u64 = 5;
/// After how long it is worth looking for room again.
const BUSY_RETRY_AFTER_SECONDS: u64 = 5;
/// After how long an append without a known outcome is worth repeating.
const UNKNOWN_RETRY_AFTER_SECONDS: u64 = 2;
/// After how long the issuer's keys, or a document, may have been had.
const KEYS_RETRY_AFTER_SECONDS: u64 = 5;
/// How many refused HER-ids a `detail` names.
const HER_IDS_NAMED_MAX: usize = 20;

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such path")]
    NotFound,
    #[error("the path does not know this method")]
    MethodNotAllowed { allow: &'static str },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// `explains`: whether the caller may know what was found and expected.
    #[error("{refused}")]
    Unauthenticated { refused: Refused, challenge: String, explains: bool },
    #[error("the token issuer's keys are not known")]
    NoKeys,
    #[error("the organisations, or the publishers, are not known")]
    NoDocuments,
    #[error("the token lacks the scope {scope}")]
    InsufficientScope { scope: String, challenge: String },
    #[error("there is no room to remember another proof")]
    ReplaysFull,
    #[error("an append needs a connection with a client certificate")]
    ClientCertificateRequired,
    #[error("the answer is {produced}, which Accept does not allow")]
    NotAcceptable { produced: &'static str },
    #[error("{0}")]
    UnsupportedMediaType(&'static str),
    #[error("{0}")]
    TooLarge(String),
    #[error("the request is invalid")]
    Invalid(Violations),
    #[error(transparent)]
    TooManyRequests(#[from] TooMany),
    #[error("there is no room for another body")]
    Busy,
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    /// A HER-id is not granted, and there is more to say of the token.
    #[error("{not_granted}")]
    NothingGranted { not_granted: NotGranted, doubt: &'static str, explains: bool },
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An append of one piece of the request failed; `places` are where its drafts stand in the request.
    #[error("could not append")]
    Append { source: AppendError, places: Places },
    /// The request has several pieces, and one behind the first `stored` drafts failed.
    #[error("could not append all")]
    Partly { stored: usize, source: Box<Error> },
    #[error("a handler panicked: {0}")]
    Panicked(String),
}

/// Where the drafts of a piece stand in their request.
#[derive(Debug)]
pub(crate) enum Places {
    /// In the array of a JSON body, from its start.
    Array,
    /// On these lines of NDJSON.
    Lines(Vec<u32>),
}

impl Places {
    fn name(&self, draft: usize) -> String {
        match self {
            Self::Array => format!("notifications[{draft}]."),
            Self::Lines(lines) => match lines.get(draft) {
                Some(line) => format!("line {line}: "),
                None => String::new(),
            },
        }
    }
}

/// A problem on its way to the outermost layer, which adds the path, the request id and the time.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) kind: ProblemType,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) validation_errors: Option<Vec<String>>,
    pub(crate) retry_after_seconds: Option<u64>,
    /// Why the caller was refused, for a log line that nobody sees who does not look for it.
    pub(crate) reason: Option<String>,
    /// What broke, for the log alone.
    pub(crate) cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Problem {
    fn new(kind: ProblemType, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            validation_errors: None,
            retry_after_seconds: None,
            reason: None,
            cause: None,
        }
    }

    fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// The body, with what only the outermost layer knows.
    pub(crate) fn details(
        self,
        instance: String,
        request_id: String,
        timestamp: String,
    ) -> ProblemDetails {
        ProblemDetails {
            kind: self.kind.uri(),
            title: self.kind.title().to_owned(),
            status: self.kind.status(),
            detail: self.detail.into_owned(),
            instance,
            error_code: self.kind.error_code(),
            request_id,
            validation_errors: self.validation_errors,
            timestamp,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        use ProblemType as Kind;
        match error {
            Error::NotFound => Self::new(Kind::NotFound, "There is no such path."),
            Error::MethodNotAllowed { .. } => Self::new(
                Kind::MethodNotAllowed,
                "The path does not know this method; the header Allow names those it knows.",
            ),
            Error::Unavailable(unavailable) => Self::from_unavailable(unavailable),
            Error::Unauthenticated { refused, explains, .. } => {
                let sentence = refused.check.sentence();
                let detail = if explains {
                    format!("{sentence} Explanation: {}.", refused.explanation).into()
                } else {
                    Cow::Borrowed(sentence)
                };
                let reason = Some(format!("{}: {}", refused.check.label(), refused.explanation));
                Self { reason, ..Self::new(Kind::Unauthenticated, detail) }
            }
            Error::NoKeys => Self::new(
                Kind::NotReady,
                "The server has not had the token issuer's keys yet. Repeat the request later.",
            )
            .retry_after(KEYS_RETRY_AFTER_SECONDS),
            Error::NoDocuments => Self::new(
                Kind::NotReady,
                "The server does not know yet who may see what. Repeat the request later.",
            )
            .retry_after(KEYS_RETRY_AFTER_SECONDS),
            Error::InsufficientScope { scope, .. } => Self::new(
                Kind::InsufficientScope,
                format!("The token lacks the scope {scope}, which this call needs."),
            ),
            Error::ReplaysFull => Self::new(
                Kind::Busy,
                "There are too many calls with proofs now. Nothing of this happened; repeat it later.",
            )
            .retry_after(BUSY_RETRY_AFTER_SECONDS),
            Error::ClientCertificateRequired => Self::new(
                Kind::ClientCertificateRequired,
                "Appends need a connection with a client certificate.",
            ),
            Error::NotAcceptable { produced } => Self::new(
                Kind::NotAcceptable,
                format!("The answer is {produced}, which the header Accept must allow."),
            ),
            Error::UnsupportedMediaType(detail) => Self::new(Kind::UnsupportedMediaType, detail),
            Error::TooLarge(detail) => Self::new(Kind::TooLarge, detail),
            Error::TooManyRequests(too_many) => Self::from_too_many(too_many),
            Error::Busy => Self::new(
                Kind::Busy,
                "There is no room for another body now. Nothing of this was stored; repeat it later.",
            )
            .retry_after(BUSY_RETRY_AFTER_SECONDS),
            Error::Invalid(violations) => Self::from_violations(violations.into_texts()),
            Error::NotGranted(refused) => Self::new(Kind::HerIdNotGranted, not_granted(&refused)),
            Error::NothingGranted { not_granted: refused, doubt, explains } => {
                let detail = not_granted(&refused);
                let detail =
                    if explains { format!("{detail} Explanation: {doubt}.") } else { detail };
                Self { reason: Some(doubt.to_owned()), ..Self::new(Kind::HerIdNotGranted, detail) }
            }
            Error::Read(error) => Self::new(
                Kind::Internal,
                "The notifications could not be read. Report the requestId if it goes on.",
            )
            .caused_by(error),
            Error::Append { source, places } => Self::from_append(source, &places),
            Error::Partly { stored, source } => Self::partly(stored, *source),
            Error::Panicked(_) => {
                Self::new(Kind::Internal, "Something broke. Report the requestId.").caused_by(error)
            }
        }
    }
}

impl Problem {
    /// Where a stream begins is said in `detail` too: it is a decision of the caller, not a slip to correct.
    fn from_violations(texts: Vec<String>) -> Self {
        let mut detail =
            "The request is invalid; validationErrors names everything that is wrong.".to_owned();
        if texts.iter().any(|text| text == STREAM_OFFSET_REQUIRED) {
            detail.push_str(&format!(" {STREAM_OFFSET_REQUIRED}."));
        }
        Self { validation_errors: Some(texts), ..Self::new(ProblemType::InvalidRequest, detail) }
    }

    fn from_unavailable(unavailable: Unavailable) -> Self {
        let problem = match unavailable {
            Unavailable::Starting { .. } => Self::new(
                ProblemType::NotReady,
                "The server is starting. Repeat the request later.",
            ),
            Unavailable::Stopping { .. } => Self::new(
                ProblemType::Stopping,
                "The server is stopping. Repeat the request, which another process may answer.",
            ),
        };
        problem.retry_after(unavailable.retry_after_seconds())
    }

    fn from_append(error: AppendError, places: &Places) -> Self {
        let refused = |detail| {
            Self::new(ProblemType::AppendRefused, detail).retry_after(REFUSED_RETRY_AFTER_SECONDS)
        };
        match error {
            AppendError::ContentDiffers { drafts } => {
                let texts = drafts.iter().map(|(draft, id)| {
                    let place = places.name(*draft);
                    format!("{place}notificationId: {id} is stored with other content")
                });
                Self {
                    validation_errors: Some(texts.collect()),
                    ..Self::new(
                        ProblemType::ContentDiffers,
                        "A notificationId is stored with other content; validationErrors names each.",
                    )
                }
            }
            AppendError::Refused(_) => refused(
                "The disk or the engine takes no notifications now, most often because it is full. Nothing of this was stored; \
                 repeat it later.",
            )
            .caused_by(error),
            AppendError::EngineAway => refused(
                "The engine that keeps the log does not answer. Nothing of this was stored; repeat it later.",
            ),
            AppendError::OtherHistory => refused(
                "The log takes no notifications here. Nothing of this was stored; repeat it, and another replica may \
                 take it.",
            ),
            AppendError::Poisoned => refused(
                "The log takes no notifications now. Nothing of this was stored; repeat it later.",
            )
            .caused_by(error),
            AppendError::Closed => {
                refused("The server is stopping. Nothing of this was stored; repeat it.")
            }
            AppendError::Lookup(source) => refused(
                "The log could not be read. Nothing of this was stored; repeat it later.",
            )
            .caused_by(source),
            AppendError::Unknown(_) => Self::new(
                ProblemType::OutcomeUnknown,
                "It is unknown whether this was stored. Repeat it with the same notificationIds, which stores \
                 nothing twice.",
            )
            .retry_after(UNKNOWN_RETRY_AFTER_SECONDS)
            .caused_by(error),
        }
    }

    fn from_too_many(too_many: TooMany) -> Self {
        let detail = match too_many {
            TooMany::Requests { per_second, .. } => {
                format!("This client may make {per_second} requests a second.")
            }
            TooMany::Streams { max } => {
                format!("This client has {max} open streams, and may have no more.")
            }
        };
        // Whole seconds, and never none of them.
        let millis = too_many.retry_after().as_millis();
        let seconds = u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        Self::new(ProblemType::TooManyRequests, detail).retry_after(seconds)
    }

    fn partly(stored: usize, error: Error) -> Self {
        let mut problem = Self::from(error);
        if stored > 0 {
            problem.detail = format!(
                "{} Before that, {stored} drafts of this request were stored; sending all of it again with the same \
                 notificationIds is safe.",
                problem.detail,
            )
            .into();
        }
        problem
    }
}

fn not_granted(refused: &NotGranted) -> String {
    let named: Vec<_> =
        refused.her_ids.iter().take(HER_IDS_NAMED_MAX).map(ToString::to_string).collect();
    let more = match refused.her_ids.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("No access to HER-id {}{more}.", named.join(", "))
}

impl Error {
    /// The methods that the path knows, where another one was tried.
    pub(crate) const fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }

    /// What the call lacks, as `WWW-Authenticate` says it.
    pub(crate) fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::Unauthenticated { challenge, .. } | Self::InsufficientScope { challenge, .. } => {
                HeaderValue::try_from(challenge).ok()
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc, time::Duration};

    use herald_types::HerId;

    use super::*;

    fn problem_of(source: AppendError) -> Problem {
        Error::Append { source, places: Places::Array }.into()
    }

    #[test]
    fn a_producer_is_told_whether_nothing_happened_or_nobody_knows() {
        let disk = || Arc::new(io::Error::other("disk"));
        for (error, kind, text) in [
            (
                AppendError::Refused(disk()),
                ProblemType::AppendRefused,
                "Nothing of this was stored",
            ),
            (AppendError::EngineAway, ProblemType::AppendRefused, "Nothing of this was stored"),
            (AppendError::OtherHistory, ProblemType::AppendRefused, "Nothing of this was stored"),
            (AppendError::Poisoned, ProblemType::AppendRefused, "Nothing of this was stored"),
            (AppendError::Closed, ProblemType::AppendRefused, "Nothing of this was stored"),
            (AppendError::Unknown(disk()), ProblemType::OutcomeUnknown, "same notificationIds"),
        ] {
            let is_refused = error.is_refused();
            let problem = problem_of(error);
            assert_eq!(problem.kind, kind);
            assert_eq!(is_refused, kind == ProblemType::AppendRefused);
            assert!(problem.detail.contains(text), "{}", problem.detail);
            assert!(problem.retry_after_seconds.is_some_and(|seconds| seconds > 0));
        }
    }

    #[test]
    fn what_broke_is_for_the_log_alone() {
        let problem = problem_of(AppendError::Refused(Arc::new(io::Error::other("secret path"))));
        assert!(problem.cause.is_some() && !problem.detail.contains("secret"));
        let panicked = Problem::from(Error::Panicked("secret".to_owned()));
        assert!(!panicked.detail.contains("secret"));
    }

    #[test]
    fn a_failed_piece_says_how_much_was_stored_before_it() {
        let stopping = Unavailable::Stopping { retry_after: Duration::from_secs(3) };
        let of = |stored| {
            Problem::from(Error::Partly { stored, source: Box::new(Error::Unavailable(stopping)) })
        };
        assert!(!of(0).detail.contains("drafts"));
        assert!(of(2000).detail.contains("2000 drafts of this request were stored"));
        assert_eq!((of(2000).kind, of(2000).retry_after_seconds), (ProblemType::Stopping, Some(3)));
    }

    #[test]
    fn a_client_that_asks_too_much_is_told_for_how_many_seconds_to_wait() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            let retry_after = Duration::from_millis(millis);
            let too_many = TooMany::Requests { per_second: 10, retry_after };
            let problem = Problem::from(Error::from(too_many));
            assert_eq!(problem.kind.status(), 429);
            assert_eq!(problem.retry_after_seconds, Some(seconds));
            assert_eq!(problem.detail, "This client may make 10 requests a second.");
        }
        let problem = Problem::from(Error::from(TooMany::Streams { max: 7 }));
        assert_eq!((problem.kind.status(), problem.retry_after_seconds), (429, Some(10)));
        assert_eq!(problem.detail, "This client has 7 open streams, and may have no more.");
    }

    #[test]
    fn at_most_20_refused_her_ids_are_named() {
        let of = |count: u32| {
            let her_ids = (1..=count).map(|number| HerId::new(number).unwrap()).collect();
            not_granted(&NotGranted { her_ids })
        };
        assert_eq!(of(1), "No access to HER-id 1.");
        assert!(of(20).ends_with(", 19, 20."), "{}", of(20));
        assert!(of(21).ends_with(", 20 and 1 more."), "{}", of(21));
    }
}
