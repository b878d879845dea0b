//! Drafts as a producer might send them, made from a seed.

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The five types of the page.
pub(crate) const TYPES: [&str; 5] = [
    "NewMessage",
    "RefusedMessage",
    "MessageSentStateUpdated",
    "MessageApprecInfoUpdated",
    "MessageDeliveryStateUpdated",
];
/// Texts that break careless framing: quotes, line ends, long and short characters.
const WORDS: [&str; 8] =
    ["Melding mottatt", "\"quoted\"", "line\nbreak", "\r\n\r\n", "æøå", "😀", "\u{2028}", "\\"];

/// A draft, and what must come back of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Draft {
    pub(crate) notification_id: Uuid,
    pub(crate) related_message_id: Uuid,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) notification_receiver_her_id: u32,
    pub(crate) notification_triggered_by_her_id: Option<u32>,
    pub(crate) description: String,
}

impl Draft {
    pub(crate) fn random(rng: &mut impl Rng, her_ids: &[u32]) -> Self {
        let words = if rng.random_bool(0.02) { 60 } else { rng.random_range(0..5) };
        let word = |_| WORDS[rng.random_range(0..WORDS.len())];
        let description = (0..words).map(word).collect::<Vec<_>>().join(" ");
        Self {
            notification_id: Uuid::from_u128(rng.random()),
            related_message_id: Uuid::from_u128(rng.random()),
            kind: TYPES[rng.random_range(0..TYPES.len())].to_owned(),
            notification_receiver_her_id: her_ids[rng.random_range(0..her_ids.len())],
            notification_triggered_by_her_id: rng
                .random_bool(0.5)
                .then(|| rng.random_range(1..=2_147_483_647)),
            description,
        }
    }
}

/// The body of a JSON request.
pub(crate) fn json(drafts: &[Draft]) -> String {
    serde_json::json!({ "notifications": drafts }).to_string()
}

/// The body of an NDJSON request.
pub(crate) fn ndjson(drafts: &[Draft]) -> String {
    let line = |draft| serde_json::to_string(draft).expect("a draft is JSON") + "\n";
    drafts.iter().map(line).collect()
}

/// What the server said about one draft.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Appended {
    pub(crate) notification_id: Uuid,
    pub(crate) offset: u64,
    pub(crate) created_at: String,
    pub(crate) duplicate: bool,
}

/// The answer to an append.
#[derive(Deserialize)]
pub(crate) struct AppendAnswer {
    pub(crate) notifications: Vec<Appended>,
}
