//! Exactly once in effect: the work and the cursor are committed in one SQLite transaction.
//!
//! ```text
//! cargo run -p herald-client --example sqlite -- http://127.0.0.1:8080 journal.db 8139764
//! ```
//!
//! Kill it whenever you like: `SELECT count(*) FROM inbox` counts each notification once.

use std::error::Error;

use herald_client::{Client, Cursor, Event, Notification, Start, types::HerId};
use rusqlite::{Connection, OptionalExtension as _, params};

/// A journal that keeps what it has handled, and up to where.
pub(crate) struct Journal {
    db: Connection,
}

impl Journal {
    /// Opens the database, and makes its tables if they are not there.
    pub(crate) fn open(path: &str) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS inbox (notification_offset INTEGER PRIMARY KEY, notification TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS cursor (consumer TEXT PRIMARY KEY, value TEXT NOT NULL);",
        )?;
        Ok(Self { db })
    }

    /// Where the last transaction left off; `None` before the first.
    pub(crate) fn cursor(&self) -> Result<Option<Cursor>, Box<dyn Error>> {
        let query = "SELECT value FROM cursor WHERE consumer = 'inbox'";
        let value = self.db.query_row(query, [], |row| row.get::<_, String>(0)).optional()?;
        Ok(value.map(|value| serde_json::from_str(&value)).transpose()?)
    }

    /// Keeps a cursor, and the notification that moved it there if there is one: both or neither.
    pub(crate) fn handle(
        &mut self,
        notification: Option<&Notification>,
        cursor: &Cursor,
    ) -> Result<(), Box<dyn Error>> {
        let transaction = self.db.transaction()?;
        if let Some(notification) = notification {
            // The work goes here. A primary key says so if anything ever came twice.
            let offset = i64::try_from(notification.offset().get())?;
            let insert = "INSERT INTO inbox (notification_offset, notification) VALUES (?1, ?2)";
            transaction.execute(insert, params![offset, notification.raw()])?;
        }
        transaction.execute(
            "INSERT INTO cursor (consumer, value) VALUES ('inbox', ?1)
             ON CONFLICT (consumer) DO UPDATE SET value = excluded.value",
            [serde_json::to_string(cursor)?],
        )?;
        Ok(transaction.commit()?)
    }
}

/// Handles everything for `receivers`, from the oldest on, until something fails for good.
pub(crate) async fn follow(
    client: &Client,
    journal: &mut Journal,
    receivers: Vec<HerId>,
) -> Result<(), Box<dyn Error>> {
    let begun = client.begin(receivers, Start::Beginning).await?;
    let kept = journal.cursor()?.unwrap_or(begun.clone());
    if kept.receivers() != begun.receivers() {
        return Err("the database is of other HER-ids".into());
    }
    let mut notifications = client.notifications(kept);
    loop {
        match notifications.next().await? {
            Event::Notification(notification) => {
                let after = notifications.cursor_after(&notification);
                journal.handle(Some(&notification), &after)?;
                // Only now: had the transaction failed, the cursor would be where it was.
                notifications.ack(&notification);
            }
            Event::Moved => journal.handle(None, notifications.cursor())?,
            Event::Status(status) => eprintln!("{status}"),
            _ => {}
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, path, her_ids @ ..] = arguments.as_slice() else {
        return Err("usage: sqlite URL DATABASE HER-ID…".into());
    };
    let receivers = her_ids.iter().map(|her_id| her_id.parse()).collect::<Result<_, _>>()?;
    let client = Client::new(url, "sqlite-example/1.0")?;
    follow(&client, &mut Journal::open(path)?, receivers).await
}
