//! Who may do what, and over what: the schema, roles, passwords and TLS.

use herald_rig::{
    Certificates,
    postgres::{Access, Settings},
};

use super::*;

fn unfit<T: std::fmt::Debug>(outcome: Result<T, EngineError>) -> String {
    match outcome {
        Err(EngineError::Unfit(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_that_make_the_schema_at_once_make_one() {
    let cluster = Cluster::start_alone().await.unwrap();
    let mut makers = tokio::task::JoinSet::new();
    for seed in 0..6 {
        let url = cluster.url();
        makers.spawn(async move {
            let engine = engine(&url);
            assert_eq!(engine.look().await.ok().flatten().map(|look| look.first), None);
            engine.create(&identity(seed * 10)).await.unwrap();
            engine.look().await.unwrap().unwrap().identity.log_id
        });
    }
    let mut found = makers.join_all().await;
    found.dedup();
    assert_eq!(found.len(), 1, "all agree: {found:?}");
    let versions = sql(&cluster, "SELECT version FROM herald.migration").await;
    assert_eq!(versions, schema::VERSION.to_string());
    // A schema of a newer Herald is no obstacle, unless it says that it is one.
    let engine = engine(&cluster.url());
    sql(&cluster, "INSERT INTO herald.migration VALUES (2, 1)").await;
    assert!(engine.look().await.unwrap().is_some());
    sql(&cluster, "INSERT INTO herald.migration VALUES (3, 2)").await;
    let text = unfit(super::engine(&cluster.url()).look().await);
    assert!(text.contains("version 3") && text.contains("newer Herald"), "{text}");
    unfit(super::engine(&cluster.url()).create(&identity(1)).await);
}

#[tokio::test]
async fn what_a_role_lacks_is_said_by_name() {
    let cluster = Cluster::start_alone().await.unwrap();
    let url = cluster.url().replace("postgres@", "lesser@");
    let lesser = || engine(&url);
    let text = unfit(lesser().look().await);
    assert!(text.contains("role \"lesser\" does not exist"), "{text}");
    // Not as long as another one does not answer: that may be the primary.
    let silent = url.replace("/herald", ",127.0.0.1:1/herald");
    let Err(EngineError::Away(source)) = engine(&silent).look().await else { panic!("{silent}") };
    assert!(source.to_string().contains("role \"lesser\" does not exist"), "{source}");
    sql(&cluster, "CREATE ROLE lesser LOGIN").await;
    assert_eq!(lesser().look().await.unwrap(), None);
    let text = unfit(lesser().create(&identity(1)).await);
    assert!(text.contains("CREATE"), "{text}");
    // Whoever owns a schema need not be allowed to make one.
    sql(&cluster, "CREATE SCHEMA herald AUTHORIZATION lesser").await;
    assert_eq!(lesser().look().await.unwrap(), None);
    lesser().create(&identity(1)).await.unwrap();
    sql(&cluster, "DROP SCHEMA herald CASCADE").await;

    engine(&cluster.url()).create(&identity(1)).await.unwrap();
    for (missing, grant) in [
        ("USAGE on the schema herald", "GRANT USAGE ON SCHEMA herald TO lesser"),
        ("SELECT on herald.migration", "GRANT SELECT ON herald.migration TO lesser"),
        ("INSERT on herald.log", "GRANT SELECT, INSERT, UPDATE ON herald.log TO lesser"),
        ("INSERT on herald.batch", "GRANT SELECT, INSERT ON herald.batch TO lesser"),
        ("lacks DELETE on herald.batch", "GRANT DELETE ON herald.batch TO lesser"),
    ] {
        let text = unfit(lesser().look().await);
        assert!(text.contains(missing), "{missing}: {text}");
        sql(&cluster, grant).await;
    }
    // That is all it takes.
    let replica = lesser();
    replica.look().await.unwrap().unwrap();
    replica.append(&entry(START, 1, b"")).await.unwrap();
    replica.append(&entry(place(1, 1), 2, b"")).await.unwrap();
    follow_up(&mut replica.follow(Position(1)).await.unwrap(), 2).await;
    let log_id = identity(1).log_id;
    replica.forget(Forgettable { log_id, trim_point: 9, before_ms: 9999 }).await.unwrap();
    let look = replica.look().await.unwrap().unwrap();
    assert_eq!(look.first, Position(2));
    replica.seeded(&look.identity).await.unwrap();
    unfit(replica.seeded(&identity(77)).await);
    // Taken away while it runs, and given again.
    sql(&cluster, "REVOKE INSERT ON herald.batch FROM lesser").await;
    let refused = replica.append(&entry(place(2, 2), 3, b"")).await;
    assert!(matches!(refused, Err(AppendFailure::Refused(_))), "{refused:?}");
    sql(&cluster, "GRANT INSERT ON herald.batch TO lesser").await;
    replica.append(&entry(place(2, 2), 3, b"")).await.unwrap();
    let emit = "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC;
                REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, bytea) FROM PUBLIC";
    sql(&cluster, emit).await;
    let text = unfit(lesser().look().await);
    assert!(text.contains("EXECUTE on FUNCTION pg_logical_emit_message"), "{text}");
}

#[tokio::test]
async fn a_server_that_only_reads_is_not_the_primary() {
    let cluster = Cluster::start_alone().await.unwrap();
    set(&cluster, "default_transaction_read_only", "on").await;
    let error = engine(&cluster.url()).look().await.unwrap_err();
    let EngineError::Away(source) = error else { panic!("{error:?}") };
    assert!(source.to_string().contains("read only"), "{source}");
    let nobody = engine("postgres://postgres@127.0.0.1:1/postgres");
    assert!(matches!(nobody.look().await, Err(EngineError::Away(_))));
    assert!(matches!(nobody.append(&entry(START, 1, b"")).await, Err(AppendFailure::Away(_))));
}

const PASSWORD: &str = "p:w@s/ecret%";
const IN_URL: &str = "p%3Aw%40s%2Fecret%25";

#[tokio::test]
async fn certificates_and_passwords_are_looked_at_as_the_url_says() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = Certificates::make(dir.path()).unwrap();
    let wrong = Certificates::make(other.path()).unwrap().ca;
    let ca = tls.ca.clone();
    let settings =
        Settings { nodes: 1, access: Access::Password, tls: Some(tls), ..Settings::default() };
    let cluster = settings.start().await.unwrap();
    sql(&cluster, &format!("CREATE ROLE herald LOGIN PASSWORD '{PASSWORD}'")).await;
    let port = cluster.addresses()[0].port();
    let try_out = async |user: &str, host: &str, query: &str, ca_file: Option<&std::path::Path>| {
        let url = format!("postgres://{user}@{host}:{port}/herald?hostaddr=127.0.0.1{query}");
        let engine = engine_with(&url, ca_file.map(Into::into)).unwrap();
        let outcome = engine.look().await;
        let said = format!("{outcome:?} {}", engine.address());
        assert!(!said.contains("ecret"), "{said}");
        outcome
    };
    let user = &*format!("herald:{IN_URL}");
    let good = format!("&sslrootcert={}", ca.display());
    let bad = format!("&sslrootcert={}", wrong.display());
    for (host, query) in [
        ("localhost", format!("&sslmode=verify-full{good}")),
        ("127.0.0.1", format!("&sslmode=verify-full{good}")),
        ("elsewhere", format!("&sslmode=verify-ca{good}")),
        ("elsewhere", format!("&sslmode=require{good}")),
        ("elsewhere", "&sslmode=require".to_owned()),
        ("elsewhere", "&target_session_attrs=read-write".to_owned()),
    ] {
        let outcome = try_out(user, host, &query, None).await;
        assert!(matches!(outcome, Ok(None)), "{host} {query}: {outcome:?}");
    }
    for (host, query, said) in [
        ("elsewhere", format!("&sslmode=verify-full{good}"), "certificate"),
        ("localhost", format!("&sslmode=verify-full{bad}"), "certificate"),
        ("localhost", "&sslmode=verify-full".to_owned(), "certificate"),
        ("localhost", format!("&sslmode=verify-ca{bad}"), "certificate"),
        ("localhost", format!("&sslmode=require{bad}"), "certificate"),
        ("localhost", "&sslmode=disable".to_owned(), "pg_hba.conf"),
    ] {
        let text = unfit(try_out(user, host, &query, None).await);
        assert!(text.contains(said), "{host} {query}: {text}");
    }
    // The file of the settings, and everything verified where the URL says nothing.
    assert!(matches!(try_out(user, "localhost", "", Some(&ca)).await, Ok(None)));
    unfit(try_out(user, "elsewhere", "", Some(&ca)).await);
    let text = unfit(try_out("herald:wrong-secret", "localhost", "", None).await);
    assert!(text.contains("password authentication failed"), "{text}");
    let text = unfit(try_out("herald", "localhost", "", None).await);
    assert!(text.contains("password missing"), "{text}");
}
