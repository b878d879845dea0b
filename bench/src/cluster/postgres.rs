//! PostgreSQL by `tokio-postgres` alone: a table like Herald's, one row a batch.

use std::{collections::VecDeque, future::poll_fn, pin::Pin, sync::Arc};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls, Statement};
use uuid::Uuid;

const TABLE: &str = "
    DROP SCHEMA IF EXISTS bare CASCADE;
    CREATE SCHEMA bare;
    CREATE TABLE bare.batch (
        position bigint PRIMARY KEY CHECK (position > 0), batch_id uuid NOT NULL,
        tail bigint NOT NULL, time_ms bigint NOT NULL, frame bytea NOT NULL
    ) WITH (toast_tuple_target = 4080);
    ALTER TABLE bare.batch ALTER COLUMN frame SET STORAGE EXTERNAL;
    INSERT INTO bare.batch VALUES (1, '00000000-0000-0000-0000-000000000000', 0, 0, '')";
/// Herald's own statement.
const NEXT: &str = "
    INSERT INTO bare.batch (position, batch_id, tail, time_ms, frame)
    SELECT $5::bigint + 1, $1, $2, $3, $4
    WHERE (SELECT b.position = $5 AND b.batch_id = $6
           FROM bare.batch b ORDER BY b.position DESC LIMIT 1)
    ON CONFLICT DO NOTHING";
/// The same, and whoever listens is told when it is committed.
const NEXT_SAID: &str = "
    WITH inserted AS (
        INSERT INTO bare.batch (position, batch_id, tail, time_ms, frame)
        SELECT $5::bigint + 1, $1, $2, $3, $4
        WHERE (SELECT b.position = $5 AND b.batch_id = $6
               FROM bare.batch b ORDER BY b.position DESC LIMIT 1)
        ON CONFLICT DO NOTHING RETURNING position)
    SELECT pg_notify('bare', position::text) FROM inserted";
const FRAMES: &str = "SELECT frame FROM herald.batch WHERE position > $1 AND position <= $2
                      ORDER BY position";

type Insert = Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send>>;

pub(crate) struct Client {
    client: Arc<tokio_postgres::Client>,
    next: Statement,
    position: i64,
    batch_id: Uuid,
    /// In the order of their sending, which is the order of their answers.
    under_way: VecDeque<Insert>,
}

/// A session, and whatever it is told.
async fn connect(
    url: &str,
) -> anyhow::Result<(tokio_postgres::Client, mpsc::UnboundedReceiver<()>)> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    // Unbounded: one word for each batch of a loop that waits for it.
    let (words, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                let _ = words.send(());
            }
        }
    });
    Ok((client, heard))
}

impl Client {
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, _) = connect(url).await?;
        client.batch_execute(TABLE).await?;
        let next = client.prepare(NEXT).await?;
        let (client, under_way) = (Arc::new(client), VecDeque::new());
        Ok(Self { client, next, position: 1, batch_id: Uuid::nil(), under_way })
    }

    pub(super) async fn newest(&self) -> anyhow::Result<u64> {
        let newest = "SELECT coalesce(max(position), 0) FROM herald.batch";
        Ok(self.client.query_one(newest, &[]).await?.get::<_, i64>(0).cast_unsigned())
    }

    pub(super) async fn frames(&self, after: u64, until: u64) -> anyhow::Result<Vec<Bytes>> {
        let bounds = (after.cast_signed(), until.cast_signed());
        let rows = self.client.query(FRAMES, &[&bounds.0, &bounds.1]).await?;
        Ok(rows.iter().map(|row| Bytes::copy_from_slice(row.get(0))).collect())
    }

    pub(super) async fn send(&mut self, frame: Bytes) -> anyhow::Result<()> {
        let (client, statement) = (Arc::clone(&self.client), self.next.clone());
        let (position, after_id, id) =
            (self.position, self.batch_id, Uuid::from_u128(rand::random()));
        (self.position, self.batch_id) = (position + 1, id);
        let mut insert: Insert = Box::pin(async move {
            let (tail, time_ms, frame) = (position, position, &*frame);
            client.execute(&statement, &[&id, &tail, &time_ms, &frame, &position, &after_id]).await
        });
        // It is on its way once it has been looked at, before any that is sent later.
        if let Some(done) = (&mut insert).now_or_never() {
            insert = Box::pin(async move { done });
        }
        self.under_way.push_back(insert);
        Ok(())
    }

    pub(super) async fn stored(&mut self) -> anyhow::Result<()> {
        let insert = self.under_way.pop_front().context("nothing is under way")?;
        let rows = insert.await?;
        ensure!(rows == 1, "a batch was not stored");
        Ok(())
    }

    pub(super) async fn listener(&mut self, url: &str) -> anyhow::Result<Listener> {
        self.next = self.client.prepare(NEXT_SAID).await?;
        let (client, words) = connect(url).await?;
        client.batch_execute("LISTEN bare").await?;
        let select = "SELECT frame FROM bare.batch WHERE position > $1 ORDER BY position LIMIT 1";
        let select = client.prepare(select).await?;
        Ok(Listener { client, select, words, after: self.position })
    }
}

/// A session that listens, and reads what it is told of.
pub(crate) struct Listener {
    client: tokio_postgres::Client,
    select: Statement,
    words: mpsc::UnboundedReceiver<()>,
    after: i64,
}

impl Listener {
    pub(super) async fn next(&mut self) -> anyhow::Result<Bytes> {
        self.words.recv().await.context("the connection ended")?;
        let row = self.client.query_one(&self.select, &[&self.after]).await?;
        self.after += 1;
        Ok(Bytes::copy_from_slice(row.get(0)))
    }
}
