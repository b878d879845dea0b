//! A client that openapi-generator makes of the document: it compiles, and it polls.

use std::path::Path;

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use super::{program, run, script, tools};
use crate::support::{
    drafts::{Draft, json},
    http::{client, identified, poll_through},
    server::Server,
};

const HER_IDS: [u32; 2] = [90_215, 8_139_764];
const COUNT: usize = 100;
/// Of a notification, what the reader prints; the generated client reads `createdAt` into a type of its own.
const FIELDS: [&str; 4] = ["notificationId", "type", "description", "offset"];

/// Makes the client and compiles it together with the reader that uses it.
async fn compile(server: &Server, home: &Path) {
    let document = client().get(format!("{}/openapi.json", server.url())).send().await;
    let document = document.expect("the document is answered").text().await.expect("a body");
    std::fs::write(home.join("openapi.json"), document).expect("a file can be written");
    run(program(tools().join("python/bin/openapi-generator-cli"))
        .args(["generate", "-g", "typescript-fetch", "-i", "openapi.json", "-o", "client"])
        .args(["--strict-spec", "true"])
        .args(["--additional-properties", "importFileExtension=.js,stringEnums=false"])
        .current_dir(home));
    std::fs::copy(script("generated_reader.ts"), home.join("reader.ts")).expect("a script of ours");
    std::fs::write(home.join("package.json"), r#"{"type":"module"}"#).expect("a file");
    run(program("node")
        .arg(tools().join("node/node_modules/typescript/bin/tsc"))
        .args(["--strict", "--target", "es2022", "--module", "nodenext"])
        .args(["--lib", "es2022,dom,dom.iterable", "reader.ts"])
        .current_dir(home));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn a_client_generated_from_the_document_compiles_and_polls() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(&home.path().join("data"), &[]).await;
    compile(&server, home.path()).await;

    let mut rng = StdRng::seed_from_u64(3);
    let drafts: Vec<_> = (0..COUNT).map(|_| Draft::random(&mut rng, &HER_IDS)).collect();
    let post = identified(client().post(format!("{}/notifications", server.url())));
    let post = post.header("content-type", "application/json").body(json(&drafts));
    assert_eq!(post.send().await.expect("an append is answered").status(), 201);

    let mut reader = program("node");
    reader.arg("reader.js").arg(server.url()).args(HER_IDS.map(|her_id| her_id.to_string()));
    let output = run(reader.current_dir(home.path()));
    let printed = String::from_utf8(output.stdout).expect("a reader prints text");
    let printed = printed.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let log = poll_through(&client(), &server.url(), &HER_IDS, 0).await;
    assert_eq!(log.len(), COUNT);
    let log = log.iter().map(|(_, object)| {
        let mut object: Value = serde_json::from_str(object).expect("an object");
        let fields = object.as_object_mut().expect("an object");
        fields.retain(|name, _| FIELDS.contains(&name.as_str()));
        object
    });
    assert!(printed.eq(log), "the generated client is given the log");
}
