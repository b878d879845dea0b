//! What went wrong, without what a server repeats of the data.

use std::{error::Error as _, fmt, io};

use herald_types::with_causes;
use tokio_postgres::{
    Error,
    error::{DbError, Severity, SqlState},
};

use super::super::engine::EngineError;

/// Why a server did not do something. Its text has the server's message, but neither its detail nor its context: those
/// may hold rows.
#[derive(Clone)]
pub(super) struct Failure {
    text: String,
    code: Option<SqlState>,
    /// Whether the transaction it is about has certainly not been committed. A server says ERROR only of what it rolls
    /// back: once the record of a commit is written, anything that goes wrong makes it panic.
    is_rolled_back: bool,
    /// Whether trying again will not help.
    is_lasting: bool,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: None, is_rolled_back: false, is_lasting: false }
    }

    pub(super) fn late() -> Self {
        Self::new("no answer in time")
    }

    pub(super) fn is(&self, code: &SqlState) -> bool {
        self.code.as_ref() == Some(code)
    }

    pub(super) fn is_rolled_back(&self) -> bool {
        self.is_rolled_back
    }

    pub(super) fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// Whether nothing happened, and it is not worth trying again at once.
    pub(super) fn is_refusal(&self) -> bool {
        self.is_rolled_back
            && self.code.as_ref().is_some_and(|code| {
                [
                    SqlState::DISK_FULL,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    SqlState::UNDEFINED_TABLE,
                    SqlState::UNDEFINED_COLUMN,
                    SqlState::INVALID_SCHEMA_NAME,
                    SqlState::CHECK_VIOLATION,
                    SqlState::NOT_NULL_VIOLATION,
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                ]
                .contains(code)
            })
    }

    /// As the answer of an engine that was asked something: what stays must be mended, all else may pass.
    pub(super) fn into_engine_error(self, whose: &str) -> EngineError {
        if self.is_lasting {
            EngineError::Unfit(format!("{whose}: {}", self.text))
        } else {
            EngineError::Away(Box::new(Self { text: format!("{whose}: {}", self.text), ..self }))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Some(said) = error.as_db_error() else {
            let is_lasting = is_lasting(&error);
            return Self { is_lasting, ..Self::new(with_causes(&error)) };
        };
        Self {
            text: format!("{} ({})", said.message(), said.code().code()),
            is_rolled_back: said.parsed_severity() == Some(Severity::Error),
            is_lasting: stays(said),
            code: Some(said.code().clone()),
        }
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> Self {
        failure.into_engine_error("PostgreSQL")
    }
}

/// What a server says until somebody changes its settings or ours.
fn stays(said: &DbError) -> bool {
    [
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_CATALOG_NAME,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::INVALID_SCHEMA_NAME,
    ]
    .contains(said.code())
}

/// A peer that cannot be reached is an I/O error; one that can, and with which no agreement is possible, is not: wrong
/// certificates, no TLS, no password.
fn is_lasting(error: &Error) -> bool {
    let Some(cause) = error.source() else { return false };
    match cause.downcast_ref::<io::Error>() {
        Some(io) => io
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_))),
        None => true,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
