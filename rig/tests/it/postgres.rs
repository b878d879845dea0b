//! A real PostgreSQL primary with standbys.

use herald_rig::{
    Certificates, Cut,
    postgres::{Access, Cluster, Settings},
};

const COUNT: &str = "SELECT count(*) FROM batch";
const INSERT: &str = "INSERT INTO batch DEFAULT VALUES";

async fn with_table(settings: Settings) -> Cluster {
    let cluster = settings.start().await.expect("a cluster");
    let primary = cluster.primary().await.expect("a primary");
    let sql = "CREATE TABLE batch (position bigserial)";
    cluster.query_in(primary, "herald", sql).await.expect("a table");
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_promoted_with_all_that_was_committed_and_the_old_primary_follows_it() {
    let cluster = with_table(Settings::default()).await;
    cluster.query_in(0, "herald", INSERT).await.unwrap();
    cluster.kill(0);
    assert!(!cluster.is_running(0));
    let new = cluster.fail_over(0).await.unwrap();
    assert_ne!(new, 0);
    assert!(cluster.restart(0).is_err(), "it is fenced");
    assert_eq!(cluster.query_in(new, "herald", COUNT).await.unwrap(), "1");
    cluster.query_in(new, "herald", INSERT).await.unwrap();

    cluster.follow(0, new).await.unwrap();
    assert!(!cluster.is_primary(0).await.unwrap());
    assert_eq!(cluster.primary().await.unwrap(), new);
    cluster.ready().await.unwrap();
    assert!(cluster.url().ends_with("/herald?target_session_attrs=read-write"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_for_a_standby() {
    let cluster = with_table(Settings { linked: true, ..Settings::default() }).await;
    // One is enough.
    cluster.stop(1);
    cluster.query_in(0, "herald", INSERT).await.unwrap();
    cluster.cut(0, 2, Cut::Reset);
    let commit = cluster.query_in(0, "herald", INSERT);
    let heals_once_it_waits = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while cluster.query(0, waits).await.unwrap() != "1" {}
        cluster.heal();
    };
    tokio::join!(commit, heals_once_it_waits).0.unwrap();
    cluster.go_on(1);
    cluster.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_serves_several_tests_with_password_and_tls_and_loses_what_is_put_back() {
    let certificates = tempfile::tempdir().unwrap();
    let tls = Certificates::make(certificates.path()).unwrap();
    let settings =
        Settings { nodes: 1, tls: Some(tls), access: Access::Password, ..Settings::default() };
    let cluster = with_table(settings).await;
    let other = cluster.database("other").await.unwrap();
    assert!(other.ends_with("/other?target_session_attrs=read-write&sslmode=require"), "{other}");

    cluster.terminate(0).await.unwrap();
    let kept = cluster.keep(0).await.unwrap();
    cluster.restart(0).unwrap();
    cluster.ready().await.unwrap();
    cluster.query_in(0, "herald", INSERT).await.unwrap();
    assert_eq!(cluster.query_in(0, "herald", COUNT).await.unwrap(), "1");
    cluster.kill(0);
    cluster.put_back(0, &kept).await.unwrap();
    cluster.restart(0).unwrap();
    cluster.ready().await.unwrap();
    assert_eq!(cluster.query_in(0, "herald", COUNT).await.unwrap(), "0");
}
