//! `herald log seed`: a log moves between a single node and engines, and clients go on.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{collections::BTreeMap, path::Path};

use herald_rig::{nats, postgres};
use rand::{SeedableRng as _, rngs::StdRng};

use crate::support::{
    cli::{Ended, Running, run},
    drafts::{Draft, ndjson},
    server::Server,
};

const HER_ID: &str = "7";

/// Engines, and how many logs of its own each has been asked for.
struct Engines {
    nats: nats::Cluster,
    postgres: postgres::Cluster,
    made: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Nats,
    Postgres,
}

impl Engines {
    async fn start() -> Self {
        let nats = nats::Cluster::start(1).await.unwrap();
        Self { nats, postgres: postgres::Cluster::start_alone().await.unwrap(), made: 0 }
    }

    /// The URL of a place for a log that nobody has used.
    async fn fresh(&mut self, kind: Kind) -> String {
        self.made += 1;
        let name = format!("seeded_{}", self.made);
        match kind {
            Kind::Nats => format!("{}?stream={name}", self.nats.url()),
            Kind::Postgres => self.postgres.database(&name).await.unwrap(),
        }
    }
}

fn seed(from: &Path, log: &str) -> Ended {
    run(&["log", "seed", "--from", from.to_str().unwrap(), "--log", log])
}

fn append(server: &Server, random: &mut StdRng, count: usize) {
    let drafts: Vec<Draft> =
        (0..count).map(|_| Draft::random(random, &[HER_ID.parse().unwrap()])).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, ndjson(&drafts)).unwrap();
    let path = file.path().to_str().unwrap();
    let ended = run(&["append", "--url", &server.url(), "--file", path]);
    assert_eq!((ended.code, ended.lines().len()), (0, count), "{}", ended.stderr);
}

/// What a client gets that goes on from its checkpoint, which is refused for another history.
fn stream(server: &Server, checkpoint: &Path, count: usize) -> Vec<String> {
    let (url, checkpoint, count) = (server.url(), checkpoint.to_str().unwrap(), count.to_string());
    let flags = ["--checkpoint", checkpoint, "--checkpoint-every", "100ms", "--max", &count];
    let ended = run(
        &[&["stream", "--url", &url, "--her-id", HER_ID, "--offset", "0"][..], &flags].concat()
    );
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.lines().into_iter().map(str::to_owned).collect()
}

/// All that there is, page by page.
fn poll(server: &Server) -> Vec<String> {
    let url = server.url();
    let ended =
        run(&["poll", "--url", &url, "--her-id", HER_ID, "--offset", "0", "--follow-pages"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.lines().into_iter().map(str::to_owned).collect()
}

fn contents(dir: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

/// Moves a log through `kinds`, beginning with a single node; on each it is appended to, and one client reads all along.
async fn move_through(engines: &mut Engines, kinds: &[Kind]) {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("checkpoint");
    let (mut random, mut log) = (StdRng::seed_from_u64(8), "local".to_owned());
    let (mut seen, mut all) = (Vec::new(), Vec::new());
    for hop in 0..=kinds.len() {
        let data = dir.path().join(format!("data-{hop}"));
        let server = Server::start(&data, &["--log", &log]).await;
        assert_eq!(poll(&server), all, "hop {hop}");
        append(&server, &mut random, 300);
        seen.extend(stream(&server, &checkpoint, 300));
        all = poll(&server);
        assert_eq!(seen, all, "hop {hop}: nothing is missed and nothing comes again");
        if hop > 0 {
            // A replica of the log before builds its copy again, and has the same.
            let old = dir.path().join(format!("data-{}", hop - 1));
            let old = Server::start(&old, &["--log", &log]).await;
            assert_eq!(poll(&old), all, "hop {hop}");
        }
        let Some(kind) = kinds.get(hop) else { return };
        log = engines.fresh(*kind).await;
        let refused = seed(&data, &log);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{}", refused.stderr);
        assert!(refused.last_word().contains("is in use by another process"), "{}", refused.stderr);
        server.stop();

        let before = contents(&data);
        let seeded = seed(&data, &log);
        assert_eq!(seeded.code, 0, "{kind:?}: {}", seeded.stderr);
        assert!(contents(&data) == before, "the directory is as it was");
        let told: serde_json::Value = serde_json::from_str(&seeded.stdout).unwrap();
        let tail = told["tail"].as_u64().unwrap();
        assert_eq!(told["records"], all.len());
        assert_eq!(told["nextOffset"], tail + 1_000_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_moves_between_a_single_node_and_all_engines_and_clients_go_on() {
    use Kind::{Nats, Postgres};
    let mut engines = Engines::start().await;
    move_through(&mut engines, &[Nats, Postgres, Postgres, Nats, Nats]).await;
    move_through(&mut engines, &[Postgres]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeding_that_is_killed_is_gone_on_with_and_an_engine_with_a_log_is_refused() {
    let mut engines = Engines::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]).await;
    append(&server, &mut StdRng::seed_from_u64(9), 20_000);
    let all = poll(&server);
    server.stop();
    for kind in [Kind::Nats, Kind::Postgres] {
        let log = engines.fresh(kind).await;
        for _ in 0..3 {
            let args = ["log", "seed", "--from", data.to_str().unwrap(), "--log", &log];
            let mut killed = Running::start(&args);
            killed.heard_on_stderr();
        }
        let seeded = seed(&data, &log);
        assert_eq!(seeded.code, 0, "{kind:?}: {}", seeded.stderr);
        let server = Server::start(&dir.path().join(format!("{kind:?}")), &["--log", &log]).await;
        assert!(poll(&server) == all);
        append(&server, &mut StdRng::seed_from_u64(1), 1);

        let other = dir.path().join(format!("other-{kind:?}"));
        Server::start(&other, &[]).await.stop();
        let refused = seed(&other, &log);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{}", refused.stderr);
        assert!(refused.stderr.contains("has a log of history"), "{}", refused.stderr);
    }
}

#[test]
fn what_cannot_be_seeded_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    for (log, code, told) in [
        ("local", 2, "a local log is not seeded"),
        ("redis://127.0.0.1:1", 2, "must be local, nats://"),
        ("nats://127.0.0.1:1", 1, "could not read"),
    ] {
        let ended = seed(&missing, log);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, ""), "{log}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{log}: {}", ended.stderr);
    }
    let empty = seed(dir.path(), "nats://127.0.0.1:1");
    assert_eq!(empty.code, 1);
    assert!(empty.stderr.contains("there is no whole log here"), "{}", empty.stderr);
    assert_eq!(contents(dir.path()).len(), 0);
}
