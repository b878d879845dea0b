//! What producers were promised.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::{
    Kind, Verdict,
    log::{Log, agree},
};
use crate::{
    History,
    history::{Answered, Append, Appended, Call, Draft, Outcome, Record},
};

/// One append, with who asked it when.
struct Asked<'a> {
    record: &'a Record,
    append: &'a Append,
}

impl Asked<'_> {
    /// Whether something of it may be stored. The drafts before the one that is refused are, unless it is one for all.
    fn may_be_stored(&self) -> bool {
        !matches!(self.append.outcome, Outcome::Refused(_) | Outcome::Differs)
            || !self.append.is_atomic
    }

    fn name(&self) -> String {
        let Record { client, replica, began, .. } = self.record;
        format!("{client}'s append to replica {replica} at {began} µs")
    }
}

/// All appends by the ids in them.
struct Asks<'a> {
    all: Vec<Asked<'a>>,
    by_id: HashMap<Uuid, Vec<(usize, &'a Draft)>>,
}

impl<'a> Asks<'a> {
    fn of(history: &'a History) -> Self {
        let mut asks = Self { all: Vec::new(), by_id: HashMap::new() };
        for record in &history.records {
            let Call::Append(append) = &record.call else { continue };
            for draft in &append.drafts {
                let by_id = asks.by_id.entry(draft.notification_id).or_default();
                by_id.push((asks.all.len(), draft));
            }
            asks.all.push(Asked { record, append });
        }
        asks
    }

    fn about(&self, id: Uuid) -> &[(usize, &'a Draft)] {
        self.by_id.get(&id).map_or(&[], Vec::as_slice)
    }
}

pub(super) fn judge(history: &History, log: &Log, verdict: &mut Verdict) {
    let asks = Asks::of(history);
    stored_was_asked_for(&asks, log, verdict);
    let mut firsts = HashMap::new();
    for (number, asked) in asks.all.iter().enumerate() {
        match &asked.append.outcome {
            Outcome::Stored(answers) => {
                answered(asked, answers, log, verdict);
                duplicates(number, asked, answers, &asks, &mut firsts, verdict);
            }
            Outcome::Differs => conflict(number, asked, &asks, verdict),
            Outcome::Unexpected(what) => {
                verdict.add(Kind::Unexpected, || format!("{}: {what}", asked.name()));
            }
            Outcome::Refused(_) | Outcome::Unknown(_) | Outcome::Nothing(_) => {}
        }
    }
    whole_or_not_at_all(history, &asks, log, verdict);
}

/// What is there was asked for, with that content, by a request that was not refused.
fn stored_was_asked_for(asks: &Asks<'_>, log: &Log, verdict: &mut Verdict) {
    for (offset, stored) in &log.by_offset {
        let id = stored.draft.notification_id;
        let about = asks.about(id);
        let mut may_be =
            about.iter().filter(|(number, _)| asks.all[*number].may_be_stored()).peekable();
        if about.is_empty() {
            verdict.add(Kind::Unasked, || format!("{id} at offset {offset}"));
        } else if may_be.peek().is_none() {
            verdict.add(Kind::RefusedStored, || {
                format!("{id} at offset {offset}: {}", asks.all[about[0].0].name())
            });
        } else if !may_be.any(|(_, draft)| stored.is_of(draft)) {
            verdict.add(Kind::ContentDiffers, || {
                format!("{id} at offset {offset} is not what anybody asked for")
            });
        }
    }
}

/// What was answered with 201 is there, where it was said to be.
fn answered(asked: &Asked<'_>, answers: &[Appended], log: &Log, verdict: &mut Verdict) {
    let ids = asked.append.drafts.iter().map(|draft| draft.notification_id);
    if !ids.eq(answers.iter().map(|answer| answer.notification_id)) {
        let name = asked.name();
        verdict.add(Kind::Unexpected, || format!("{name}: the answers are not of its drafts"));
        return;
    }
    let mut newest = 0;
    for (draft, answer) in asked.append.drafts.iter().zip(answers) {
        let Appended { notification_id: id, offset, created_at, duplicate } = answer;
        if !duplicate {
            if *offset <= newest {
                verdict.add(Kind::OutOfOrder, || {
                    format!("{}: {id} at {offset}, behind {newest}", asked.name())
                });
            }
            newest = *offset;
        }
        if *offset <= log.trim {
            continue;
        }
        let stands = log.by_offset.get(offset);
        match log.by_id.get(id) {
            None => verdict.add(Kind::Lost, || format!("{}: {id} at {offset}", asked.name())),
            Some(at) if at != offset => verdict.add(Kind::Moved, || {
                format!("{}: {id} at {offset}, and in the end at {at}", asked.name())
            }),
            Some(_) => {
                let stands = stands.expect("it has an id");
                if stands.created_at != *created_at {
                    verdict.add(Kind::Moved, || {
                        format!(
                            "{}: {id} of {created_at} is of {}",
                            asked.name(),
                            stands.created_at
                        )
                    });
                }
                if !stands.is_of(draft) {
                    verdict.add(Kind::ContentDiffers, || format!("{}: {id}", asked.name()));
                }
            }
        }
    }
}

/// `duplicate` is said of all but one answer about an id, and only of what another one may have stored.
fn duplicates(
    number: usize,
    asked: &Asked<'_>,
    answers: &[Appended],
    asks: &Asks<'_>,
    firsts: &mut HashMap<Uuid, usize>,
    verdict: &mut Verdict,
) {
    for answer in answers {
        let id = answer.notification_id;
        if answer.duplicate {
            let may_be_first = |(other, _): &&(usize, _)| {
                let other_asked = &asks.all[*other];
                *other != number
                    && other_asked.may_be_stored()
                    && other_asked.record.began < asked.record.ended
            };
            let is_twice_here = answers.iter().filter(|a| a.notification_id == id).count() > 1;
            if !is_twice_here && !asks.about(id).iter().any(|about| may_be_first(&about)) {
                verdict.add(Kind::FalseDuplicate, || {
                    format!("{}: nobody else has sent {id} by then", asked.name())
                });
            }
        } else if let Some(first) = firsts.insert(id, number) {
            verdict.add(Kind::FalseDuplicate, || {
                let first = asks.all[first].name();
                format!("{} and {first}: both stored {id} as new", asked.name())
            });
        }
    }
}

/// 409 needs another content of one of its ids, that may have been stored by then.
fn conflict(number: usize, asked: &Asked<'_>, asks: &Asks<'_>, verdict: &mut Verdict) {
    let differs = |draft: &Draft| {
        let about = asks.about(draft.notification_id).iter();
        about.clone().any(|(other, rival)| {
            let rival_asked = &asks.all[*other];
            let may_be_first = *other == number
                || (rival_asked.may_be_stored() && rival_asked.record.began < asked.record.ended);
            may_be_first && !agree(draft, rival)
        })
    };
    if !asked.append.drafts.iter().any(differs) {
        verdict.add(Kind::FalseConflict, || asked.name());
    }
}

/// All of a JSON request is there or nothing, and no tail that anybody was told of lies within it.
fn whole_or_not_at_all(history: &History, asks: &Asks<'_>, log: &Log, verdict: &mut Verdict) {
    let tails = tails(history);
    let mut judged = HashSet::new();
    for asked in asks.all.iter().filter(|asked| asked.append.is_atomic && asked.may_be_stored()) {
        let ids = ids(asked.append);
        if !judged.insert(ids.clone()) {
            continue;
        }
        // An id that another request has may be there for that one.
        let is_of_others = |id: &Uuid| {
            asks.about(*id).iter().any(|(other, _)| self::ids(asks.all[*other].append) != ids)
        };
        let own: Vec<&Uuid> = ids.iter().filter(|id| !is_of_others(id)).collect();
        let there: Vec<u64> = own.iter().filter_map(|id| log.by_id.get(id).copied()).collect();
        let missing = ids.iter().filter(|id| !log.by_id.contains_key(id)).count();
        // What was trimmed cannot be told from what was never there.
        if !there.is_empty() && missing > 0 && log.trim == 0 {
            verdict.add(Kind::Halved, || {
                format!("{}: {} are there and {missing} are not", asked.name(), there.len())
            });
        }
        let (Some(first), Some(last)) = (there.iter().min(), there.iter().max()) else { continue };
        if let Some((tail, who)) = tails.range(*first..*last).next() {
            verdict.add(Kind::Halved, || {
                format!(
                    "{} has offsets {first} to {last}; {who} was told tail {tail}",
                    asked.name()
                )
            });
        }
    }
}

fn ids(append: &Append) -> BTreeSet<Uuid> {
    append.drafts.iter().map(|draft| draft.notification_id).collect()
}

/// Every tail that somebody was told of.
fn tails(history: &History) -> BTreeMap<u64, &str> {
    let tail = |record: &Record| match &record.call {
        Call::Poll(poll) => match &poll.answer {
            Answered::Told(page) => Some(page.head.tail),
            _ => None,
        },
        Call::Stream(stream) => match &stream.answer {
            Answered::Told(head) => Some(head.tail),
            _ => None,
        },
        Call::Append(_) | Call::Ready(_) | Call::Disturbed(_) => None,
    };
    let tails = history.records.iter().filter_map(|record| Some((tail(record)?, &*record.client)));
    tails.collect()
}
