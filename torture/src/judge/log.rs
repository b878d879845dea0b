//! What is there in the end.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use uuid::Uuid;

use super::{Kind, Verdict};
use crate::history::{Copy, Draft, Item};

/// A notification that is there.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) body: Arc<str>,
    pub(super) draft: Draft,
    pub(super) created_at: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(flatten)]
    draft: Draft,
    created_at: String,
    offset: u64,
}

impl Stored {
    fn parse(item: &Item) -> Result<Self, String> {
        let fields: Fields = serde_json::from_str(&item.body).map_err(|error| error.to_string())?;
        if fields.offset != item.offset {
            return Err(format!("it says offset {}", fields.offset));
        }
        let (draft, created_at) = (fields.draft, fields.created_at);
        Ok(Self { body: Arc::clone(&item.body), draft, created_at })
    }

    /// Whether it is what a producer asked for; what was left out may be anything.
    pub(super) fn is_of(&self, draft: &Draft) -> bool {
        agree(draft, &self.draft)
    }
}

/// Whether two drafts can both be of one notification.
pub(super) fn agree(asked: &Draft, stored: &Draft) -> bool {
    let optional = |asked: &Option<u32>, stored: &Option<u32>| asked.is_none() || asked == stored;
    asked.related_message_id == stored.related_message_id
        && asked.kind == stored.kind
        && asked.notification_receiver_her_id == stored.notification_receiver_her_id
        && optional(
            &asked.notification_triggered_by_her_id,
            &stored.notification_triggered_by_her_id,
        )
        && (asked.description.is_none() || asked.description == stored.description)
}

/// All that is there.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) by_offset: BTreeMap<u64, Stored>,
    pub(super) by_id: HashMap<Uuid, u64>,
    /// Ascending.
    by_receiver: HashMap<u32, Vec<u64>>,
    pub(super) tail: u64,
    pub(super) trim: u64,
    pub(super) history: String,
}

impl Log {
    /// The first copy, which all others must be like.
    pub(super) fn of(copies: &[Copy], verdict: &mut Verdict) -> Self {
        let (first, others) = copies.split_first().expect("there is one");
        for other in others {
            compare(first, other, verdict);
        }
        let mut log = Self {
            tail: first.head.tail,
            trim: first.head.trim,
            history: first.head.history.clone(),
            ..Self::default()
        };
        for item in &first.items {
            log.add(item, verdict);
        }
        log
    }

    fn add(&mut self, item: &Item, verdict: &mut Verdict) {
        let newest = self.by_offset.last_key_value().map_or(0, |(offset, _)| *offset);
        if item.offset <= newest {
            verdict.add(Kind::NotAscending, || {
                format!("in the end, offset {} comes behind {newest}", item.offset)
            });
        }
        if item.offset > self.tail {
            verdict.add(Kind::BeyondTail, || {
                format!("in the end, offset {} is there and the tail is {}", item.offset, self.tail)
            });
        }
        let stored = match Stored::parse(item) {
            Ok(stored) => stored,
            Err(what) => {
                verdict.add(Kind::Unreadable, || format!("offset {}: {what}", item.offset));
                return;
            }
        };
        let id = stored.draft.notification_id;
        if let Some(first) = self.by_id.insert(id, item.offset) {
            verdict
                .add(Kind::StoredTwice, || format!("{id} at offsets {first} and {}", item.offset));
        }
        let receiver = stored.draft.notification_receiver_her_id;
        self.by_receiver.entry(receiver).or_default().push(item.offset);
        self.by_offset.insert(item.offset, stored);
    }

    /// The offsets of these receivers' notifications in `(after, until]`, ascending.
    pub(super) fn range(&self, receivers: &[u32], after: u64, until: u64) -> Vec<u64> {
        let of = |receiver| {
            let offsets = self.by_receiver.get(receiver).map_or(&[][..], Vec::as_slice);
            let begin = offsets.partition_point(|offset| *offset <= after);
            let end = offsets.partition_point(|offset| *offset <= until);
            offsets[begin..end.max(begin)].iter().copied()
        };
        let mut all: Vec<u64> = receivers.iter().flat_map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn compare(first: &Copy, other: &Copy, verdict: &mut Verdict) {
    let (a, b) = (first.copy_of, other.copy_of);
    if first.head != other.head {
        verdict.add(Kind::CopiesDiffer, || {
            format!("replica {a} says {:?} and replica {b} {:?}", first.head, other.head)
        });
    }
    if first.items.len() != other.items.len() {
        verdict.add(Kind::CopiesDiffer, || {
            let counts = (first.items.len(), other.items.len());
            format!("replica {a} has {} notifications and replica {b} {}", counts.0, counts.1)
        });
    }
    let differs = first.items.iter().zip(&other.items).find(|(first, other)| first != other);
    if let Some((first, other)) = differs {
        verdict.add(Kind::CopiesDiffer, || {
            let (at, other_at) = (first.offset, other.offset);
            format!("replica {a} has offset {at} where replica {b} has {other_at}, or other bytes")
        });
    }
}
