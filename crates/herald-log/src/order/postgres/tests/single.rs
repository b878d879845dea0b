//! One server: what the table does.

use super::*;

#[tokio::test]
async fn a_log_is_made_once_and_gives_what_was_appended() {
    let cluster = Cluster::start_alone().await.unwrap();
    let engine = engine(&cluster.url());
    assert_eq!(engine.look().await.unwrap(), None);
    engine.create(&identity(1)).await.unwrap();
    engine.create(&identity(7)).await.unwrap();
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!(look.identity, identity(1));
    assert_eq!((look.first, look.newest, look.term), (Position(1), Position(0), 1));

    let mut follow = engine.follow(Position(1)).await.unwrap();
    engine.append(&entry(START, 10, b"one")).await.unwrap();
    let twice = engine.append(&entry(START, 10, b"one")).await;
    assert!(matches!(twice, Err(AppendFailure::Conflict)), "{twice:?}");
    engine.append(&entry(place(1, 10), 11, b"two")).await.unwrap();
    for after in [place(1, 10), place(2, 10), place(3, 11), place(0, 0)] {
        let outcome = engine.append(&entry(after, 12, b"three")).await;
        assert!(matches!(outcome, Err(AppendFailure::Conflict)), "{after:?}: {outcome:?}");
    }
    for after in [START, place(2, 11)] {
        let log_id = identity(7).log_id;
        let outcome = engine.append(&Entry { log_id, ..entry(after, 12, b"three") }).await;
        assert!(matches!(outcome, Err(AppendFailure::Conflict)), "{after:?}: {outcome:?}");
    }
    let big = vec![7; 7 << 20];
    engine.append(&entry(place(2, 11), 12, &big)).await.unwrap();
    let expected = [
        (Position(1), Bytes::from_static(b"one")),
        (Position(2), Bytes::from_static(b"two")),
        (Position(3), Bytes::from(big)),
    ];
    assert_eq!(follow_up(&mut follow, 3).await, expected);
    let mut other = engine.follow(Position(2)).await.unwrap();
    assert_eq!(follow_up(&mut other, 2).await, expected[1..]);
    assert_eq!(engine.read(Position(2)).await.unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(engine.read(Position(4)).await.unwrap(), None);
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!((look.first, look.newest), (Position(1), Position(3)));
}

#[tokio::test]
async fn a_row_is_followed_by_its_writers_word_or_after_a_commit_of_ones_own() {
    let (cluster, engine) = made().await;
    let insert = |position: u64| {
        format!(
            "INSERT INTO herald.batch VALUES ({position}, '{}', 1, 1, '\\x00')",
            Uuid::from_u128(u128::from(position))
        )
    };
    let mut follow = engine.follow(Position(1)).await.unwrap();
    sql(&cluster, &format!("UPDATE herald.log SET has_begun = true; {}", insert(1))).await;
    assert_eq!(positions(&follow_up(&mut follow, 1).await), [1]);

    // From here on a barrier would be an error: it is the writer's word that counts.
    let role = "CREATE ROLE lesser LOGIN; GRANT ALL ON SCHEMA herald TO lesser;
                GRANT ALL ON ALL TABLES IN SCHEMA herald TO lesser";
    sql(&cluster, role).await;
    let reader = super::engine(&cluster.url().replace("postgres@", "lesser@"));
    let mut follow = reader.follow(Position(2)).await.unwrap();
    let take =
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC";
    sql(&cluster, take).await;
    engine.append(&entry(place(1, 1), 2, b"two")).await.unwrap();
    assert_eq!(positions(&follow_up(&mut follow, 1).await), [2]);
    sql(&cluster, &insert(3)).await;
    let ended = loop {
        match follow.next().await {
            Ok(followed) => assert!(followed.batches.is_empty(), "{followed:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, EngineError::Away(_)), "{ended:?}");
}

#[tokio::test]
async fn what_goes_missing_or_is_not_what_was_stored_breaks_a_follower() {
    let (cluster, engine) = made().await;
    fill(&engine, 5).await;
    let broken = async |follow: &mut PostgresFollow| loop {
        match follow.next().await {
            Ok(_) => {}
            Err(EngineError::Broken(text)) => break text,
            Err(error) => panic!("{error:?}"),
        }
    };
    // A word about another batch than the one that is there.
    let mut follow = engine.follow(Position(6)).await.unwrap();
    sql(&cluster, &format!("NOTIFY herald, 'safe 6 {}'", Uuid::from_u128(7))).await;
    engine.append(&entry(place(5, 5), 6, b"")).await.unwrap();
    let text = broken(&mut follow).await;
    assert!(text.contains("position 6"), "{text}");
    // One in the middle.
    sql(&cluster, "DELETE FROM herald.batch WHERE position = 3").await;
    let mut follow = engine.follow(Position(1)).await.unwrap();
    let text = broken(&mut follow).await;
    assert!(text.contains("position 3 ") && text.contains("there: 4"), "{text}");
    // The newest, under a follower that has seen it, and before one that expects more.
    let mut follow = engine.follow(Position(6)).await.unwrap();
    assert_eq!(positions(&follow_up(&mut follow, 1).await), [6]);
    sql(&cluster, "DELETE FROM herald.batch WHERE position > 4").await;
    let text = broken(&mut follow).await;
    assert!(text.contains("position 4"), "{text}");
    assert!(matches!(engine.follow(Position(6)).await, Err(EngineError::Broken(_))));
    assert!(engine.follow(Position(5)).await.is_ok());
    // All of them: the log has a past, and does not begin again.
    sql(&cluster, "TRUNCATE herald.batch").await;
    let look = engine.look().await.unwrap().unwrap();
    assert!(look.is_hollow(), "{look:?}");
    let again = engine.append(&entry(START, 9, b"")).await;
    assert!(matches!(again, Err(AppendFailure::Conflict)), "{again:?}");
    sql(&cluster, "DROP SCHEMA herald CASCADE").await;
    assert_eq!(engine.look().await.unwrap(), None);
    assert!(matches!(engine.follow(Position(1)).await, Err(EngineError::Away(_))));
    let gone = engine.append(&entry(place(6, 6), 9, b"")).await;
    assert!(matches!(gone, Err(AppendFailure::Refused(_))), "{gone:?}");
}

#[tokio::test]
async fn the_oldest_are_forgotten_as_far_as_they_may_but_never_the_newest() {
    let (_cluster, engine) = made().await;
    let log_id = identity(1).log_id;
    let what = |trim_point, before_ms| Forgettable { log_id, trim_point, before_ms };
    engine.forget(what(u64::MAX >> 1, u64::MAX >> 1)).await.unwrap();
    fill(&engine, 10).await;
    let first = async || engine.look().await.unwrap().unwrap().first;
    // By offset and by time, whichever is less; a batch's time is a thousand times its offset here.
    for (trim_point, before_ms, left) in
        [(0, 99_000, 1), (2, 99_000, 3), (9, 4000, 4), (9, 4001, 5), (3, 4001, 5), (5, 99_000, 6)]
    {
        engine.forget(what(trim_point, before_ms)).await.unwrap();
        assert_eq!(first().await, Position(left), "{trim_point} {before_ms}");
    }
    // What is said of another log is not done to this one.
    let others = Forgettable { log_id: identity(2).log_id, ..what(99, 99_000) };
    engine.forget(others).await.unwrap();
    assert_eq!(first().await, Position(6));
    // A writer at work has perhaps not seen the newest: nothing goes until it has finished.
    let writer = engine.door.open().await.unwrap();
    let writer = &writer.client;
    writer.batch_execute("BEGIN; DELETE FROM herald.batch WHERE false").await.unwrap();
    engine.forget(what(99, 99_000)).await.unwrap();
    assert_eq!(first().await, Position(6));
    writer.batch_execute("COMMIT").await.unwrap();
    engine.forget(what(99, 99_000)).await.unwrap();
    assert_eq!(first().await, Position(10));
    engine.append(&entry(place(10, 10), 11, b"")).await.unwrap();
}

#[tokio::test]
async fn many_are_forgotten_in_steps() {
    let (cluster, engine) = made().await;
    let count = 2 * FORGOTTEN_ROWS + 1;
    let fill = format!(
        "UPDATE herald.log SET has_begun = true;
         INSERT INTO herald.batch SELECT n, gen_random_uuid(), n, 1000 * n, '\\x00'
         FROM generate_series(1, {count}) n"
    );
    sql(&cluster, &fill).await;
    let mut follow = engine.follow(Position(1)).await.unwrap();
    let all = follow_up(&mut follow, usize::try_from(count).unwrap()).await;
    assert!(positions(&all).into_iter().eq(1..=count.cast_unsigned()));
    let log_id = identity(1).log_id;
    let everything = Forgettable { log_id, trim_point: 1 << 40, before_ms: 1 << 40 };
    engine.forget(everything).await.unwrap();
    let look = engine.look().await.unwrap().unwrap();
    assert_eq!((look.first, look.newest), (look.newest, Position(count.cast_unsigned())));
}

#[tokio::test]
async fn an_append_says_whether_nothing_happened() {
    let (cluster, engine) = made().await;
    fill(&engine, 1).await;
    let trigger = |when: &str, what: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE {what}; RETURN NEW; END $$;
             DROP TRIGGER IF EXISTS raises ON herald.batch;
             CREATE CONSTRAINT TRIGGER raises AFTER INSERT ON herald.batch
                 DEFERRABLE INITIALLY {when} FOR EACH ROW EXECUTE FUNCTION raise()"
        )
    };
    for (when, what, is_refused) in [
        ("IMMEDIATE", "EXCEPTION USING ERRCODE = 'disk_full'", true),
        ("DEFERRED", "EXCEPTION USING ERRCODE = 'disk_full'", true),
        ("IMMEDIATE", "EXCEPTION USING ERRCODE = 'read_only_sql_transaction'", true),
        ("IMMEDIATE", "EXCEPTION USING ERRCODE = 'insufficient_privilege'", true),
        ("DEFERRED", "EXCEPTION USING ERRCODE = 'serialization_failure'", false),
        ("IMMEDIATE", "EXCEPTION USING ERRCODE = 'query_canceled'", false),
        ("IMMEDIATE", "EXCEPTION USING ERRCODE = 'admin_shutdown'", false),
    ] {
        sql(&cluster, &trigger(when, what)).await;
        match engine.append(&entry(place(1, 1), 2, b"two")).await {
            Err(AppendFailure::Refused(_)) if is_refused => {}
            Err(AppendFailure::Away(_)) if !is_refused => {}
            outcome => panic!("{what}: {outcome:?}"),
        }
        assert_eq!(engine.read(Position(2)).await.unwrap(), None, "{what}");
    }
    // A warning is as bad as no answer, although the row is there.
    sql(&cluster, &trigger("DEFERRED", "WARNING 'something'")).await;
    let outcome = engine.append(&entry(place(1, 1), 2, b"two")).await;
    assert!(matches!(outcome, Err(AppendFailure::Unknown(_))), "{outcome:?}");
    assert!(engine.read(Position(2)).await.unwrap().is_some());
    sql(&cluster, &trigger("IMMEDIATE", "NOTICE 'something'")).await;
    engine.append(&entry(place(2, 2), 3, b"three")).await.unwrap();
}

#[tokio::test]
async fn settings_of_a_role_do_not_weaken_a_session() {
    let (cluster, engine) = made().await;
    let weaken = "ALTER ROLE postgres SET synchronous_commit = off;
                  ALTER ROLE postgres SET client_min_messages = error;
                  ALTER ROLE postgres SET default_transaction_isolation = serializable";
    sql(&cluster, weaken).await;
    let session = engine.door.open().await.unwrap();
    let found = session
        .client
        .query_one(
            "SELECT current_setting('synchronous_commit'), current_setting('client_min_messages'),
                    current_setting('transaction_isolation')",
            &[],
        )
        .await
        .unwrap();
    let found: [&str; 3] = std::array::from_fn(|column| found.get(column));
    assert_eq!(found, ["on", "warning", "read committed"]);
    let stronger = "ALTER ROLE postgres SET synchronous_commit = remote_apply";
    sql(&cluster, stronger).await;
    let session = engine.door.open().await.unwrap();
    let found = session.client.query_one("SHOW synchronous_commit", &[]).await.unwrap();
    assert_eq!(found.get::<_, &str>(0), "remote_apply");
}

#[tokio::test]
async fn a_setting_that_makes_a_commit_worth_less_is_warned_of_by_name_once() {
    let (cluster, engine) = made().await;
    set(&cluster, "fsync", "off").await;
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    engine.look().await.unwrap();
    engine.look().await.unwrap();
    assert_eq!(logged.count("synchronous_standby_names"), 1);
    assert_eq!(logged.count("setting=\"fsync\""), 1);
    assert_eq!(logged.count("full_page_writes"), 0);
    set(&cluster, "full_page_writes", "off").await;
    while logged.count("full_page_writes") == 0 {
        engine.look().await.unwrap();
    }
    engine.look().await.unwrap();
    assert_eq!(logged.count("full_page_writes"), 1);
    assert_eq!(logged.count("setting=\"fsync\""), 2, "said again with what has changed");
}

#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn count(&self, what: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains("WARN") && line.contains(what)).count()
    }
}

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
