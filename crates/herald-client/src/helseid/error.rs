//! Why there is no token, and whether to ask again.

use std::{sync::Arc, time::Duration};

use reqwest::StatusCode;

use crate::{TransportError, challenge::clock};

/// The issuer gave no token. All who waited for it get the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no token from {issuer}")]
pub struct SignInError {
    issuer: Arc<str>,
    retry_after: Option<Duration>,
    #[source]
    failure: Arc<SignInFailure>,
}

/// What became of asking for a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignInFailure {
    /// The connection could not be made or broke, or there was no answer in time.
    #[error("no connection to the issuer")]
    Transport(#[source] TransportError),
    /// The issuer answered with a status that is not the one of success.
    #[error(
        "the issuer answered {}",
        refusal(*.status, [.error, .description, .discovery], *.clock_ahead_seconds)
    )]
    #[non_exhaustive]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its error code, `invalid_client` and the like.
        error: Option<String>,
        /// The same for people.
        description: Option<String>,
        /// By how many seconds this machine's clock is ahead of the issuer's, if that is more than a few; negative if it is behind.
        clock_ahead_seconds: Option<i64>,
        /// What was asked, if that was not for a token but where to ask for one: there may be no issuer at that address.
        discovery: Option<String>,
    },
    /// The issuer answered with something else than it should.
    #[error("{what} cannot be used: {why}")]
    #[non_exhaustive]
    Unusable {
        /// Which answer.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The key could not sign.
    #[error("the request could not be signed: {why}")]
    #[non_exhaustive]
    Unsigned {
        /// What is wrong with the key.
        why: String,
    },
}

fn refusal(
    status: StatusCode,
    [error, description, discovery]: [&Option<String>; 3],
    clock_ahead: Option<i64>,
) -> String {
    let parts = [error, description].into_iter().flatten();
    let text = parts.fold(status.to_string(), |text, part| format!("{text}: {part}"));
    let asked = match discovery {
        Some(url) if crate::error::is_retryable(status) => format!(" to GET {url}"),
        Some(url) => format!(" to GET {url}; is that the issuer's address?"),
        None => String::new(),
    };
    text + &asked + &clock(clock_ahead)
}

impl SignInError {
    pub(super) fn new(
        issuer: Arc<str>,
        retry_after: Option<Duration>,
        failure: SignInFailure,
    ) -> Self {
        Self { issuer, retry_after, failure: Arc::new(failure) }
    }

    /// The same, to be asked again after so long.
    pub(super) fn after(&self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self.clone() }
    }

    /// What became of asking.
    #[must_use]
    pub fn failure(&self) -> &SignInFailure {
        &self.failure
    }

    /// Whether there may be a token later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match &*self.failure {
            SignInFailure::Transport(error) => error.is_retryable(),
            SignInFailure::Refused { status, error, .. } => {
                crate::error::is_retryable(*status)
                    || matches!(error.as_deref(), Some("temporarily_unavailable" | "server_error"))
            }
            SignInFailure::Unusable { .. } | SignInFailure::Unsigned { .. } => false,
        }
    }

    /// After how long to ask again, if that may help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
