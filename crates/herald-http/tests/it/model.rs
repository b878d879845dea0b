//! The model, a vector and a filter, judges the server over HTTP.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::StatusCode;
use proptest::prelude::*;
use serde_json::json;

use crate::herald::{Herald, draft, draft_with_id};

/// What is stored, by offset from 1: whom it is for.
#[derive(Default)]
struct Model {
    receivers: Vec<u32>,
    ids: HashMap<u128, (u64, u32)>,
}

impl Model {
    /// The offsets of all or nothing.
    fn append(&mut self, drafts: &[(u32, Option<u128>)]) -> Option<Vec<u64>> {
        let before = (self.receivers.clone(), self.ids.clone());
        let mut offsets = Vec::new();
        for &(receiver, id) in drafts {
            match id.and_then(|id| self.ids.get(&id)) {
                Some(&(offset, stored)) if stored == receiver => offsets.push(offset),
                Some(_) => {
                    (self.receivers, self.ids) = before;
                    return None;
                }
                None => {
                    self.receivers.push(receiver);
                    let offset = self.receivers.len() as u64;
                    self.ids.extend(id.map(|id| (id, (offset, receiver))));
                    offsets.push(offset);
                }
            }
        }
        Some(offsets)
    }

    fn read(&self, wanted: &[u32], after: u64) -> Vec<u64> {
        let all = (1..).zip(&self.receivers);
        let wanted = all.filter(|(offset, receiver)| *offset > after && wanted.contains(receiver));
        wanted.map(|(offset, _)| offset).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(u32, Option<u128>)>),
    Read { receivers: Vec<u32>, after: u64, limit: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let drafts = prop::collection::vec((1..6_u32, prop::option::of(0..40_u128)), 1..6);
    let read = (prop::collection::vec(1..6_u32, 1..4), 0..60_u64, 1..12_usize)
        .prop_map(|(receivers, after, limit)| Step::Read { receivers, after, limit });
    prop::collection::vec(prop_oneof![drafts.prop_map(Step::Append), read], 1..40)
}

async fn follow(herald: &Herald, model: &mut Model, step: &Step) {
    match step {
        Step::Append(drafts) => {
            let body: Vec<_> = drafts
                .iter()
                .map(|&(receiver, id)| match id {
                    Some(id) => draft_with_id(receiver, id),
                    None => draft(receiver),
                })
                .collect();
            let body = json!({ "notifications": body }).to_string();
            let answer = herald.post("application/json", body).await;
            match model.append(drafts) {
                Some(offsets) => assert_eq!(answer.offsets(), offsets, "{drafts:?}"),
                None => assert_eq!(answer.status, StatusCode::CONFLICT, "{drafts:?}"),
            }
        }
        Step::Read { receivers, after, limit } => {
            let her_ids: String = receivers.iter().map(|one| format!("HerIds={one}&")).collect();
            let expected = model.read(receivers, *after);
            let page =
                herald.poll(&format!("{her_ids}Offset={after}&NotificationsToFetch={limit}")).await;
            assert_eq!(page.offsets(), expected[..expected.len().min(*limit)]);
            let mut events =
                herald.stream(&format!("{her_ids}Offset={after}")).await.connected().await;
            for (body, offset) in events.notifications(expected.len()).await.iter().zip(expected) {
                assert!(body.ends_with(&format!("\"offset\":{offset}}}")), "{body}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_server_answers_like_a_vector_and_a_filter(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (herald, mut model) = (Herald::start(), Model::default());
            for step in &steps {
                follow(&herald, &mut model, step).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_seen_an_offset_is_never_shown_or_denied_one_below() {
    const WRITERS: u32 = 3;
    const APPENDS: u64 = 30;
    let herald = Arc::new(Herald::start());
    // The newest offset that anybody has been told of, by an append or by a read.
    let seen = Arc::new(AtomicU64::new(0));
    let writers = (1..=WRITERS).map(|writer| {
        let (herald, seen) = (Arc::clone(&herald), Arc::clone(&seen));
        tokio::spawn(async move {
            for _ in 0..APPENDS {
                let stored = herald.append(&[draft(writer), draft(writer)]).await;
                seen.fetch_max(stored[1]["offset"].as_u64().unwrap(), Ordering::SeqCst);
            }
        })
    });
    let readers = (0..3).map(|_| {
        let (herald, seen) = (Arc::clone(&herald), Arc::clone(&seen));
        tokio::spawn(async move {
            let total = u64::from(WRITERS) * APPENDS * 2;
            let mut before = Vec::new();
            while before.len() as u64 != total {
                let promised = seen.load(Ordering::SeqCst);
                let query = "HerIds=1&HerIds=2&HerIds=3&Offset=0&NotificationsToFetch=1000";
                let now = herald.poll(query).await.offsets();
                assert!(now.starts_with(&before), "{before:?} then {now:?}");
                let newest = now.last().copied().unwrap_or(0);
                assert!(newest >= promised, "{promised} was seen, {newest} is the newest");
                assert_eq!(now.len() as u64, newest, "every offset up to the newest is there");
                seen.fetch_max(newest, Ordering::SeqCst);
                before = now;
            }
        })
    });
    for task in writers.chain(readers).collect::<Vec<_>>() {
        tokio::time::timeout(crate::serving::PATIENCE, task).await.expect("all of it").unwrap();
    }
}
