//! What replicas promise about before and after, and about how long something takes.

use std::collections::HashMap;

use super::{Kind, Verdict};
use crate::{
    History,
    history::{Answered, Call, Moment, Outcome, Record},
};

/// The contract's 10 s for the answer to an append, and what a busy machine may add to them.
const ANSWERED_WITHIN: Moment = 16_000_000;
/// A disturbance may have its effects so long after its end: connections are made anew, what was held up arrives.
const AFTERMATH: Moment = 3_000_000;

pub(super) fn judge(history: &History, verdict: &mut Verdict) {
    before_and_after(history, verdict);
    let mut disturbances: HashMap<usize, Vec<(Moment, Moment)>> = HashMap::new();
    for record in &history.records {
        if let Call::Disturbed(_) = record.call {
            let until = record.ended.saturating_add(AFTERMATH);
            disturbances.entry(record.replica).or_default().push((record.began, until));
        }
    }
    for record in &history.records {
        let disturbed = disturbances.get(&record.replica);
        let is_disturbed = disturbed.is_some_and(|all| {
            all.iter().any(|(began, ended)| record.began < *ended && *began < record.ended)
        });
        if !is_disturbed {
            undisturbed(record, verdict);
        }
    }
}

/// What a replica that nobody touches does: it answers, whatever becomes of the engine and of the others.
fn undisturbed(record: &Record, verdict: &mut Verdict) {
    let name = || format!("{} at replica {}, {} µs", record.client, record.replica, record.began);
    let took = record.ended - record.began;
    match &record.call {
        Call::Append(append) => {
            if let Outcome::Nothing(what) = &append.outcome {
                verdict.add(Kind::Unanswered, || format!("{}, append: {what}", name()));
            } else if took > ANSWERED_WITHIN {
                verdict.add(Kind::Unanswered, || format!("{}, append: took {took} µs", name()));
            }
        }
        Call::Poll(poll) => match &poll.answer {
            Answered::NotNow(what) => {
                verdict.add(Kind::Unready, || format!("{}, poll: {what}", name()));
            }
            Answered::Nothing(what) => {
                verdict.add(Kind::Unanswered, || format!("{}, poll: {what}", name()));
            }
            Answered::Told(_) | Answered::Unexpected(_) => {}
        },
        Call::Stream(stream) => {
            if let Answered::NotNow(what) = &stream.answer {
                verdict.add(Kind::Unready, || format!("{}, stream: {what}", name()));
            }
        }
        Call::Ready(ready) => match ready {
            Answered::Told(true) => {}
            Answered::Told(false) | Answered::NotNow(_) => {
                verdict.add(Kind::Unready, || format!("{}: not ready", name()));
            }
            Answered::Nothing(what) | Answered::Unexpected(what) => {
                verdict.add(Kind::Unanswered, || format!("{}, health: {what}", name()));
            }
        },
        Call::Disturbed(_) => {}
    }
}

/// What a replica has promised or shown by some moment.
#[derive(Clone, Copy)]
struct Known {
    at: Moment,
    replica: usize,
    tail: u64,
    is_append: bool,
}

/// Whatever a replica has answered with 201, or shown, it shows to all who ask later.
fn before_and_after(history: &History, verdict: &mut Verdict) {
    let mut known: Vec<Known> = history.records.iter().filter_map(known).collect();
    known.sort_unstable_by_key(|known| known.at);
    let mut asked: Vec<(&Record, u64)> =
        history.records.iter().filter_map(|record| Some((record, shown(record)?))).collect();
    asked.sort_unstable_by_key(|(record, _)| record.began);
    let mut newest: HashMap<(usize, bool), u64> = HashMap::new();
    let mut known = known.into_iter().peekable();
    for (record, tail) in asked {
        while let Some(Known { replica, tail, is_append, .. }) =
            known.next_if(|known| known.at <= record.began)
        {
            let newest = newest.entry((replica, is_append)).or_default();
            *newest = tail.max(*newest);
        }
        for (is_append, kind) in [(true, Kind::Stale), (false, Kind::WentBack)] {
            let before = newest.get(&(record.replica, is_append)).copied().unwrap_or(0);
            if tail < before {
                verdict.add(kind, || {
                    let Record { client, replica, began, .. } = record;
                    format!(
                        "{client} at replica {replica}, {began} µs: tail {tail}, {before} before"
                    )
                });
            }
        }
    }
}

fn known(record: &Record) -> Option<Known> {
    let (tail, is_append) = match &record.call {
        Call::Append(append) => match &append.outcome {
            Outcome::Stored(answers) => (answers.iter().map(|answer| answer.offset).max()?, true),
            _ => return None,
        },
        Call::Poll(_) => (shown(record)?, false),
        Call::Stream(_) | Call::Ready(_) | Call::Disturbed(_) => return None,
    };
    Some(Known { at: record.ended, replica: record.replica, tail, is_append })
}

/// The tail that a reader was told of.
fn shown(record: &Record) -> Option<u64> {
    match &record.call {
        Call::Poll(poll) => match &poll.answer {
            Answered::Told(page) => Some(page.head.tail),
            _ => None,
        },
        Call::Stream(stream) => match &stream.answer {
            Answered::Told(head) => Some(head.tail),
            _ => None,
        },
        Call::Append(_) | Call::Ready(_) | Call::Disturbed(_) => None,
    }
}
