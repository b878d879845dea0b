//! Following the table: which rows may be shown, and how they come.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::{RowStream, Statement};
use uuid::Uuid;

use super::{
    super::{
        Position,
        engine::{ANSWER_WAIT, EngineError, Follow, Followed, Place},
    },
    failure::Failure,
    session::{CHANNEL, Door, Session},
};

/// How often the table is looked at without a word.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a writer's word about a row that is there already may be under way.
const WORD_WAIT: Duration = Duration::from_millis(50);
/// How long a follower believes without another proof that the server it listens to is still the one whose commits the
/// standbys confirm. One that was replaced, and that nobody has told, would be silent for ever.
const QUORUM_INTERVAL: Duration = Duration::from_secs(10);
/// How many rows one question asks for, so that the server keeps no old snapshot for it for long.
const QUESTION_ROWS: u64 = 10_000;
/// How much is handed over at once: as many rows, or as many bytes, to which one frame may come.
const GIVEN_ROWS: usize = 1024;
const GIVEN_BYTES: usize = 4 << 20;
/// What has been read and not been asked for yet. Two: one is applied, one waits.
const GIVEN_WAITING: usize = 2;

const NEWEST: &str = "SELECT position FROM herald.batch ORDER BY position DESC LIMIT 1";
const SELECT: &str = "SELECT position, batch_id, frame FROM herald.batch
                      WHERE position >= $1 AND position <= $2 ORDER BY position";

/// Batches as they come, from a task that reads ahead.
pub(crate) struct PostgresFollow {
    // Bounded: the back-pressure on the server.
    given: mpsc::Receiver<Result<Followed, EngineError>>,
    task: JoinHandle<()>,
}

impl Follow for PostgresFollow {
    async fn next(&mut self) -> Result<Followed, EngineError> {
        let ended = || Err(Failure::new("following has ended").into());
        self.given.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for PostgresFollow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn follow(
    door: &Arc<Door>,
    from: Position,
) -> Result<PostgresFollow, EngineError> {
    let opened = timeout(ANSWER_WAIT, Reader::open(Arc::clone(door), from)).await;
    let mut reader = opened.unwrap_or_else(|_| Err(Failure::late().into())).map_err(away)?;
    let (gives, given) = mpsc::channel(GIVEN_WAITING);
    let task = tokio::spawn(async move {
        if let Err(error) = reader.run(&gives).await {
            // Nobody is there to hear it if the follower has been dropped.
            let _ = gives.send(Err(away(error))).await;
        }
    });
    Ok(PostgresFollow { given, task })
}

/// What must be mended is for the next look to say.
pub(super) fn away(error: EngineError) -> EngineError {
    match error {
        EngineError::Unfit(text) => EngineError::Away(text.into()),
        error => error,
    }
}

/// Reads the rows that are known to be safe, and finds out which these are.
///
/// A row that one can see is in the WAL of this server, and that is all one knows. Its writer may still be waiting for a
/// standby when the server starts again, or somebody may have cancelled that wait: then it is there, and a promotion may
/// take it away. What makes it safe is a later place of the same WAL that a standby has confirmed, since a standby has
/// all that is before what it confirms, and the WAL is one line as long as the server lives. There are two such places:
///
/// - The commit of the row's writer, or of a later one. It says so with a notification, over the connection of that
///   commit, when there was no warning; and notifications do not leave the server, nor outlive it. So a word that this
///   session hears is about a commit in the same life of the same server, hence on the same line. A word about one row
///   is good for all before it: each writer has seen the row before its own when it wrote.
/// - A commit of our own, the barrier, that begins after the rows were seen and ends without a warning. For rows without
///   a word: those of another life of the server, and of writers that did not come to say it.
///
/// So rows are read up to the newest safe position only, and nothing that is not safe is ever held. A session lives in
/// one life of one server; with it ends what was known.
struct Reader {
    door: Arc<Door>,
    session: Session,
    newest_of: Statement,
    rows: Statement,
    /// The position to give next.
    next: Position,
    newest: Position,
    safe: Position,
    /// The newest word.
    word: Option<Place>,
    /// When the standbys last confirmed something.
    confirmed_at: Instant,
}

impl Reader {
    async fn open(door: Arc<Door>, from: Position) -> Result<Self, EngineError> {
        let session = door.open().await?;
        let client = &session.client;
        // What is asked here is as long as what there is to read; a row that does not come is noticed in another way.
        let listen = format!("SET statement_timeout = 0; LISTEN {CHANNEL}");
        let (_, newest_of, rows) = tokio::try_join!(
            client.batch_execute(&listen),
            client.prepare(NEWEST),
            client.prepare(SELECT),
        )
        .map_err(Failure::from)?;
        let (next, zero) = (from, Position(0));
        let confirmed_at = Instant::now();
        let mut reader = Self {
            door,
            session,
            newest_of,
            rows,
            next,
            newest: zero,
            safe: zero,
            word: None,
            confirmed_at,
        };
        // After LISTEN, so that nothing is missed in between.
        reader.look().await?;
        reader.settle().await?;
        Ok(reader)
    }

    async fn run(&mut self, gives: &Gives) -> Result<(), EngineError> {
        self.give(gives, Vec::new()).await?;
        loop {
            if self.session.term < self.door.newest_term() {
                return Err(self.away("it was replaced by another server"));
            }
            self.hear();
            if self.next <= self.safe {
                self.read(gives).await?;
            } else if !self.wait_for_word(POLL_INTERVAL).await? {
                self.look().await?;
                self.give(gives, Vec::new()).await?;
                let is_doubtful = self.newest > self.safe && !self.wait_for_word(WORD_WAIT).await?;
                if is_doubtful || self.confirmed_at.elapsed() > QUORUM_INTERVAL {
                    self.settle().await?;
                }
            }
        }
    }

    /// Takes the newest word over.
    fn hear(&mut self) {
        let word = self.session.heard.borrow_and_update().word;
        let Some(word) = word.filter(|word| word.position > self.safe) else { return };
        self.safe = word.position;
        self.newest = self.newest.max(word.position);
        self.word = Some(word);
        self.confirmed_at = Instant::now();
    }

    /// Whether there is a word about something newer than what is known to be safe.
    async fn wait_for_word(&mut self, wait: Duration) -> Result<bool, EngineError> {
        let safe = self.safe;
        let news = self
            .session
            .heard
            .wait_for(|heard| heard.word.is_some_and(|word| word.position > safe));
        let heard = timeout(wait, news).await.map(|heard| heard.is_ok());
        match heard {
            Ok(true) => Ok(true),
            Ok(false) => Err(self.away("the connection has ended")),
            Err(_) => Ok(false),
        }
    }

    /// Asks for the newest position.
    async fn look(&mut self) -> Result<(), EngineError> {
        let row = self.session.client.query_opt(&self.newest_of, &[]);
        let row = timeout(ANSWER_WAIT, row).await.map_err(|_| self.away("no answer in time"))?;
        let row = row.map_err(|error| self.failed(error.into()))?;
        let newest = Position(row.map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()));
        if newest.next() < self.next {
            return Err(EngineError::Broken(format!(
                "the newest batch in herald.batch is at position {newest}, and the one at {} was expected \
                 to be there or to come",
                self.next
            )));
        }
        self.newest = self.newest.max(newest);
        Ok(())
    }

    /// Makes sure of all that was seen. Without a standby that confirms it the engine is as good as away: nothing can be
    /// appended either.
    async fn settle(&mut self) -> Result<(), EngineError> {
        let newest = self.newest;
        self.session.barrier(&self.door).await.map_err(|failure| self.failed(failure))?;
        self.safe = self.safe.max(newest);
        self.confirmed_at = Instant::now();
        Ok(())
    }

    /// Reads rows that are safe, and gives them as they come.
    async fn read(&mut self, gives: &Gives) -> Result<(), EngineError> {
        let until = self.safe.min(Position(self.next.0 + QUESTION_ROWS - 1));
        let range = [self.next.0.cast_signed(), until.0.cast_signed()];
        let rows = timeout(ANSWER_WAIT, self.session.client.query_raw(&self.rows, range));
        let rows = rows.await.map_err(|_| self.away("no answer in time"))?;
        let mut rows = pin!(rows.map_err(|error| self.failed(error.into()))?);
        let mut batches = Vec::new();
        let mut bytes = 0;
        while let Some(frame) = self.next_row(rows.as_mut()).await? {
            bytes += frame.len();
            batches.push((self.next, frame));
            self.next = self.next.next();
            if batches.len() >= GIVEN_ROWS || bytes >= GIVEN_BYTES {
                self.give(gives, std::mem::take(&mut batches)).await?;
                bytes = 0;
            }
        }
        if self.next <= until {
            return Err(self.missing("none"));
        }
        self.give(gives, batches).await
    }

    async fn next_row(&self, mut rows: Pin<&mut RowStream>) -> Result<Option<Bytes>, EngineError> {
        let row = timeout(ANSWER_WAIT, rows.next()).await;
        let Some(row) = row.map_err(|_| self.away("no answer in time"))? else { return Ok(None) };
        let row = row.map_err(|error| self.failed(error.into()))?;
        let position = Position(row.get::<_, i64>(0).cast_unsigned());
        if position != self.next {
            return Err(self.missing(&position.to_string()));
        }
        if let Some(word) = self.word.filter(|word| word.position == position)
            && word.batch_id != row.get::<_, Uuid>(1).as_u128()
        {
            return Err(EngineError::Broken(format!(
                "the batch at position {position} is not the one that its writer stored there"
            )));
        }
        Ok(Some(Bytes::copy_from_slice(row.get(2))))
    }

    async fn give(
        &self,
        gives: &Gives,
        batches: Vec<(Position, Bytes)>,
    ) -> Result<(), EngineError> {
        let followed = Followed { batches, newest: self.newest };
        gives.send(Ok(followed)).await.map_err(|_| self.away("nobody follows any more"))
    }

    fn missing(&self, found: &str) -> EngineError {
        let expected = self.next;
        EngineError::Broken(format!(
            "the batch at position {expected} is not in herald.batch any more; the next one there: {found}"
        ))
    }

    fn away(&self, what: &str) -> EngineError {
        self.failed(Failure::new(what))
    }

    fn failed(&self, failure: Failure) -> EngineError {
        failure.into_engine_error(&self.session.server)
    }
}

type Gives = mpsc::Sender<Result<Followed, EngineError>>;
