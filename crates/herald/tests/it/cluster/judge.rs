//! What is in the log in the end, and whether that is what everybody was given and told.

use std::{collections::HashMap, sync::Arc, time::Duration};

use herald_rig::replica::Replica;
use serde::Deserialize;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    HER_IDS, LOOK_EVERY,
    clients::Reader,
    load::{Appended, Fate, Polled},
};
use crate::support::{
    drafts::Draft,
    http::{self, poll, poll_through},
};

/// The log of all receivers, as a replica shows it to polls.
pub(crate) struct Log(Vec<Stored>);

struct Stored {
    offset: u64,
    object: String,
    fields: Fields,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    notification_id: Uuid,
    related_message_id: Uuid,
    notification_receiver_her_id: u32,
}

impl Log {
    /// Asks every replica once it has `newest`; all must show the same.
    pub(crate) async fn of(replicas: &[Arc<Replica>], newest: u64) -> Self {
        let (client, her_ids) = (http::client(), HER_IDS.collect::<Vec<u32>>());
        let mut shown: Option<Vec<(u64, String)>> = None;
        for replica in replicas {
            while poll(&client, &replica.url(), &her_ids, newest - 1, 1).await.tail < newest {
                sleep(LOOK_EVERY).await;
            }
            let log = poll_through(&client, &replica.url(), &her_ids, 0).await;
            if let Some(shown) = &shown {
                assert!(*shown == log, "{} shows another log than the first", replica.name());
            }
            shown = Some(log);
        }
        let stored = shown.expect("a replica").into_iter().map(|(offset, object)| {
            let fields = serde_json::from_str(&object).expect("an object of the page");
            Stored { offset, object, fields }
        });
        let stored: Vec<Stored> = stored.collect();
        assert!(stored.is_sorted_by(|before, after| before.offset < after.offset));
        Self(stored)
    }

    /// All that producers were told is there, once and as it was given, and nothing else.
    pub(crate) fn judge_appended(&self, appended: &Appended) {
        let by_id = self.0.iter().map(|one| (one.fields.notification_id, one));
        let by_id: HashMap<_, _> = by_id.collect();
        assert_eq!(by_id.len(), self.0.len(), "an id is stored twice");
        let mut by_message = HashMap::<Uuid, usize>::new();
        for one in &self.0 {
            *by_message.entry(one.fields.related_message_id).or_default() += 1;
        }
        for (draft, offset) in &appended.with_ids {
            let stored = by_id.get(&draft.notification_id).expect("what is acknowledged is there");
            let shown: Draft = serde_json::from_str(&stored.object).expect("a notification");
            assert_eq!((&shown, stored.offset), (draft, *offset));
        }
        let mut count = appended.with_ids.len();
        for (message, fate) in &appended.without_ids {
            let times = by_message.get(message).copied().unwrap_or_default();
            match fate {
                Fate::Stored => assert_eq!(times, 1, "{message} has no id and was acknowledged"),
                Fate::Unknown => assert!(times <= 1, "{message} is stored {times} times"),
            }
            count += times;
        }
        assert_eq!(self.0.len(), count, "something is stored that nobody appended");
    }

    /// A stream's reader was given exactly the log of its receivers, and was never away for longer than it was told to be.
    pub(crate) fn judge_reader(&self, reader: &Reader, drain: Duration) {
        self.judge(&reader.name, &reader.receivers, &reader.given);
        for absence in &reader.absences {
            assert!(absence.lasted <= drain + absence.waits, "{}: {absence:?}", reader.name);
        }
    }

    pub(crate) fn judge_poller(&self, polled: &Polled) {
        self.judge("a poller", &polled.receivers, &polled.given);
    }

    fn judge(&self, who: &str, receivers: &[u32], given: &[(u64, String)]) {
        let of_receivers = self
            .0
            .iter()
            .filter(|one| receivers.contains(&one.fields.notification_receiver_her_id));
        let expected: Vec<(u64, &str)> =
            of_receivers.map(|one| (one.offset, one.object.as_str())).collect();
        let given: Vec<(u64, &str)> =
            given.iter().map(|(offset, object)| (*offset, object.as_str())).collect();
        let same = given.iter().zip(&expected).take_while(|(one, other)| one == other).count();
        assert!(
            same == given.len() && same == expected.len(),
            "{who}: {} were given and {} are in the log; the first {same} agree, then {:?} came instead of {:?}",
            given.len(),
            expected.len(),
            given.get(same),
            expected.get(same)
        );
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
