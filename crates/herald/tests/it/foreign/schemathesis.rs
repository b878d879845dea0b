//! schemathesis reads the OpenAPI document and looks for requests whose answers break it.

use super::{program, run, tools};
use crate::support::{
    http::{client, identified},
    server::Server,
};

/// Cases that it makes for each operation, on top of its fixed ones.
const EXAMPLES_MAX: &str = "60";
/// The same cases in every run.
const SEED: &str = "20260508";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn schemathesis_finds_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    // A stream that it opens must end soon for it to judge the answer.
    let flags = ["--stream-max-age", "1s"];
    let server = Server::start(&home.path().join("data"), &flags).await;
    let ping = client().get(format!("{}/ping", server.url()));
    assert_eq!(identified(ping).send().await.expect("an answer").status(), 200);
    let output = run(program(tools().join("python/bin/schemathesis"))
        .args(["run", "--checks", "all", "--max-examples", EXAMPLES_MAX, "--seed", SEED])
        .args(["--request-timeout", "20", "--no-color", "--generation-database", "none"])
        .arg(format!("{}/openapi.json", server.url()))
        .current_dir(home.path()));
    println!("{}", String::from_utf8_lossy(&output.stdout));
}
