//! Questions to JetStream: JSON to a subject, JSON back.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    super::engine::EngineError,
    session::{AskError, Session},
};

/// What JetStream's answers say went wrong, as far as Herald tells them apart.
pub(super) mod code {
    pub(crate) const NO_PEERS: u64 = 10005;
    /// Of a server that can not reach most of the others.
    pub(crate) const NOT_AVAILABLE: u64 = 10008;
    pub(crate) const MESSAGE_NOT_FOUND: u64 = 10037;
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    pub(crate) const STREAM_NAME_IN_USE: u64 = 10058;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
    pub(crate) const STREAM_NOT_MATCH: u64 = 10060;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
    pub(crate) const REPLICAS_NOT_SUPPORTED: u64 = 10074;
    pub(crate) const NOT_ENABLED: u64 = 10076;

    /// Answers to a batch that are given before anything is done with it, and that every leader of the stream would give. Not
    /// those about room (10002, 10023, 10047, 10077): one server has none when another has, and for a moment both may lead.
    pub(crate) const NOTHING_HAPPENED: [u64; 4] = [
        10054, // larger than the stream's messages may be
        STREAM_NOT_MATCH,
        10097, // the headers are too large
        10109, // the stream is sealed
    ];
}

/// JetStream's own error.
#[derive(Debug, thiserror::Error)]
#[error("{description} (error {number})")]
pub(super) struct ApiError {
    /// As in HTTP.
    pub(super) status: u64,
    pub(super) number: u64,
    pub(super) description: String,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiFailure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Said(#[from] ApiError),
    #[error("an answer that can not be read")]
    Unreadable,
}

impl ApiFailure {
    /// The number of JetStream's error, if it is one.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Said(error) => Some(error.number),
            Self::Ask(_) | Self::Unreadable => None,
        }
    }
}

/// What is wrong with the server, the account or its rights, is for somebody to change; the rest may pass by itself.
impl From<ApiFailure> for EngineError {
    fn from(failure: ApiFailure) -> Self {
        match &failure {
            ApiFailure::Ask(AskError::Denied(text)) => Self::Unfit(format!(
                "the user of the NATS connection may not do what Herald needs: {text}; docs/operations.md lists the rights"
            )),
            ApiFailure::Ask(AskError::NoResponders(subject)) if subject.starts_with("$JS.API.") => {
                Self::Unfit(NOT_ENABLED.to_owned())
            }
            ApiFailure::Said(error) => match error.number {
                code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT => {
                    Self::Unfit(NOT_ENABLED.to_owned())
                }
                _ => Self::Away(failure.into()),
            },
            ApiFailure::Ask(_) | ApiFailure::Unreadable => Self::Away(failure.into()),
        }
    }
}

const NOT_ENABLED: &str = "JetStream is not enabled on these NATS servers, or not for this account: add \
    jetstream { store_dir: …, sync_interval: always } to each server's configuration, and jetstream: enabled to the account";

impl Session {
    /// Asks, and gives what was answered unless that is an error.
    pub(super) async fn call(
        &self,
        subject: &str,
        question: &Value,
        deadline: Instant,
    ) -> Result<Value, ApiFailure> {
        self.send(subject, None, Bytes::from(question.to_string()), deadline).await
    }

    /// Sends what need not be JSON, and gives what was answered unless that is an error.
    pub(super) async fn send(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Value, ApiFailure> {
        let answer = self.ask(subject, headers, payload, deadline).await;
        let answer = answer.map_err(ApiFailure::from).and_then(|answer| read(&answer.payload));
        match &answer {
            Err(ApiFailure::Ask(AskError::NoResponders(_) | AskError::Lost { .. })) => {
                self.not_answered();
            }
            Err(ApiFailure::Said(error)) if error.number == code::NOT_AVAILABLE => {
                self.not_answered();
            }
            // It was not asked.
            Err(ApiFailure::Ask(AskError::NotSent(_))) => {}
            _ => self.answered(),
        }
        answer
    }
}

/// Reads an answer.
fn read(bytes: &[u8]) -> Result<Value, ApiFailure> {
    let answer: Value = serde_json::from_slice(bytes).map_err(|_| ApiFailure::Unreadable)?;
    match answer.get("error") {
        None => Ok(answer),
        Some(error) => Err(ApiFailure::Said(ApiError {
            status: error["code"].as_u64().unwrap_or(0),
            number: error["err_code"].as_u64().unwrap_or(0),
            description: error["description"].as_str().unwrap_or("no description").to_owned(),
        })),
    }
}
