//! Problem details (RFC 9457) as Herald answers them; docs/problems.md explains each type.

use serde::{Deserialize, Serialize};

/// What kind of problem it is. Each has one page section, one status and one error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// A header, a parameter or the body is invalid.
    InvalidRequest,
    /// The call has no token, or one, or a proof, that is not accepted.
    Unauthenticated,
    /// The token lacks the scope that this call needs.
    InsufficientScope,
    /// Appends need a client certificate, and the connection has none.
    ClientCertificateRequired,
    /// A HER-id of the request is not granted.
    HerIdNotGranted,
    /// There is no such path.
    NotFound,
    /// The path does not know this method.
    MethodNotAllowed,
    /// The answer's only content type is not accepted.
    NotAcceptable,
    /// A `notificationId` is stored with other content.
    ContentDiffers,
    /// The body, a line or the number of drafts is too large.
    TooLarge,
    /// The body's content type or encoding is not known.
    UnsupportedMediaType,
    /// The client asks too often, or has too many streams open.
    TooManyRequests,
    /// Something broke inside.
    Internal,
    /// The server has not finished starting.
    NotReady,
    /// The server is stopping.
    Stopping,
    /// There is no room for the request now.
    Busy,
    /// The log cannot take appends now; nothing of the request happened.
    AppendRefused,
    /// It is not known whether the append happened.
    OutcomeUnknown,
}

impl ProblemType {
    /// Every type, by status.
    pub const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::InsufficientScope,
        Self::ClientCertificateRequired,
        Self::HerIdNotGranted,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::ContentDiffers,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::Internal,
        Self::NotReady,
        Self::Stopping,
        Self::Busy,
        Self::AppendRefused,
        Self::OutcomeUnknown,
    ];

    /// The last part of the type's URI, the heading in docs/problems.md and the metric's label.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Unauthenticated => "unauthenticated",
            Self::InsufficientScope => "insufficient-scope",
            Self::ClientCertificateRequired => "client-certificate-required",
            Self::HerIdNotGranted => "her-id-not-granted",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotAcceptable => "not-acceptable",
            Self::ContentDiffers => "content-differs",
            Self::TooLarge => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::TooManyRequests => "too-many-requests",
            Self::Internal => "internal",
            Self::NotReady => "not-ready",
            Self::Stopping => "stopping",
            Self::Busy => "busy",
            Self::AppendRefused => "append-refused",
            Self::OutcomeUnknown => "outcome-unknown",
        }
    }

    /// A few words for people, the same for every problem of the type.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is invalid",
            Self::Unauthenticated => "Not authenticated",
            Self::InsufficientScope => "The token lacks a scope",
            Self::ClientCertificateRequired => "A client certificate is required",
            Self::HerIdNotGranted => "No access to a HER-id",
            Self::NotFound => "No such resource",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NotAcceptable => "No acceptable content type",
            Self::ContentDiffers => "The notificationId is stored with other content",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMediaType => "Unsupported content type",
            Self::TooManyRequests => "Too many requests",
            Self::Internal => "Internal error",
            Self::NotReady => "The server is not ready",
            Self::Stopping => "The server is stopping",
            Self::Busy => "The server is busy",
            Self::AppendRefused => "The log takes no appends now",
            Self::OutcomeUnknown => "It is unknown whether the append happened",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::InsufficientScope | Self::ClientCertificateRequired | Self::HerIdNotGranted => {
                403
            }
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::ContentDiffers => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::NotReady
            | Self::Stopping
            | Self::Busy
            | Self::AppendRefused
            | Self::OutcomeUnknown => 503,
        }
    }

    /// The page's own code: 1001 exactly with status 400, 1202 for a HER-id, 0 otherwise.
    #[must_use]
    pub const fn error_code(self) -> u16 {
        match self {
            Self::InvalidRequest => 1001,
            Self::HerIdNotGranted => 1202,
            Self::Unauthenticated
            | Self::InsufficientScope
            | Self::ClientCertificateRequired
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::ContentDiffers
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::TooManyRequests
            | Self::Internal
            | Self::NotReady
            | Self::Stopping
            | Self::Busy
            | Self::AppendRefused
            | Self::OutcomeUnknown => 0,
        }
    }

    /// The type's URI.
    #[must_use]
    pub fn uri(self) -> String {
        format!("urn:herald:problem:{}", self.slug())
    }
}

/// A problem as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// The type's URI, `urn:herald:problem:…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A few words, the same for every problem of the type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong here, and what to do.
    pub detail: String,
    /// The path that was asked.
    pub instance: String,
    /// The page's own code.
    pub error_code: u16,
    /// The same as the answer's `x-request-id`.
    pub request_id: String,
    /// Every violation found; null where the request is not the problem.
    pub validation_errors: Option<Vec<String>>,
    /// When it happened, RFC 3339 with a numeric offset.
    pub timestamp: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_1001_goes_exactly_with_400() {
        for kind in ProblemType::ALL {
            assert_eq!(kind.error_code() == 1001, kind.status() == 400, "{kind:?}");
        }
    }

    #[test]
    fn slugs_are_distinct() {
        let mut slugs: Vec<_> = ProblemType::ALL.map(ProblemType::slug).into();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), ProblemType::ALL.len());
    }
}
