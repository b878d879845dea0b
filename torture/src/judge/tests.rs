//! Histories made by hand: a good one, and the same with one fault each.

use uuid::Uuid;

use super::{Kind, judge};
use crate::{
    History,
    history::{
        Answered, Append, Appended, Call, Copy, Draft, Head, Item, Moment, Outcome, Page, Poll,
        Record, Seen, Stream,
    },
};

const SECOND: Moment = 1_000_000;

fn draft(id: u128, receiver: u32) -> Draft {
    Draft {
        notification_id: Uuid::from_u128(id),
        related_message_id: Uuid::from_u128(id + 1000),
        kind: "NewMessage".to_owned(),
        notification_receiver_her_id: receiver,
        notification_triggered_by_her_id: None,
        description: Some(format!("about {id}")),
    }
}

fn created_at(offset: u64) -> String {
    format!("2026-05-08T08:32:{offset:02}+00:00")
}

fn item(offset: u64, draft: &Draft) -> Item {
    let mut body = serde_json::to_value(draft).unwrap();
    body["createdAt"] = created_at(offset).into();
    body["offset"] = offset.into();
    Item { offset, body: body.to_string().into() }
}

fn head(tail: u64) -> Head {
    Head { tail, trim: 0, history: "history".to_owned() }
}

fn stored(drafts: &[Draft], offsets: &[(u64, bool)]) -> Outcome {
    let answers = drafts.iter().zip(offsets).map(|(draft, (offset, duplicate))| Appended {
        notification_id: draft.notification_id,
        offset: *offset,
        created_at: created_at(*offset),
        duplicate: *duplicate,
    });
    Outcome::Stored(answers.collect())
}

fn append(replica: usize, began: Moment, drafts: &[Draft], outcome: Outcome) -> Record {
    let call = Call::Append(Append { is_atomic: true, drafts: drafts.to_vec(), outcome });
    Record { client: "producer".to_owned(), replica, began, ended: began + 10, call }
}

fn poll(
    replica: usize,
    began: Moment,
    after: u64,
    until: u64,
    tail: u64,
    items: Vec<Item>,
) -> Record {
    let answer = Answered::Told(Page { head: head(tail), until, items });
    let call = Call::Poll(Poll { receivers: vec![7], after, limit: 100, answer });
    Record { client: "poller".to_owned(), replica, began, ended: began + 10, call }
}

fn stream(after: u64, seen: Vec<Seen>) -> Record {
    let answer = Answered::Told(head(0));
    let call = Call::Stream(Stream { receivers: vec![7], after, answer, seen, is_last: false });
    Record { client: "stream".to_owned(), replica: 0, began: 0, ended: 99, call }
}

/// Three drafts for 7, 8, 7 at offsets 1 to 3, known to be stored; a fourth one's answer was lost, and it is at 4.
fn good() -> History {
    let drafts = [draft(1, 7), draft(2, 8), draft(3, 7), draft(4, 7)];
    let items: Vec<Item> = (1..).zip(&drafts).map(|(offset, draft)| item(offset, draft)).collect();
    let copy = |copy_of| Copy { copy_of, head: head(4), items: items.clone() };
    let records = vec![
        append(0, 10, &drafts[..2], stored(&drafts[..2], &[(1, false), (2, false)])),
        append(1, 30, &drafts[1..3], stored(&drafts[1..3], &[(2, true), (3, false)])),
        append(1, 50, &drafts[3..], Outcome::Nothing("reset".to_owned())),
        append(
            0,
            60,
            &[draft(9, 7), Draft { kind: "RefusedMessage".to_owned(), ..draft(1, 7) }],
            Outcome::Differs,
        ),
        append(0, 70, &[draft(8, 7)], Outcome::Refused("away".to_owned())),
        poll(0, 40, 0, 2, 2, vec![items[0].clone()]),
        poll(1, 45, 1, 3, 3, vec![items[2].clone()]),
        poll(2, 46, 0, 0, 0, vec![]),
        poll(2, 80, 0, 4, 4, vec![items[0].clone(), items[2].clone(), items[3].clone()]),
        stream(0, vec![Seen::Item(items[0].clone()), Seen::Until(2), Seen::Item(items[2].clone())]),
        stream(1, vec![Seen::Until(1), Seen::Item(items[2].clone()), Seen::Item(items[3].clone())]),
        // Whom the lost answer belongs to.
        disturbed(1, 40, 60),
    ];
    History { records, copies: (0..3).map(copy).collect() }
}

fn disturbed(replica: usize, began: Moment, ended: Moment) -> Record {
    let call = Call::Disturbed("killed".to_owned());
    Record { client: "faults".to_owned(), replica, began, ended, call }
}

#[track_caller]
fn finds(history: &History, kinds: &[Kind]) {
    let verdict = judge(history);
    let found: Vec<Kind> = verdict.counts().keys().copied().collect();
    assert_eq!(found, kinds, "{verdict}");
    assert_eq!(verdict.is_good(), kinds.is_empty());
}

/// The good history with one more record.
#[track_caller]
fn with(record: Record, kinds: &[Kind]) {
    let mut history = good();
    history.records.push(record);
    finds(&history, kinds);
}

/// The good history with other copies.
#[track_caller]
fn ends(change: impl Fn(&mut Copy), kinds: &[Kind]) {
    let mut history = good();
    history.copies.iter_mut().for_each(change);
    finds(&history, kinds);
}

fn item_of(history: &History, offset: usize) -> Item {
    history.copies[0].items[offset - 1].clone()
}

#[test]
fn a_good_history_passes() {
    finds(&good(), &[]);
}

#[test]
fn replicas_that_differ_in_the_end_are_found() {
    let mut history = good();
    history.copies[2].items[1] = item(2, &draft(77, 8));
    finds(&history, &[Kind::CopiesDiffer]);
    history = good();
    history.copies[2].items.pop();
    finds(&history, &[Kind::CopiesDiffer]);
    history = good();
    history.copies[1].head.tail = 5;
    finds(&history, &[Kind::CopiesDiffer]);
}

#[test]
fn what_was_promised_and_is_not_there_is_found() {
    // Nobody read it but the pages that are judged, too.
    ends(|copy| drop(copy.items.remove(1)), &[Kind::Lost, Kind::Halved]);
    ends(|copy| drop(copy.items.remove(2)), &[Kind::Lost, Kind::Vanished]);
    let lost = [draft(5, 7)];
    with(append(0, 90, &lost, stored(&lost, &[(5, false)])), &[Kind::Lost]);
}

#[test]
fn what_moved_or_changed_is_found() {
    let drafts = [draft(4, 7)];
    with(append(0, 90, &drafts, stored(&drafts, &[(3, false)])), &[Kind::Moved]);
    let mut history = good();
    let mut answer = stored(&drafts, &[(4, false)]);
    let Outcome::Stored(answers) = &mut answer else { unreachable!() };
    answers[0].created_at = "2026".to_owned();
    history.records.push(append(0, 90, &drafts, answer));
    finds(&history, &[Kind::Moved]);
    let other = [Draft { description: Some("another".to_owned()), ..draft(4, 7) }];
    with(append(0, 90, &other, stored(&other, &[(4, true)])), &[Kind::ContentDiffers]);
    // What is left out may be anything.
    let less = [Draft { description: None, ..draft(4, 7) }];
    with(append(0, 90, &less, stored(&less, &[(4, true)])), &[]);
}

#[test]
fn what_nobody_asked_for_is_found() {
    let more = |draft: Draft| {
        move |copy: &mut Copy| {
            copy.items.push(item(5, &draft));
            copy.head.tail = 5;
        }
    };
    ends(more(draft(66, 9)), &[Kind::Unasked]);
    ends(more(draft(8, 9)), &[Kind::RefusedStored]);
    ends(more(draft(9, 9)), &[Kind::RefusedStored]);
    ends(more(draft(4, 9)), &[Kind::StoredTwice, Kind::ContentDiffers]);
    let strange = Draft { kind: "RefusedMessage".to_owned(), ..draft(4, 7) };
    let mut history = good();
    history.copies.iter_mut().for_each(|copy| copy.items[3] = item(4, &strange));
    finds(&history, &[Kind::ContentDiffers, Kind::BytesDiffer]);
}

#[test]
fn a_body_that_is_not_what_it_says_is_found() {
    let body = item(5, &draft(4, 7)).body;
    ends(
        |copy| copy.items[3] = Item { offset: 4, body: body.clone() },
        &[Kind::Unreadable, Kind::Vanished],
    );
}

#[test]
fn a_part_of_a_request_that_is_whole_or_not_is_found() {
    let drafts = [draft(4, 7), draft(5, 7)];
    let mut history = good();
    // Instead of the request with only the first one.
    history.records[2] = append(1, 50, &drafts, Outcome::Unknown(String::new()));
    finds(&history, &[Kind::Halved]);
    // Each line for itself may be stored.
    let Call::Append(append) = &mut history.records[2].call else { unreachable!() };
    append.is_atomic = false;
    finds(&history, &[]);
}

#[test]
fn a_tail_within_a_request_is_found() {
    let drafts = [draft(5, 8), draft(6, 8)];
    let mut history = good();
    history.records.push(append(0, 90, &drafts, stored(&drafts, &[(5, false), (6, false)])));
    for copy in &mut history.copies {
        copy.items.extend((5..).zip(&drafts).map(|(offset, draft)| item(offset, draft)));
        copy.head.tail = 6;
    }
    finds(&history, &[]);
    history.records.push(poll(2, 95, 4, 5, 5, vec![]));
    finds(&history, &[Kind::Halved]);
}

#[test]
fn answers_out_of_order_are_found() {
    let drafts = [draft(3, 7), draft(1, 7)];
    let mut history = good();
    history.records.truncate(0);
    history.records.push(append(0, 10, &drafts, stored(&drafts, &[(3, false), (1, false)])));
    history.records.push(append(
        0,
        10,
        &[draft(2, 8), draft(4, 7)],
        Outcome::Unknown(String::new()),
    ));
    finds(&history, &[Kind::OutOfOrder]);
}

#[test]
fn a_duplicate_of_nothing_and_two_firsts_are_found() {
    let drafts = [draft(4, 7)];
    let mut history = good();
    history.records[2] = append(1, 50, &drafts, stored(&drafts, &[(4, true)]));
    finds(&history, &[Kind::FalseDuplicate]);
    history.records[2] = append(1, 50, &drafts, stored(&drafts, &[(4, false)]));
    finds(&history, &[]);
    history.records.push(append(1, 70, &drafts, stored(&drafts, &[(4, false)])));
    finds(&history, &[Kind::FalseDuplicate]);
}

#[test]
fn a_conflict_of_nothing_is_found() {
    with(append(0, 90, &[draft(1, 7)], Outcome::Differs), &[Kind::FalseConflict]);
    let other = Draft { related_message_id: Uuid::nil(), ..draft(1, 7) };
    with(append(0, 90, &[other], Outcome::Differs), &[]);
}

#[test]
fn what_a_reader_has_passed_and_was_not_shown_is_found() {
    let good = good();
    let (first, third, fourth) = (item_of(&good, 1), item_of(&good, 3), item_of(&good, 4));
    with(poll(2, 90, 0, 4, 4, vec![first.clone(), third.clone()]), &[Kind::Missed]);
    with(poll(2, 90, 0, 4, 4, vec![third.clone(), fourth.clone()]), &[Kind::Missed]);
    with(stream(0, vec![Seen::Item(first), Seen::Item(fourth)]), &[Kind::Missed]);
    with(stream(2, vec![Seen::Until(3)]), &[Kind::Missed]);
    with(stream(2, vec![Seen::Until(2)]), &[]);
}

#[test]
fn repeats_and_disorder_are_found() {
    let good = good();
    let (first, third) = (item_of(&good, 1), item_of(&good, 3));
    let twice = vec![Seen::Item(first.clone()), Seen::Item(first.clone())];
    with(stream(0, twice), &[Kind::NotAscending]);
    with(poll(2, 90, 0, 3, 4, vec![third.clone(), first]), &[Kind::NotAscending]);
    with(stream(0, vec![Seen::Until(3), Seen::Item(third)]), &[Kind::NotAscending, Kind::Missed]);
    with(stream(3, vec![Seen::Until(3), Seen::Until(2)]), &[Kind::NotAscending]);
}

#[test]
fn what_was_shown_and_is_not_there_is_found() {
    with(stream(4, vec![Seen::Item(item(5, &draft(5, 7)))]), &[Kind::Vanished]);
    with(stream(3, vec![Seen::Item(item(4, &draft(5, 7)))]), &[Kind::BytesDiffer]);
    with(poll(2, 90, 4, 5, 5, vec![]), &[Kind::BeyondTail]);
    let of_another = good().copies[0].items[1].clone();
    with(stream(1, vec![Seen::Item(of_another)]), &[Kind::Unexpected]);
}

#[test]
fn another_history_is_found() {
    let mut history = good();
    let Call::Poll(poll) = &mut history.records[5].call else { unreachable!() };
    let Answered::Told(page) = &mut poll.answer else { unreachable!() };
    page.head.history = "another".to_owned();
    finds(&history, &[Kind::OtherHistory]);
}

#[test]
fn a_replica_that_does_not_show_what_it_has_promised_or_shown_is_found() {
    let first = good().copies[0].items[0].clone();
    // Answered at 20 by replica 0.
    with(poll(0, 25, 0, 1, 1, vec![first.clone()]), &[Kind::Stale]);
    with(poll(0, 19, 0, 0, 0, vec![]), &[]);
    with(poll(2, 25, 0, 0, 0, vec![]), &[]);
    // Shown at 90 by replica 2.
    with(poll(2, 91, 0, 3, 3, vec![first, good().copies[0].items[2].clone()]), &[Kind::WentBack]);
}

#[test]
fn silence_counts_only_where_nobody_disturbed() {
    let silent = |began| append(1, began, &[draft(50, 7)], Outcome::Nothing("time out".to_owned()));
    with(silent(50), &[]);
    with(silent(10 * SECOND), &[Kind::Unanswered]);
    let mut late = append(2, 0, &[draft(50, 7)], Outcome::Unknown(String::new()));
    late.ended = 10 * SECOND;
    with(late.clone(), &[]);
    late.ended = 17 * SECOND;
    with(late, &[Kind::Unanswered]);
    let ask = |began, call| Record {
        client: "prober".to_owned(),
        replica: 1,
        began,
        ended: began + 1,
        call,
    };
    let not_ready = |began| ask(began, Call::Ready(Answered::NotNow("history".to_owned())));
    with(not_ready(SECOND), &[]);
    with(not_ready(10 * SECOND), &[Kind::Unready]);
    with(ask(10 * SECOND, Call::Ready(Answered::Told(true))), &[]);
    let answer = Answered::NotNow("starting".to_owned());
    let refused = Call::Poll(Poll { receivers: vec![7], after: 0, limit: 1, answer });
    with(ask(10 * SECOND, refused), &[Kind::Unready]);
}

#[test]
fn a_stream_that_does_not_come_to_the_end_is_found() {
    let mut history = good();
    let Call::Stream(stream) = &mut history.records[10].call else { unreachable!() };
    stream.is_last = true;
    finds(&history, &[]);
    let Call::Stream(stream) = &mut history.records[9].call else { unreachable!() };
    stream.is_last = true;
    finds(&history, &[Kind::Stuck]);
}

#[test]
fn answers_that_the_contract_does_not_know_are_found() {
    with(
        append(0, 90, &[draft(50, 7)], Outcome::Unexpected("500".to_owned())),
        &[Kind::Unexpected],
    );
    let three = good().copies[0].items.clone();
    let mut history = good();
    let mut long = poll(2, 90, 0, 4, 4, vec![three[0].clone(), three[2].clone(), three[3].clone()]);
    let Call::Poll(poll) = &mut long.call else { unreachable!() };
    poll.limit = 2;
    history.records.push(long);
    finds(&history, &[Kind::Unexpected]);
}

#[test]
fn what_was_trimmed_is_not_missed() {
    let mut history = good();
    for copy in &mut history.copies {
        copy.items.drain(..2);
        copy.head.trim = 2;
    }
    finds(&history, &[]);
}
