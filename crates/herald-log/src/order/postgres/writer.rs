//! The session that appends.

use std::fmt;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use tokio_postgres::{
    Statement,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use uuid::Uuid;

use super::{
    super::engine::{AppendFailure, Entry, Place, Source},
    failure::Failure,
    session::{Door, Session, word},
};

/// Inserts the first batch, if there has never been one.
const FIRST: &str = "
    WITH begun AS (
        UPDATE herald.log SET has_begun = true WHERE NOT has_begun AND log_id = $5 RETURNING 1
    )
    INSERT INTO herald.batch (position, batch_id, tail, time_ms, frame)
    SELECT 1, $1, $2, $3, $4 FROM begun
    ON CONFLICT DO NOTHING";
/// Inserts a batch if the one before is the newest. Of several that see the same, the primary key lets one through: the
/// others wait until it has been decided about, and insert nothing.
const NEXT: &str = "
    INSERT INTO herald.batch (position, batch_id, tail, time_ms, frame)
    SELECT $5::bigint + 1, $1, $2, $3, $4
    WHERE (SELECT b.position = $5 AND b.batch_id = $6
           FROM herald.batch b ORDER BY b.position DESC LIMIT 1)
      AND EXISTS (SELECT FROM herald.log WHERE log_id = $7)
    ON CONFLICT DO NOTHING";
/// Tells the followers. They need not hear it, so nobody waits until it is on a disk.
const WORD: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify('herald', $1)";

pub(super) struct Writer {
    session: Session,
    first: Statement,
    next: Statement,
    word: Statement,
}

impl AsRef<Session> for Writer {
    fn as_ref(&self) -> &Session {
        &self.session
    }
}

impl Writer {
    pub(super) async fn open(door: &Door) -> Result<Self, Source> {
        let session = door.open().await?;
        let client = &session.client;
        let (first, next, word) =
            tokio::try_join!(client.prepare(FIRST), client.prepare(NEXT), client.prepare(WORD))
                .map_err(Failure::from)?;
        Ok(Self { session, first, next, word })
    }

    /// A server in whose way something is says so before it commits; then nothing has happened. Without such an answer
    /// nothing is known: a commit that waits for a standby goes on waiting when its client has gone, and is done in the
    /// end. Whoever tries again meanwhile waits behind it, until `lock_timeout`: of these tries nothing is left.
    pub(super) async fn append(&self, entry: &Entry) -> Result<(), AppendFailure> {
        let Entry { log_id, after, batch_id, frame, tail, time_ms } = entry;
        let client = &self.session.client;
        let warnings = self.session.warnings();
        let (id, after_id) = (Uuid::from_u128(*batch_id), Uuid::from_u128(after.batch_id));
        let (tail, time_ms) = (tail.cast_signed(), time_ms.cast_signed());
        let (frame, position) = (Hidden(&**frame), after.position.0.cast_signed());
        let inserted = if position == 0 {
            client.execute(&self.first, &[&id, &tail, &time_ms, &frame, log_id]).await
        } else {
            let row: [&(dyn ToSql + Sync); 7] =
                [&id, &tail, &time_ms, &frame, &position, &after_id, log_id];
            client.execute(&self.next, &row).await
        };
        match inserted.map_err(Failure::from) {
            Err(failure) if failure.is_refusal() => Err(AppendFailure::Refused(Box::new(failure))),
            Err(failure) if failure.is_rolled_back() => Err(AppendFailure::Away(Box::new(failure))),
            Err(failure) => Err(AppendFailure::Unknown(Box::new(failure))),
            Ok(0) => Err(AppendFailure::Conflict),
            // Committed, but perhaps on the primary alone, if somebody has cancelled the wait for a standby.
            Ok(_) => {
                let confirmed = self.session.confirmed_since(warnings);
                confirmed.map_err(|failure| AppendFailure::Unknown(Box::new(failure)))?;
                self.say(Place { position: after.position.next(), batch_id: *batch_id });
                Ok(())
            }
        }
    }

    /// Says that a batch is safe, over the connection that has committed it, and does not wait: the request is on its way
    /// when this returns, before any other of this connection.
    fn say(&self, place: Place) {
        let _ = self.session.client.execute(&self.word, &[&word(place)]).now_or_never();
    }
}

/// A value that does not show itself to anybody who logs a statement.
pub(super) struct Hidden<T>(pub(super) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        T::accepts(kind)
    }

    to_sql_checked!();
}
