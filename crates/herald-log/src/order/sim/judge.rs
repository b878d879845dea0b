//! What was promised, held against what producers were told and readers were shown.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use bytes::Bytes;
use herald_types::{Draft, Notification, Receivers, wire};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Appended, Record, frame::Frame, view::tests::model::Model};

/// What a producer was told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Stored(Vec<Appended>),
    Differs(Vec<(usize, Uuid)>),
    /// Nothing happened.
    Refused(String),
    Unknown,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(appended) => {
                let offsets = appended.iter().map(|one| (one.offset.get(), one.duplicate));
                write!(f, "stored at {:?}", offsets.collect::<Vec<_>>())
            }
            Self::Differs(drafts) => {
                write!(f, "differs in {:?}", drafts.iter().map(|(at, _)| *at).collect::<Vec<_>>())
            }
            Self::Refused(why) => write!(f, "refused ({why})"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// One request to one replica. Its number, as a time, is what is stored with its records, so it is known whose they are.
pub(super) struct Attempt {
    pub(super) number: i64,
    pub(super) drafts: Vec<Draft>,
    pub(super) told: Told,
}

/// What a reader was shown.
pub(super) struct Shown {
    pub(super) replica: usize,
    pub(super) lineage: u64,
    pub(super) receivers: Receivers,
    pub(super) after: u64,
    pub(super) until: u64,
    pub(super) records: Vec<Record>,
    /// The replica's, after the page was read.
    pub(super) trim_point: u64,
    /// The true time then.
    pub(super) time_ms: u64,
}

#[derive(Default)]
pub(super) struct Judge {
    /// The newest offset that a producer was told.
    pub(super) answered_up_to: u64,
    /// Ids are numbers from 1.
    pub(super) newest_id: u64,
    /// What each request asked, and the true time when it began.
    begun: Vec<(Vec<Draft>, u64)>,
    attempts: BTreeMap<i64, Attempt>,
    shown: Vec<Shown>,
    streams: Vec<(Receivers, u64)>,
    lineages: HashMap<(usize, u64), BTreeMap<u64, Bytes>>,
}

/// What was stored, in order.
struct Stored {
    notification: Notification,
    id: Uuid,
    /// Which batch it came in.
    batch: usize,
}

/// All that the engine has ever stored.
struct Truth {
    model: Model,
    /// By offset, from 1.
    records: Vec<Stored>,
    by_id: HashMap<Uuid, Vec<usize>>,
}

impl Stored {
    /// Whose it is.
    fn attempt(&self) -> usize {
        let time: Timestamp = self.notification.created_at.parse().unwrap();
        usize::try_from(time.as_millisecond() - 1).unwrap()
    }
}

impl Truth {
    fn of(frames: &[Bytes], salt: u64) -> Self {
        let mut truth =
            Self { model: Model::default(), records: Vec::new(), by_id: HashMap::new() };
        for (batch, bytes) in frames.iter().enumerate() {
            let frame = Frame::decode(bytes.clone(), salt).unwrap();
            let next = truth.records.len() as u64 + 1;
            assert_eq!(frame.header.first_offset, next, "offsets ascend and none comes twice");
            for at in &frame.records {
                let (id, number) = (at.notification_id, truth.records.len());
                let older = truth.by_id.entry(id).or_default();
                if let Some(older) = older.last() {
                    let (offset, trimmed) = (*older as u64 + 1, truth.model.trim_point);
                    assert!(
                        offset <= trimmed,
                        "id {id} is stored at {offset} and at {}",
                        number + 1
                    );
                }
                older.push(number);
                let notification = serde_json::from_slice(&frame.bytes[at.body_range()]).unwrap();
                truth.records.push(Stored { notification, id, batch });
            }
            assert!(frame.header.trim_point >= truth.model.trim_point, "the trim point goes back");
            truth.model.apply(&frame);
        }
        truth
    }

    fn at(&self, offset: u64) -> Option<&Stored> {
        self.records.get(usize::try_from(offset).unwrap().checked_sub(1)?)
    }
}

impl Judge {
    /// A request is about to be made: its number.
    pub(super) fn begins(&mut self, drafts: Vec<Draft>, time_ms: u64) -> i64 {
        self.begun.push((drafts, time_ms));
        i64::try_from(self.begun.len()).unwrap()
    }

    pub(super) fn ends(&mut self, attempt: Attempt) {
        if let Told::Stored(appended) = &attempt.told {
            let newest = appended.iter().map(|one| one.offset.get()).max().unwrap();
            self.answered_up_to = self.answered_up_to.max(newest);
        }
        self.attempts.insert(attempt.number, attempt);
    }

    pub(super) fn shown(&mut self, shown: Shown) {
        let whose = (shown.replica, shown.lineage);
        let before = self.lineages.entry(whose).or_default();
        let mut last = shown.after;
        for record in &shown.records {
            let offset = record.offset.get();
            assert!(last < offset && offset <= shown.until, "a page is not in order");
            last = offset;
            let first = before.entry(offset).or_insert_with(|| record.body.clone());
            assert_eq!(*first, record.body, "replica {} shows two things at {offset}", whose.0);
        }
        self.shown.push(shown);
    }

    pub(super) fn stream_begins(&mut self, receivers: Receivers) -> usize {
        self.streams.push((receivers, 0));
        self.streams.len() - 1
    }

    pub(super) fn stream_is_at(&mut self, number: usize, after: u64) {
        self.streams[number].1 = after;
    }

    /// Holds all of it against what was stored, when all is quiet; and what each replica shows in the end.
    pub(super) fn settle(
        &self,
        frames: &[Bytes],
        salt: u64,
        retention: Option<Duration>,
        replicas: &[(Vec<Record>, u64)],
    ) {
        let truth = Truth::of(frames, salt);
        self.nothing_came_from_nowhere(&truth);
        for attempt in self.attempts.values() {
            attempt.settle(&truth);
        }
        for shown in &self.shown {
            shown.settle(&truth);
            self.is_old_enough(&truth, shown, retention);
        }
        for (number, (records, trim_point)) in replicas.iter().enumerate() {
            assert_eq!(*trim_point, truth.model.trim_point, "replica {number}'s trim point");
            assert_eq!(*records, truth.model.all(), "what replica {number} shows");
        }
        for (number, (receivers, after)) in self.streams.iter().enumerate() {
            let missed = truth.model.read(receivers.as_slice(), *after);
            let missed: Vec<_> = missed.iter().map(|record| record.offset.get()).collect();
            assert!(missed.is_empty(), "stream {number} was not woken for {missed:?}");
        }
    }

    /// Nothing is hidden before its time.
    fn is_old_enough(&self, truth: &Truth, shown: &Shown, retention: Option<Duration>) {
        let Some((retention, trimmed)) = retention.zip(truth.at(shown.trim_point)) else { return };
        let age = Duration::from_millis(shown.time_ms - self.begun[trimmed.attempt()].1);
        assert!(age >= retention, "offset {} is trimmed after {age:?}", shown.trim_point);
    }

    fn nothing_came_from_nowhere(&self, truth: &Truth) {
        for (number, stored) in truth.records.iter().enumerate() {
            let drafts = &self.begun[stored.attempt()].0;
            let is_its = |draft: &&Draft| {
                draft.notification_id == Some(stored.id) && draft.matches(&stored.notification)
            };
            assert!(drafts.iter().any(|draft| is_its(&draft)), "offset {}", number + 1);
        }
    }
}

impl Attempt {
    fn created_at(&self) -> String {
        wire::time_text(Timestamp::from_millisecond(self.number).unwrap())
    }

    fn settle(&self, truth: &Truth) {
        let (number, own) = (self.number, self.created_at());
        let is_own = |stored: &Stored| stored.notification.created_at == own;
        let stored_under = |draft: &Draft| {
            truth.by_id.get(&draft.notification_id.unwrap()).map_or(&[][..], Vec::as_slice)
        };
        let own_records: Vec<usize> = self
            .drafts
            .iter()
            .flat_map(|draft| stored_under(draft).iter().copied())
            .filter(|at| is_own(&truth.records[*at]))
            .collect();
        if let Some(first) = own_records.iter().min() {
            let batch = truth.records[*first].batch;
            for draft in &self.drafts {
                let is_there = stored_under(draft).iter().any(|at| {
                    let stored = &truth.records[*at];
                    is_own(stored) && stored.batch == batch || *at < *first
                });
                assert!(is_there, "append {number} is stored in part");
            }
        }
        match &self.told {
            Told::Stored(appended) => {
                assert_eq!(appended.len(), self.drafts.len());
                for (at, (told, draft)) in appended.iter().zip(&self.drafts).enumerate() {
                    let offset = told.offset.get();
                    let stored = truth.at(offset);
                    let stored =
                        stored.unwrap_or_else(|| panic!("append {number}: {offset} is lost"));
                    assert!(
                        draft.notification_id == Some(stored.id)
                            && draft.matches(&stored.notification)
                            && told.created_at == stored.notification.created_at,
                        "append {number} was told {offset}, where something else stands"
                    );
                    let id = draft.notification_id;
                    let came_before =
                        self.drafts[..at].iter().any(|earlier| earlier.notification_id == id);
                    let is_first = is_own(stored) && !came_before;
                    assert_eq!(told.duplicate, !is_first, "append {number}, {offset}: a duplicate");
                }
            }
            Told::Differs(drafts) => {
                assert!(own_records.is_empty(), "append {number} was refused, and is stored");
                for (at, id) in drafts {
                    let draft = &self.drafts[*at];
                    assert_eq!(draft.notification_id, Some(*id));
                    let is_other =
                        |stored: &usize| !draft.matches(&truth.records[*stored].notification);
                    let is_other_here = |earlier: &Draft| {
                        earlier.notification_id == Some(*id)
                            && !draft.matches(&earlier.stored(*id, &own))
                    };
                    assert!(
                        stored_under(draft).iter().any(is_other)
                            || self.drafts[..*at].iter().any(is_other_here),
                        "append {number}: draft {at} differs from nothing"
                    );
                }
            }
            Told::Refused(why) => {
                assert!(
                    own_records.is_empty(),
                    "append {number} was refused ({why}), and is stored"
                );
            }
            Told::Unknown => {}
        }
    }
}

impl Shown {
    fn settle(&self, truth: &Truth) {
        let Self { replica, after, until, trim_point, .. } = self;
        let tail = truth.records.len() as u64;
        let what = || format!("replica {replica} after {after} until {until}");
        assert!(*until <= tail.max(*after), "{}: there is nothing up to there", what());
        let mut shown = self.records.iter().peekable();
        for offset in after + 1..=(*until).min(tail) {
            let (receiver, _, record) = &truth.model.records[usize::try_from(offset - 1).unwrap()];
            if shown.next_if(|shown| shown.offset.get() == offset).is_some_and(|shown| {
                assert_eq!(shown.body, record.body, "{}: offset {offset}", what());
                assert!(self.receivers.as_slice().contains(receiver), "{}", what());
                true
            }) {
                continue;
            }
            let is_hidden = offset <= *trim_point;
            let is_wanted = self.receivers.as_slice().contains(receiver);
            assert!(is_hidden || !is_wanted, "{}: offset {offset} is denied", what());
        }
        assert_eq!(shown.next(), None, "{}", what());
    }
}
