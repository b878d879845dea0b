//! PostgreSQL: a row for each batch, and its primary key as the condition.
//!
//! Safe means here: committed on the primary, and confirmed by the synchronous standbys. What [`Reader`](follow) says of
//! rows that one can see is the other half of it.

mod failure;
mod follow;
mod schema;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod writer;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{Statement, error::SqlState};
use tracing::warn;

use self::{
    failure::Failure,
    follow::{PostgresFollow, away},
    session::{Door, Session, Slot},
    writer::Writer,
};
use super::{
    Position,
    engine::{ANSWER_WAIT, AppendFailure, Engine, EngineError, Entry, Forgettable, Identity, Look},
    place::{EngineSettings, EngineUrl},
};

/// How many batches are forgotten in one transaction, and of how many bytes: none of them takes long.
const FORGOTTEN_ROWS: i64 = 1000;
const FORGOTTEN_BYTES: i64 = 64 << 20;
/// How long forgetting waits for the writers that are at work, which are held up for as long.
const FORGET_LOCK_WAIT: Duration = Duration::from_millis(100);

/// A log in PostgreSQL.
pub(crate) struct Postgres {
    address: String,
    door: Arc<Door>,
    writer: Slot<Writer>,
    asker: Slot<Asker>,
    /// The settings that were last warned of. Held for a moment only.
    warned: Mutex<Option<Durability>>,
}

/// The settings of the server on which it depends what a commit is worth.
#[derive(Clone, PartialEq, Eq)]
struct Durability {
    standby_names: String,
    fsync: String,
    full_page_writes: String,
}

/// A session for everything that is neither written nor followed.
struct Asker {
    session: Session,
    /// `None` as long as the schema has not been found and checked.
    statements: Option<Statements>,
}

struct Statements {
    look: Statement,
    read: Statement,
}

impl AsRef<Session> for Asker {
    fn as_ref(&self) -> &Session {
        &self.session
    }
}

const LOOK: &str = "
    SELECT l.history, l.log_id, l.salt, l.is_seeding, l.has_begun,
           (SELECT b.position FROM herald.batch b ORDER BY b.position LIMIT 1),
           (SELECT b.position FROM herald.batch b ORDER BY b.position DESC LIMIT 1),
           floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint,
           current_setting('synchronous_standby_names'),
           current_setting('fsync'),
           current_setting('full_page_writes')
    FROM herald.log l";
const READ: &str = "SELECT frame FROM herald.batch WHERE position = $1";
const CREATE: &str = "
    INSERT INTO herald.log (history, log_id, salt, is_seeding) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING";
const SEEDED: &str = "UPDATE herald.log SET is_seeding = false WHERE log_id = $1";
/// The oldest batch if it may be forgotten, and the newest one.
const FORGETTABLE: &str = "
    SELECT (SELECT b.position FROM herald.batch b ORDER BY b.position DESC LIMIT 1)
    FROM (SELECT tail, time_ms FROM herald.batch ORDER BY position LIMIT 1) oldest
    WHERE oldest.tail <= $1 AND oldest.time_ms < $2
        AND EXISTS (SELECT FROM herald.log l WHERE l.log_id = $3)";
/// Deletes from the front, before $3, up to the first batch that may not be forgotten.
const FORGET: &str = "
    WITH oldest AS (
        SELECT position, tail <= $1 AND time_ms < $2 AS may_go, octet_length(frame) AS size
        FROM herald.batch WHERE position < $3 ORDER BY position LIMIT $4
    ), counted AS (
        SELECT position, bool_and(may_go) OVER up_to AND sum(size) OVER up_to - size < $5 AS goes
        FROM oldest WINDOW up_to AS (ORDER BY position)
    )
    DELETE FROM herald.batch
    WHERE position <= (SELECT max(position) FROM counted WHERE goes)
        AND EXISTS (SELECT FROM herald.log l WHERE l.log_id = $6)";

impl Postgres {
    pub(crate) fn new(url: &EngineUrl, settings: &EngineSettings) -> Result<Self, String> {
        let servers = settings::servers(url, settings, &|name| std::env::var(name).ok())?;
        Ok(Self {
            address: url.to_string(),
            door: Arc::new(Door::new(servers)),
            writer: Slot::default(),
            asker: Slot::default(),
            warned: Mutex::default(),
        })
    }

    /// Asks a server that was not replaced.
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&mut Asker) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.ask_any(async |asker: &mut Asker| {
            self.door.admit(&asker.session)?;
            question(asker).await
        })
        .await
    }

    /// Asks something. The session is kept for the next time unless something went wrong; one that has not answered in
    /// time is dropped with what it was asked.
    async fn ask_any<T>(
        &self,
        question: impl AsyncFnOnce(&mut Asker) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let asked = async {
            let mut asker = match self.asker.take(&self.door) {
                Some(asker) => asker,
                None => Asker { session: self.door.open_any().await?, statements: None },
            };
            let answer = question(&mut asker).await;
            if answer.is_ok() {
                self.asker.put(asker);
            }
            answer
        };
        timeout(ANSWER_WAIT, asked).await.unwrap_or_else(|_| Err(Failure::late().into()))
    }

    fn warn_of(&self, found: &Durability) {
        let old = self.warned.lock().unwrap_or_else(PoisonError::into_inner).replace(found.clone());
        if old.as_ref() == Some(found) {
            return;
        }
        let engine = &*self.address;
        if found.standby_names.is_empty() {
            warn!(
                engine,
                setting = "synchronous_standby_names",
                "the log's engine has no synchronous standby: what it has answered for goes with the \
                 primary's disk"
            );
        }
        for (setting, value) in
            [("fsync", &found.fsync), ("full_page_writes", &found.full_page_writes)]
        {
            if value != "on" {
                warn!(
                    engine,
                    setting,
                    value = &**value,
                    "the log's engine may lose or damage what it has answered for when its machine fails"
                );
            }
        }
    }
}

impl Engine for Postgres {
    type Follow = PostgresFollow;

    fn address(&self) -> String {
        self.address.clone()
    }

    async fn look(&self) -> Result<Option<Look>, EngineError> {
        // Whoever it is: its timeline tells.
        let asked = self.ask_any(async |asker: &mut Asker| asker.look(&self.door).await);
        let found = asked.await?;
        Ok(found.map(|(look, durability)| {
            self.warn_of(&durability);
            look
        }))
    }

    async fn create(&self, identity: &Identity) -> Result<(), EngineError> {
        self.ask(async |asker: &mut Asker| asker.create(identity).await).await
    }

    async fn seeded(&self, identity: &Identity) -> Result<(), EngineError> {
        self.ask(async |asker: &mut Asker| asker.seeded(identity).await).await
    }

    async fn append(&self, entry: &Entry) -> Result<(), AppendFailure> {
        let until = Instant::now() + ANSWER_WAIT;
        let writer = match self.writer.take(&self.door) {
            Some(writer) => writer,
            None => timeout_at(until, Writer::open(&self.door))
                .await
                .unwrap_or_else(|_| Err(Failure::late().into()))
                .map_err(AppendFailure::Away)?,
        };
        let outcome = timeout_at(until, writer.append(entry))
            .await
            .unwrap_or_else(|_| Err(AppendFailure::Unknown(Failure::late().into())));
        // When in doubt, another connection: it may lead to another server.
        if !matches!(outcome, Err(AppendFailure::Away(_) | AppendFailure::Unknown(_))) {
            self.writer.put(writer);
        }
        outcome
    }

    async fn follow(&self, from: Position) -> Result<PostgresFollow, EngineError> {
        follow::follow(&self.door, from).await
    }

    async fn read(&self, position: Position) -> Result<Option<Bytes>, EngineError> {
        let asked = self.ask(async |asker: &mut Asker| asker.read(position).await);
        asked.await.map_err(away)
    }

    async fn forget(&self, what: Forgettable) -> Result<(), EngineError> {
        let asked = self.ask(async |asker: &mut Asker| asker.forgettable(what).await);
        let Some(newest) = asked.await.map_err(away)? else { return Ok(()) };
        loop {
            let asked = self.ask(async |asker: &mut Asker| asker.forget(what, newest).await);
            if !asked.await.map_err(away)? {
                return Ok(());
            }
        }
    }
}

impl Asker {
    /// Whether there is a schema, which is then in order. Asked once for each session.
    async fn check(&mut self) -> Result<bool, EngineError> {
        if self.statements.is_some() {
            return Ok(true);
        }
        if !schema::check(&mut self.session).await? {
            return Ok(false);
        }
        let client = &self.session.client;
        let (look, read) =
            tokio::try_join!(client.prepare(LOOK), client.prepare(READ)).map_err(Failure::from)?;
        self.statements = Some(Statements { look, read });
        Ok(true)
    }

    async fn statements(&mut self) -> Result<&Statements, EngineError> {
        self.check().await?;
        self.statements.as_ref().ok_or_else(|| Failure::new("there is no log").into())
    }

    async fn look(&mut self, door: &Door) -> Result<Option<(Look, Durability)>, EngineError> {
        let was_checked = self.statements.is_some();
        if !self.check().await? {
            return Ok(None);
        }
        let statement = self.statements().await?.look.clone();
        let row = match self.session.client.query_opt(&statement, &[]).await.map_err(Failure::from)
        {
            Ok(row) => row,
            // Somebody has dropped it since.
            Err(failure) if was_checked && failure.is(&SqlState::UNDEFINED_TABLE) => {
                self.statements = None;
                return Box::pin(self.look(door)).await;
            }
            Err(failure) => return Err(failure.into()),
        };
        let Some(row) = row else { return Ok(None) };
        let number = |column| row.get::<_, i64>(column).cast_unsigned();
        let identity = Identity {
            history: row.get(0),
            log_id: row.get(1),
            salt: number(2),
            is_seeding: row.get(3),
        };
        let position = |column| {
            row.get::<_, Option<i64>>(column).map(|position| Position(position.cast_unsigned()))
        };
        let (first, newest) = match (position(5), position(6)) {
            (Some(first), Some(newest)) => (first, newest),
            // How many there were, nobody knows any more.
            _ if row.get(4) => (Position(2), Position(1)),
            _ => (Position(1), Position(0)),
        };
        let look = Look { identity, first, newest, time_ms: number(7), term: self.session.term };
        let durability = Durability {
            standby_names: row.get(8),
            fsync: row.get(9),
            full_page_writes: row.get(10),
        };
        if newest == Position(0) {
            // A log that one can see is as doubtful as a row, and nothing else vouches for it yet.
            self.session.barrier(door).await?;
        }
        Ok(Some((look, durability)))
    }

    /// Runs a statement, and is sure that what it did is safe.
    async fn commit(
        &self,
        statement: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, EngineError> {
        let warnings = self.session.warnings();
        let done = self.session.client.execute(statement, parameters).await;
        let rows = done.map_err(Failure::from)?;
        self.session.confirmed_since(warnings)?;
        Ok(rows)
    }

    async fn create(&mut self, identity: &Identity) -> Result<(), EngineError> {
        schema::migrate(&mut self.session).await?;
        let Identity { history, log_id, salt, is_seeding } = identity;
        let salt = writer::Hidden(salt.cast_signed());
        self.commit(CREATE, &[history, log_id, &salt, is_seeding]).await.map(drop)
    }

    async fn seeded(&mut self, identity: &Identity) -> Result<(), EngineError> {
        match self.commit(SEEDED, &[&identity.log_id]).await? {
            0 => Err(EngineError::Unfit(format!(
                "the log {} that was being seeded is not there any more",
                identity.log_id
            ))),
            _ => Ok(()),
        }
    }

    async fn read(&mut self, position: Position) -> Result<Option<Bytes>, EngineError> {
        let statement = self.statements().await?.read.clone();
        let position = position.0.cast_signed();
        let row = self.session.client.query_opt(&statement, &[&position]).await;
        let row = row.map_err(Failure::from)?;
        Ok(row.map(|row| Bytes::copy_from_slice(row.get(0))))
    }

    /// The newest position, if the oldest batch may be forgotten and no writer can be at work that has not seen the newest
    /// one.
    ///
    /// That is what makes it impossible that a position is used again. A writer takes its position if the batch before is
    /// the newest that it sees. If it is slow, others may come after what it sees; were these deleted before it comes to
    /// insert, nothing would be in its way. So what a writer at work has not seen is never deleted: for a moment the table
    /// is locked against writers, which waits for those at work, and all that come later see what was there before.
    async fn forgettable(&mut self, what: Forgettable) -> Result<Option<Position>, EngineError> {
        self.statements().await?;
        let client = &self.session.client;
        let (trim_point, before_ms) = (what.trim_point.cast_signed(), what.before_ms.cast_signed());
        let newest = client.query_opt(FORGETTABLE, &[&trim_point, &before_ms, &what.log_id]).await;
        let Some(newest) = newest.map_err(Failure::from)? else { return Ok(None) };
        let lock = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; LOCK TABLE herald.batch IN SHARE MODE; COMMIT",
            FORGET_LOCK_WAIT.as_millis()
        );
        match client.batch_execute(&lock).await.map_err(Failure::from) {
            Ok(()) => Ok(Some(Position(newest.get::<_, i64>(0).cast_unsigned()))),
            Err(failure) if failure.is(&SqlState::LOCK_NOT_AVAILABLE) => {
                // Another time.
                client.batch_execute("ROLLBACK").await.map_err(Failure::from)?;
                Ok(None)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Forgets some of what is before `newest`: whether it did.
    async fn forget(&mut self, what: Forgettable, newest: Position) -> Result<bool, EngineError> {
        let client = &mut self.session.client;
        // Not waited for: what comes back after a crash is forgotten again.
        let transaction = client.transaction().await.map_err(Failure::from)?;
        let relaxed = "SET LOCAL synchronous_commit = off";
        transaction.batch_execute(relaxed).await.map_err(Failure::from)?;
        let (trim_point, before_ms) = (what.trim_point.cast_signed(), what.before_ms.cast_signed());
        let newest = newest.0.cast_signed();
        let rows = transaction
            .execute(
                FORGET,
                &[
                    &trim_point,
                    &before_ms,
                    &newest,
                    &FORGOTTEN_ROWS,
                    &FORGOTTEN_BYTES,
                    &what.log_id,
                ],
            )
            .await
            .map_err(Failure::from)?;
        transaction.commit().await.map_err(Failure::from)?;
        Ok(rows > 0)
    }
}
