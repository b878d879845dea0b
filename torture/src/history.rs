//! What clients asked and were told, with the times of both: written down while they run, one JSON line a call.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A moment: microseconds since the run began.
pub type Moment = u64;

/// All that was seen in one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In no particular order.
    pub records: Vec<Record>,
    /// What each replica holds in the end, when all are well again.
    pub copies: Vec<Copy>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Record(Record),
    Copy(Copy),
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who called.
    pub client: String,
    /// Which replica was asked.
    pub replica: usize,
    /// Before the call was sent.
    pub began: Moment,
    /// After its answer was read.
    pub ended: Moment,
    /// What was asked and told.
    pub call: Call,
}

/// What was asked and told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// `POST /notifications`
    Append(Append),
    /// `GET /notifications`
    Poll(Poll),
    /// `GET /notifications/stream`, over one connection, or over all connections of a client that resumes by itself.
    Stream(Stream),
    /// `GET /health/ready`
    Ready(Answered<bool>),
    /// Not a call: the replica, or the way to it, was being broken in this time.
    Disturbed(String),
}

/// An answer that may not have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answered<T> {
    /// It came.
    Told(T),
    /// 503 with `Retry-After`.
    NotNow(String),
    /// The connection failed, or it took too long.
    Nothing(String),
    /// What the contract knows not for such a call.
    Unexpected(String),
}

/// An append and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// Whether it was one JSON request, which is stored whole or not at all.
    pub is_atomic: bool,
    /// What was asked for.
    pub drafts: Vec<Draft>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What an append was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// 201
    Stored(Vec<Appended>),
    /// 409
    Differs,
    /// 503 that says that nothing happened.
    Refused(String),
    /// 503 that says that nobody knows.
    Unknown(String),
    /// The connection failed, or it took too long.
    Nothing(String),
    /// What the contract knows not for a good request.
    Unexpected(String),
}

/// What a producer asks to be stored. What is `None` is left out of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Draft {
    pub notification_id: Uuid,
    pub related_message_id: Uuid,
    #[serde(rename = "type")]
    pub kind: String,
    pub notification_receiver_her_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_triggered_by_her_id: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What was told of one draft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the contract's own names")]
pub struct Appended {
    pub notification_id: Uuid,
    pub offset: u64,
    pub created_at: String,
    pub duplicate: bool,
}

/// A poll and its page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// `HerIds`
    pub receivers: Vec<u32>,
    /// `Offset`
    pub after: u64,
    /// `NotificationsToFetch`
    pub limit: usize,
    /// The page.
    pub answer: Answered<Page>,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What the headers say.
    pub head: Head,
    /// `herald-until`
    pub until: u64,
    /// The notifications, in the order of the body.
    pub items: Vec<Item>,
}

/// The headers that all answers to readers have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// `herald-tail`
    pub tail: u64,
    /// `herald-trim`
    pub trim: u64,
    /// `herald-history`
    pub history: String,
}

/// A notification as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The offset in it; on a stream the event's id.
    pub offset: u64,
    /// The object, to the byte.
    pub body: Arc<str>,
}

/// A stream and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// `HerIds`
    pub receivers: Vec<u32>,
    /// `Offset` or `Last-Event-ID`
    pub after: u64,
    /// Its headers.
    pub answer: Answered<Head>,
    /// Events and comments, in the order in which they came.
    pub seen: Vec<Seen>,
    /// Whether it was still open when all was well and quiet again, and the readers had been given time to read all.
    pub is_last: bool,
}

/// One thing that came over a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// A notification.
    Item(Item),
    /// `: until N`
    Until(u64),
}

/// All that a replica holds in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Which replica.
    pub copy_of: usize,
    /// What its last page said.
    pub head: Head,
    /// Everything, by page after page for all receivers.
    pub items: Vec<Item>,
}

/// Where clients write down what they were told. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Recorder {
    began: Instant,
    // A plain mutex: held to push one record.
    history: Arc<Mutex<History>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { began: Instant::now(), history: Arc::default() }
    }
}

impl Recorder {
    /// This moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that began at `began` has ended now.
    pub fn record(&self, client: &str, replica: usize, began: Moment, call: Call) {
        let record = Record { client: client.to_owned(), replica, began, ended: self.now(), call };
        self.lock().records.push(record);
    }

    /// What a replica holds in the end.
    pub fn copy(&self, copy: Copy) {
        self.lock().copies.push(copy);
    }

    /// All that was written down so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    /// Looks at all that was written down so far.
    pub fn look<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.lock())
    }
}

impl History {
    /// Writes it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let records = self.records.iter().cloned().map(Line::Record);
        for line in records.chain(self.copies.iter().cloned().map(Line::Copy)) {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    }

    /// Reads what [`Self::save`] has written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut history = Self::default();
        for line in BufReader::new(File::open(path)?).lines() {
            match serde_json::from_str(&line?)? {
                Line::Record(record) => history.records.push(record),
                Line::Copy(copy) => history.copies.push(copy),
            }
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back_as_it_was_written() {
        let recorder = Recorder::default();
        let head = Head { tail: 1, trim: 0, history: "h".to_owned() };
        let item = Item { offset: 1, body: "{\"offset\":1}".into() };
        let seen = vec![Seen::Until(0), Seen::Item(item.clone())];
        let answer = Answered::Told(head.clone());
        let stream = Stream { receivers: vec![7], after: 0, answer, seen, is_last: true };
        recorder.record("reader", 2, 0, Call::Stream(stream));
        recorder.record("prober", 1, 0, Call::Ready(Answered::Told(true)));
        recorder.copy(Copy { copy_of: 0, head, items: vec![item] });
        let (written, dir) = (recorder.history(), tempfile::tempdir().unwrap());
        let path = dir.path().join("history");
        written.save(&path).unwrap();
        let read = History::load(&path).unwrap();
        assert_eq!((read.records, read.copies), (written.records, written.copies));
    }
}
