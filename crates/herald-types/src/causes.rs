//! An error's text with its causes.

use std::error::Error;

/// The error and what caused it, on one line: `could not read: no such file`. A log line has one text for both; a formatter of
/// logs may leave the causes out.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner(#[source] std::fmt::Error);

    #[test]
    fn every_cause_is_said_once_in_its_order() {
        let error = Outer(Inner(std::fmt::Error));
        assert_eq!(with_causes(&error), format!("outer: inner: {}", std::fmt::Error));
        assert_eq!(with_causes(&std::fmt::Error), std::fmt::Error.to_string());
    }
}
