//! What the producers and readers were told, kept apart from Herald's code, and the promises that follow from it.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::support::drafts::{Appended, Draft};

/// One append as it was sent, and may be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) drafts: Vec<Draft>,
    /// All or nothing, in `application/json`; otherwise NDJSON.
    pub(crate) is_json: bool,
    pub(crate) is_acknowledged: bool,
}

/// Everything that was promised so far.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) requests: Vec<Request>,
    /// By `notificationId`: which request has the draft, and where in it.
    drafts: HashMap<Uuid, (usize, usize)>,
    acknowledged: HashMap<Uuid, Appended>,
    /// By offset: every id that was ever told to have it.
    owners: BTreeMap<u64, Uuid>,
    /// By offset: every object that a reader was ever shown, to the byte.
    shown: BTreeMap<u64, String>,
    history: Option<String>,
}

/// What was known when a request left: what its answer is judged against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    newest: u64,
    was_acknowledged: bool,
}

impl Model {
    /// Notes a request before it is sent for the first time.
    pub(crate) fn add(&mut self, drafts: Vec<Draft>, is_json: bool) -> usize {
        let request = self.requests.len();
        for (place, draft) in drafts.iter().enumerate() {
            self.drafts.insert(draft.notification_id, (request, place));
        }
        self.requests.push(Request { drafts, is_json, is_acknowledged: false });
        request
    }

    pub(crate) fn before(&self, request: usize) -> Before {
        let newest = self.newest();
        Before { newest, was_acknowledged: self.requests[request].is_acknowledged }
    }

    /// The greatest offset that anybody was told.
    pub(crate) fn newest(&self) -> u64 {
        self.owners.last_key_value().map_or(0, |(offset, _)| *offset)
    }

    /// How many notifications were acknowledged.
    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// How many notifications were ever shown to a reader.
    pub(crate) fn shown_count(&self) -> usize {
        self.shown.len()
    }

    /// Judges the answer to a request, and notes its promises.
    pub(crate) fn acknowledge(&mut self, request: usize, answers: &[Appended], before: Before) {
        let ids: Vec<Uuid> =
            self.requests[request].drafts.iter().map(|draft| draft.notification_id).collect();
        let answered: Vec<Uuid> = answers.iter().map(|answer| answer.notification_id).collect();
        assert_eq!(answered, ids, "an answer has its drafts in their order");
        let new = answers.iter().filter(|answer| !answer.duplicate);
        assert!(
            new.clone().is_sorted_by(|a, b| a.offset < b.offset),
            "new drafts get ascending offsets"
        );
        for answer in new {
            assert!(
                answer.offset > before.newest,
                "offset {} is new, but {} was known before it was asked for",
                answer.offset,
                before.newest
            );
        }
        for answer in answers {
            assert!(
                answer.duplicate || !before.was_acknowledged,
                "{answer:?} was acknowledged before and is new again"
            );
            self.owns(answer.offset, answer.notification_id);
            let first = self.acknowledged.entry(answer.notification_id);
            let first = first.or_insert_with(|| answer.clone());
            assert_eq!(
                (first.offset, &first.created_at),
                (answer.offset, &answer.created_at),
                "a repeat has the first one's offset and time"
            );
        }
        self.requests[request].is_acknowledged = true;
    }

    /// Judges a notification that a reader was shown, and notes that it was.
    pub(crate) fn show(&mut self, offset: u64, object: &str) {
        let first = self.shown.entry(offset).or_insert_with(|| object.to_owned());
        assert_eq!(first, object, "what was shown at {offset} has changed");
        let stored: Draft = serde_json::from_str(object).expect("an object of the page");
        let (request, place) = self.drafts[&stored.notification_id];
        assert_eq!(stored, self.requests[request].drafts[place], "shown at {offset}");
        if let Some(answer) = self.acknowledged.get(&stored.notification_id) {
            assert_eq!(answer.offset, offset, "{answer:?} stands elsewhere");
            let created_at = format!("\"createdAt\":\"{}\"", answer.created_at);
            assert!(object.contains(&created_at), "{answer:?} is shown as {object}");
        }
        self.owns(offset, stored.notification_id);
    }

    /// The one history of the directory.
    pub(crate) fn same_history(&mut self, history: &str) {
        assert_eq!(self.history.get_or_insert_with(|| history.to_owned()), history);
    }

    /// Whether a server was ever ready on this directory.
    pub(crate) fn has_history(&self) -> bool {
        self.history.is_some()
    }

    /// Judges everything in `(after, …)` as a quiet server shows it.
    pub(crate) fn judge(&mut self, after: u64, all: &[(u64, String)]) {
        assert!(all.is_sorted_by(|a, b| a.0 < b.0), "offsets ascend");
        let before: BTreeMap<u64, String> = self.shown.split_off(&(after + 1));
        for (offset, object) in all {
            self.show(*offset, object);
        }
        for (offset, object) in &before {
            assert_eq!(self.shown.get(offset), Some(object), "shown at {offset}, now denied");
        }
        for answer in self.acknowledged.values().filter(|answer| answer.offset > after) {
            assert!(self.shown.contains_key(&answer.offset), "{answer:?} is lost");
        }
        self.judge_ids();
        self.judge_json_requests();
    }

    fn judge_ids(&self) {
        let mut ids: Vec<Uuid> = self.owners.values().copied().collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by(|a, b| a < b), "a notificationId stands at two offsets");
    }

    fn judge_json_requests(&self) {
        let stored: std::collections::HashSet<&Uuid> = self.owners.values().collect();
        for request in self.requests.iter().filter(|request| request.is_json) {
            let count =
                request.drafts.iter().filter(|draft| stored.contains(&draft.notification_id));
            let (count, all) = (count.count(), request.drafts.len());
            assert!(count == 0 || count == all, "{count} of {all} drafts of a JSON request stored");
        }
    }

    fn owns(&mut self, offset: u64, id: Uuid) {
        let owner = *self.owners.entry(offset).or_insert(id);
        assert_eq!(owner, id, "offset {offset} was used twice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(number: u128) -> Draft {
        Draft {
            notification_id: Uuid::from_u128(number),
            related_message_id: Uuid::from_u128(number),
            kind: "NewMessage".to_owned(),
            notification_receiver_her_id: 1,
            notification_triggered_by_her_id: None,
            description: String::new(),
        }
    }

    fn answer(number: u128, offset: u64, duplicate: bool) -> Appended {
        let notification_id = Uuid::from_u128(number);
        Appended { notification_id, offset, created_at: "now".to_owned(), duplicate }
    }

    fn object(number: u128, offset: u64) -> (u64, String) {
        let draft = serde_json::to_string(&draft(number)).unwrap();
        let rest = format!(",\"createdAt\":\"now\",\"offset\":{offset}}}");
        (offset, draft.trim_end_matches('}').to_owned() + &rest)
    }

    /// A model that was told: request 0 has drafts 1 and 2 at offsets 1 and 2.
    fn told() -> Model {
        let mut model = Model::default();
        let request = model.add(vec![draft(1), draft(2)], true);
        let before = model.before(request);
        model.acknowledge(request, &[answer(1, 1, false), answer(2, 2, false)], before);
        model
    }

    fn fails(judge: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(judge).is_err()
    }

    #[test]
    fn the_model_accepts_what_was_promised() {
        let mut model = told();
        model.judge(0, &[object(1, 1), object(2, 2)]);
        let before = model.before(0);
        model.acknowledge(0, &[answer(1, 1, true), answer(2, 2, true)], before);
    }

    #[test]
    fn the_model_notices_a_loss_a_move_and_a_repeat() {
        assert!(fails(|| told().judge(0, &[object(1, 1)])), "lost");
        assert!(fails(|| told().judge(0, &[object(1, 1), object(2, 3)])), "moved");
        let doubled = || told().judge(0, &[object(1, 1), object(2, 2), object(2, 3)]);
        assert!(fails(doubled), "doubled");
        assert!(fails(|| told().judge(0, &[object(2, 2), object(1, 1)])), "out of order");
    }

    #[test]
    fn the_model_notices_an_offset_used_again_and_a_repeat_stored_again() {
        let again = |answers: &[Appended]| {
            let mut model = told();
            let request = model.add(vec![draft(3)], false);
            let before = model.before(request);
            model.acknowledge(request, answers, before);
        };
        assert!(!fails(|| again(&[answer(3, 3, false)])));
        assert!(fails(|| again(&[answer(3, 2, false)])), "used again");
        assert!(fails(|| again(&[answer(4, 3, false)])), "another id");
        let repeated = || {
            let mut model = told();
            let before = model.before(0);
            model.acknowledge(0, &[answer(1, 3, false), answer(2, 4, false)], before);
        };
        assert!(fails(repeated), "stored again");
    }

    #[test]
    fn the_model_notices_half_a_json_request_and_a_changed_byte() {
        let half = || {
            let mut model = Model::default();
            model.add(vec![draft(1), draft(2)], true);
            model.judge(0, &[object(1, 1)]);
        };
        assert!(fails(half));
        let changed = || {
            let mut model = told();
            model.show(1, &object(1, 1).1);
            model.show(1, &object(1, 1).1.replace("now", "then"));
        };
        assert!(fails(changed));
    }
}
