//! The schema `herald`: made and brought up to date here, and checked before it is used.

use tokio_postgres::error::SqlState;

use super::{super::engine::EngineError, failure::Failure, session::Session};

/// A step from one version of the schema to the next.
struct Migration {
    sql: &'static str,
    /// The oldest version whose Herald can go on working with this one, while replicas are replaced one by one.
    serves: i32,
}

/// All steps; the first makes version 1. What has been released is never changed.
const MIGRATIONS: [Migration; 1] =
    [Migration { sql: include_str!("migrations/0001_log_and_batches.sql"), serves: 1 }];

/// The version that this Herald works with.
pub(super) const VERSION: i32 = 1;
const _: () = assert!(MIGRATIONS.len() == VERSION as usize);

/// Whoever migrates holds this lock of the database: `herald` in ASCII.
const LOCK: i64 = 0x6865_7261_6c64;

/// What a running replica needs: all that [`super`] says and does.
const PRIVILEGES: [(&str, &[&str]); 3] = [
    ("migration", &["SELECT"]),
    ("log", &["SELECT", "INSERT", "UPDATE"]),
    ("batch", &["SELECT", "INSERT", "DELETE"]),
];

/// Whether there is a schema; if so, it is brought up to date and checked.
pub(super) async fn check(session: &mut Session) -> Result<bool, EngineError> {
    let Some(found) = found(session).await? else { return Ok(false) };
    found.fits()?;
    if found.version < VERSION {
        migrate(session).await?;
    }
    check_privileges(session).await?;
    Ok(true)
}

/// Makes the schema, or brings it up to date; nothing where it is.
pub(super) async fn migrate(session: &mut Session) -> Result<(), EngineError> {
    match try_to_migrate(session).await {
        Err(failure) if failure.is(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(EngineError::Unfit(format!(
                "the role may not make or change the schema herald: {failure}. Start one replica with \
                 a role that may CREATE in the database, or that owns the schema, or GRANT that"
            )))
        }
        Err(failure) => Err(failure.into()),
        Ok(found) => found.fits(),
    }
}

async fn try_to_migrate(session: &mut Session) -> Result<Found, Failure> {
    let transaction = session.client.transaction().await?;
    // One after the other, when several begin at once. As long as it takes, since a table may be rewritten.
    let begin = format!("SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({LOCK})");
    transaction.batch_execute(&begin).await?;
    let namespace = "SELECT FROM pg_namespace WHERE nspname = 'herald'";
    if transaction.query_opt(namespace, &[]).await?.is_none() {
        transaction.batch_execute("CREATE SCHEMA herald").await?;
    }
    let table = "CREATE TABLE IF NOT EXISTS herald.migration (
                     version integer PRIMARY KEY,
                     serves integer NOT NULL,
                     done_at timestamptz NOT NULL DEFAULT now()
                 )";
    transaction.batch_execute(table).await?;
    let row = transaction.query_one(NEWEST, &[]).await?;
    let found = Found { version: row.get(0), serves: row.get(1) };
    for (migration, version) in
        MIGRATIONS.iter().zip(1..).skip_while(|(_, version)| *version <= found.version)
    {
        transaction.batch_execute(migration.sql).await?;
        let done = "INSERT INTO herald.migration (version, serves) VALUES ($1, $2)";
        transaction.execute(done, &[&version, &migration.serves]).await?;
    }
    transaction.commit().await?;
    Ok(found)
}

const NEWEST: &str =
    "SELECT coalesce(max(version), 0), coalesce(max(serves), 0) FROM herald.migration";

/// What stands in the database. Nothing has version 0.
struct Found {
    version: i32,
    serves: i32,
}

impl Found {
    /// A newer schema is no obstacle if it serves this version.
    fn fits(&self) -> Result<(), EngineError> {
        let Self { version, serves } = self;
        if *serves <= VERSION {
            return Ok(());
        }
        Err(EngineError::Unfit(format!(
            "the schema herald is of version {version}, which serves Heralds of schema version {serves} \
             and newer; this one is of {VERSION}: start a newer Herald"
        )))
    }
}

/// Looks into the catalogue first, which anybody may read.
async fn found(session: &Session) -> Result<Option<Found>, EngineError> {
    let catalogue = "SELECT has_schema_privilege(n.oid, 'USAGE'), c.oid IS NOT NULL,
                            coalesce(has_table_privilege(c.oid, 'SELECT'), false), quote_ident(current_user)
                     FROM pg_namespace n
                     LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'migration'
                     WHERE n.nspname = 'herald'";
    let row = session.client.query_opt(catalogue, &[]).await.map_err(Failure::from)?;
    let Some(row) = row else { return Ok(None) };
    let (may_use, is_there, may_read): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let role: String = row.get(3);
    match (may_use, is_there, may_read) {
        (false, _, _) => Err(EngineError::Unfit(format!(
            "role {role} lacks USAGE on the schema herald: GRANT USAGE ON SCHEMA herald TO {role}"
        ))),
        // Somebody has prepared a schema for us.
        (true, false, _) => Ok(None),
        (true, true, false) => Err(EngineError::Unfit(lacks(&role, &[("migration", "SELECT")]))),
        (true, true, true) => {
            let row = session.client.query_one(NEWEST, &[]).await.map_err(Failure::from)?;
            Ok(Some(Found { version: row.get(0), serves: row.get(1) }))
        }
    }
}

async fn check_privileges(session: &Session) -> Result<(), EngineError> {
    let wanted: Vec<_> = PRIVILEGES
        .iter()
        .flat_map(|(table, privileges)| {
            privileges.iter().map(move |it| format!("('{table}', '{it}')"))
        })
        .collect();
    let question = format!(
        "SELECT w.relation, w.privilege, quote_ident(current_user)
         FROM (VALUES {}) w(relation, privilege)
         LEFT JOIN pg_class c ON c.relnamespace = 'herald'::regnamespace AND c.relname = w.relation
         WHERE NOT coalesce(has_table_privilege(c.oid, w.privilege), false)
         UNION ALL
         SELECT proname, 'EXECUTE', quote_ident(current_user) FROM pg_proc
         WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace
         GROUP BY proname HAVING NOT bool_or(has_function_privilege(oid, 'EXECUTE'))",
        wanted.join(", ")
    );
    let rows = session.client.query(&question, &[]).await.map_err(Failure::from)?;
    let Some(row) = rows.first() else { return Ok(()) };
    let missing: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Err(EngineError::Unfit(lacks(row.get(2), &missing)))
}

fn lacks(role: &str, missing: &[(&str, &str)]) -> String {
    let (mut what, mut how) = (Vec::new(), Vec::new());
    for (relation, privilege) in missing {
        let on = match *privilege {
            "EXECUTE" => format!("FUNCTION {relation}"),
            _ => format!("herald.{relation}"),
        };
        what.push(format!("{privilege} on {on}"));
        how.push(format!("GRANT {privilege} ON {on} TO {role}"));
    }
    format!("role {role} lacks {}: {}", what.join(", "), how.join("; "))
}
