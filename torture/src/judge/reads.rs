//! What readers were promised: whoever has seen an offset has seen all below it, and nobody is ever shown something else.

use super::{Kind, Verdict, log::Log};
use crate::{
    History,
    history::{Answered, Call, Head, Item, Poll, Record, Seen, Stream},
};

pub(super) fn judge(history: &History, log: &Log, verdict: &mut Verdict) {
    for record in &history.records {
        let mut reader = Reader { name: name(record), log, verdict };
        match &record.call {
            Call::Poll(poll) => reader.poll(poll),
            Call::Stream(stream) => reader.stream(stream),
            Call::Append(_) | Call::Ready(_) | Call::Disturbed(_) => {}
        }
    }
}

fn name(record: &Record) -> String {
    let Record { client, replica, began, .. } = record;
    format!("{client} at replica {replica}, {began} µs")
}

/// One answer to a reader.
struct Reader<'a> {
    name: String,
    log: &'a Log,
    verdict: &'a mut Verdict,
}

impl Reader<'_> {
    fn add(&mut self, kind: Kind, what: impl FnOnce() -> String) {
        let name = &self.name;
        self.verdict.add(kind, || format!("{name}: {}", what()));
    }

    fn poll(&mut self, poll: &Poll) {
        let page = match &poll.answer {
            Answered::Told(page) => page,
            Answered::Unexpected(what) => return self.add(Kind::Unexpected, || what.clone()),
            Answered::NotNow(_) | Answered::Nothing(_) => return,
        };
        self.head(&page.head);
        if page.items.len() > poll.limit {
            let count = page.items.len();
            self.add(Kind::Unexpected, || format!("{count} notifications, {} asked", poll.limit));
        }
        let last = page.items.last().map_or(0, |item| item.offset);
        if page.until < poll.after.max(last) {
            self.add(Kind::Unexpected, || format!("until {} is below the last one", page.until));
        }
        if page.until > page.head.tail.max(poll.after) {
            self.add(Kind::Unexpected, || format!("until {} is beyond the tail", page.until));
        }
        let items: Vec<&Item> = page.items.iter().collect();
        self.range(&poll.receivers, poll.after, page.until, &items);
    }

    fn stream(&mut self, stream: &Stream) {
        match &stream.answer {
            Answered::Told(head) => self.head(head),
            Answered::Unexpected(what) => return self.add(Kind::Unexpected, || what.clone()),
            Answered::NotNow(_) | Answered::Nothing(_) => return,
        }
        let (mut items, mut until) = (Vec::new(), stream.after);
        for seen in &stream.seen {
            match seen {
                Seen::Item(item) => {
                    if item.offset <= until {
                        self.add(Kind::NotAscending, || {
                            format!("offset {} comes behind {until}", item.offset)
                        });
                    }
                    until = until.max(item.offset);
                    items.push(item);
                }
                Seen::Until(looked) => {
                    if *looked < until {
                        self.add(Kind::NotAscending, || format!("until {looked} behind {until}"));
                    }
                    until = until.max(*looked);
                }
            }
        }
        self.range(&stream.receivers, stream.after, until, &items);
        let all = self.log.range(&stream.receivers, stream.after, self.log.tail);
        let newest = all.last().copied().unwrap_or(0);
        if stream.is_last && until < newest {
            self.add(Kind::Stuck, || {
                format!("has come to {until} in the end, and {newest} is there")
            });
        }
    }

    fn head(&mut self, head: &Head) {
        let (tail, trim) = (self.log.tail, self.log.trim);
        if head.history != self.log.history {
            self.add(Kind::OtherHistory, || head.history.clone());
        }
        if head.tail > tail {
            self.add(Kind::BeyondTail, || format!("tail {}, {tail} in the end", head.tail));
        }
        if head.trim > trim {
            self.add(Kind::WentBack, || format!("trim point {}, {trim} in the end", head.trim));
        }
    }

    /// An answer over `(after, until]` has exactly what is there in the end, as far as it was not trimmed.
    fn range(&mut self, receivers: &[u32], after: u64, until: u64, items: &[&Item]) {
        let mut newest = after;
        for item in items {
            if item.offset <= newest {
                self.add(Kind::NotAscending, || format!("{} behind {newest}", item.offset));
            }
            newest = newest.max(item.offset);
            self.item(receivers, item);
        }
        let expected = self.log.range(receivers, after.max(self.log.trim), until);
        let mut shown: Vec<u64> = items.iter().map(|item| item.offset).collect();
        shown.sort_unstable();
        let missed: Vec<u64> =
            expected.into_iter().filter(|offset| shown.binary_search(offset).is_err()).collect();
        if let Some(first) = missed.first() {
            let count = missed.len();
            self.add(Kind::Missed, || {
                format!("({after}, {until}] lacks {count} that are there, offset {first} first")
            });
        }
    }

    fn item(&mut self, receivers: &[u32], item: &Item) {
        if item.offset <= self.log.trim {
            return;
        }
        match self.log.by_offset.get(&item.offset) {
            None => self.add(Kind::Vanished, || format!("offset {}: {}", item.offset, item.body)),
            Some(stored) if stored.body != item.body => {
                let is = stored.body.clone();
                self.add(Kind::BytesDiffer, || {
                    format!("offset {} is {is} and was shown as {}", item.offset, item.body)
                });
            }
            Some(stored) => {
                let receiver = stored.draft.notification_receiver_her_id;
                if !receivers.contains(&receiver) {
                    self.add(Kind::Unexpected, || format!("{} is of {receiver}", item.offset));
                }
            }
        }
    }
}
