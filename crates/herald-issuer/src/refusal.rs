//! Why no token is issued, as RFC 6749, section 5.2, says it.

use http::StatusCode;

/// A token request that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    /// For whoever wrote the client: what was found, and what should be. It has names, times and addresses in it, and no
    /// part of a token, proof or key.
    pub(crate) description: String,
}

impl Refusal {
    fn new(error: &'static str, description: impl AsRef<str>) -> Self {
        let description = plain(description.as_ref());
        Self { status: StatusCode::BAD_REQUEST, error, description }
    }

    pub(crate) fn request(description: impl AsRef<str>) -> Self {
        Self::new("invalid_request", description)
    }

    pub(crate) fn client(description: impl AsRef<str>) -> Self {
        Self::new("invalid_client", description)
    }

    pub(crate) fn scope(description: impl AsRef<str>) -> Self {
        Self::new("invalid_scope", description)
    }

    pub(crate) fn grant_type(description: impl AsRef<str>) -> Self {
        Self::new("unsupported_grant_type", description)
    }

    pub(crate) fn proof(description: impl AsRef<str>) -> Self {
        Self::new("invalid_dpop_proof", description)
    }

    pub(crate) fn nonce(description: impl AsRef<str>) -> Self {
        Self::new("use_dpop_nonce", description)
    }

    pub(crate) fn busy(description: impl AsRef<str>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, ..Self::new("temporarily_unavailable", description) }
    }

    pub(crate) fn broken(description: impl AsRef<str>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, ..Self::new("server_error", description) }
    }
}

/// Only the characters that RFC 6749 allows in a description: a caller's own words may be repeated in it.
fn plain(text: &str) -> String {
    let shown = |c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    text.chars().map(|c| if shown(c) { c } else { '?' }).collect()
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_cannot_carry_what_a_log_or_a_header_would_take_for_more() {
        let refusal = Refusal::client("no client \"a\\b\"\r\nx: y\u{1b}[1m\u{202e}");
        assert_eq!(refusal.description, "no client ?a?b???x: y?[1m?");
    }
}
