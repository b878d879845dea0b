//! One request to append: which of its drafts are new, and what the others were answered.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use herald_types::{Draft, Notification, Offset, wire};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    AppendError, ReadError,
    frame::Prepared,
    sequencer::{Handle, Request, Verdict},
    surroundings,
    view::View,
};

/// What became of one draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its idempotency key.
    pub notification_id: Uuid,
    /// Its offset, or that of the first one with this key.
    pub offset: Offset,
    /// Its time, or that of the first one with this key, as it is stored.
    pub created_at: String,
    /// Whether the key was stored already.
    pub duplicate: bool,
}

struct Item {
    draft: Draft,
    id: Uuid,
    /// The first draft of the same request with the same id, which is this one where it is the only one.
    first: usize,
}

/// Appends `drafts`, all or none.
pub(crate) async fn append(
    view: &Arc<View>,
    sequencer: &Handle,
    drafts: Vec<Draft>,
    now: Timestamp,
) -> Result<Vec<Appended>, AppendError> {
    let created_at = wire::time_text(now);
    let items = identify(drafts);
    // Room first: what a request sees when it looks must not grow old while it waits for a place.
    let answer_by = sequencer.answer_by();
    let mut room = sequencer.room(items.iter().map(Item::bytes_max).sum(), answer_by).await?;
    loop {
        let seen = view.marks();
        let stored = look_up(view, &items).await?;
        check_content(&items, &stored, &created_at)?;
        let is_new = |(at, item): &(usize, &Item)| item.first == *at && stored[*at].is_none();
        let new = items.iter().enumerate().filter(is_new);
        let records: Vec<Prepared> = new.map(|(_, item)| item.prepare(&created_at)).collect();
        let first_offset = if records.is_empty() {
            Offset::ZERO
        } else {
            let oldest_duplicate = stored.iter().flatten().map(|stored| stored.offset).min();
            let request = Request { records, seen, oldest_duplicate, room, answer_by };
            match sequencer.append(request).await {
                Verdict::Stored(first_offset) => first_offset,
                Verdict::LookAgain(returned) => {
                    room = returned;
                    continue;
                }
                Verdict::Failed(error) => return Err(error),
            }
        };
        return Ok(answers(&items, &stored, first_offset, &created_at));
    }
}

impl Item {
    /// The most bytes that its record takes in a frame, whatever its description escapes to.
    fn bytes_max(&self) -> usize {
        const WITHOUT_DESCRIPTION: usize = 512;
        const ESCAPED_BYTES_MAX: usize = r"\u0000".len();
        WITHOUT_DESCRIPTION + ESCAPED_BYTES_MAX * self.draft.description().len()
    }

    fn prepare(&self, created_at: &str) -> Prepared {
        let body_start = wire::body_start(&self.draft, self.id, created_at);
        Prepared { notification_id: self.id, receiver: self.draft.receiver, body_start }
    }
}

/// Gives each draft an id, and finds those that come again.
fn identify(drafts: Vec<Draft>) -> Vec<Item> {
    let mut firsts = HashMap::new();
    if drafts.len() > 1 {
        firsts.reserve(drafts.len());
    }
    let identified = drafts.into_iter().enumerate().map(|(at, draft)| {
        let (id, first) = match draft.notification_id {
            Some(id) => (id, *firsts.entry(id).or_insert(at)),
            None => (Uuid::now_v7(), at),
        };
        Item { draft, id, first }
    });
    identified.collect()
}

/// Whatever comes under an id that is stored, or that stands earlier in the request, must say the same.
fn check_content(
    items: &[Item],
    stored: &[Option<Notification>],
    created_at: &str,
) -> Result<(), AppendError> {
    let differs = |(at, item): &(usize, &Item)| match &stored[item.first] {
        Some(stored) => !item.draft.matches(stored),
        None if item.first == *at => false,
        None => {
            let first = &items[item.first];
            !item.draft.matches(&first.draft.stored(first.id, created_at))
        }
    };
    let differing = items.iter().enumerate().filter(differs);
    let drafts: Vec<(usize, Uuid)> = differing.map(|(at, item)| (at, item.id)).collect();
    if drafts.is_empty() { Ok(()) } else { Err(AppendError::ContentDiffers { drafts }) }
}

/// What is stored under each draft's id. An id that the server made is new; of the others memory knows nearly always
/// that they are, and only for the rest the disk is asked.
async fn look_up(view: &Arc<View>, items: &[Item]) -> Result<Vec<Option<Notification>>, ReadError> {
    let mut stored: Vec<Option<Notification>> = items.iter().map(|_| None).collect();
    let is_asked =
        |(at, item): &(usize, &Item)| item.first == *at && item.draft.notification_id.is_some();
    let asked = items.iter().enumerate().filter(is_asked);
    let (places, ids): (Vec<usize>, Vec<Uuid>) = asked.map(|(at, item)| (at, item.id)).unzip();
    let asked = places.into_iter().zip(ids.iter().copied()).zip(view.may_hold(&ids));
    let known: Vec<(usize, Uuid)> =
        asked.filter(|(_, may_be_held)| *may_be_held).map(|(asked, _)| asked).collect();
    if known.is_empty() {
        return Ok(stored);
    }
    let view = Arc::clone(view);
    let find = move || {
        let find = |(at, id)| Ok(view.find_id(id)?.map(|record| (at, record)));
        known.into_iter().map(find).collect::<Result<Vec<_>, ReadError>>()
    };
    let found = surroundings::spawn_blocking(find).await.expect("looking an id up does not panic");
    for (at, record) in found?.into_iter().flatten() {
        let notification = serde_json::from_slice(&record.body);
        stored[at] = Some(notification.expect("what was stored was a notification"));
    }
    Ok(stored)
}

fn answers(
    items: &[Item],
    stored: &[Option<Notification>],
    first_offset: Offset,
    created_at: &str,
) -> Vec<Appended> {
    let mut answers: Vec<Appended> = Vec::with_capacity(items.len());
    let mut next_offset = first_offset.get();
    for (at, item) in items.iter().enumerate() {
        let answer = if let Some(stored) = &stored[item.first] {
            let (offset, created_at) = (stored.offset, stored.created_at.clone());
            Appended { notification_id: item.id, offset, created_at, duplicate: true }
        } else if item.first < at {
            Appended { duplicate: true, ..answers[item.first].clone() }
        } else {
            let offset = Offset::new(next_offset).expect("the view has taken it");
            next_offset += 1;
            let created_at = created_at.to_owned();
            Appended { notification_id: item.id, offset, created_at, duplicate: false }
        };
        answers.push(answer);
    }
    answers
}
