//! Signed-in clients that nobody here wrote: npm's oauth4webapi gets tokens and makes proofs, npm's eventsource streams.

use std::{fs, process::Command};

use herald_auth::Algorithm;
use serde_json::{Value, json};

use super::{issuer, program, run, script};
use crate::support::{cli::Running, server::Server};

pub(super) const READ: &str = "nhn:msh/api";
pub(super) const PUBLISH: &str = "nhn:msh/notifications-publish";
/// The HER-id of the client's organisation that the calls are about.
const OWN: &str = "7";
/// One of another organisation.
const OTHERS: &str = "9";
/// How often a stream must connect: its token ends it each time.
pub(super) const CONNECTIONS: usize = 3;
/// The client's key.
pub(super) const KEY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../herald-auth/tests/keys/p256.jwk.json");

pub(super) fn both_scopes() -> String {
    format!("{READ} {PUBLISH}")
}

/// What a token says of its client beside the usual.
pub(super) fn claims() -> Value {
    json!({
        "helseid://claims/client/claims/orgnr_parent": "310000000",
        "nhn:msh/client/claims/herid": "0",
    })
}

/// A server that takes the tokens of this issuer, for a client whose organisation has 7 and 8.
pub(super) async fn server(home: &tempfile::TempDir, issuer: &str) -> Server {
    let organisations = home.path().join("organisations.json");
    let known = json!({"310000000": [7, 8], "310000001": [9]});
    fs::write(&organisations, known.to_string()).expect("it can be written");
    let organisations = organisations.to_str().expect("a path");
    let auth = ["--auth", "helseid", "--issuer", issuer, "--organisations", organisations];
    Server::start(&home.path().join("data"), &auth).await
}

/// `herald dev issuer` with one client, whose tokens last so long.
fn dev_issuer(home: &tempfile::TempDir, lifetime: &str) -> (Running, String) {
    let clients = home.path().join("clients.json");
    let client = json!({
        "client_id": "journal", "keys": [issuer::public_jwk(Algorithm::Es256)],
        "scopes": [READ, PUBLISH], "lifetime": lifetime, "claims": claims(),
    });
    fs::write(&clients, json!({ "clients": [client] }).to_string()).expect("it can be written");
    issuer::issuer(&clients, Algorithm::Rs256)
}

/// A script that signs in as the client, with these last arguments.
fn node(name: &str, issuer: &str, server: &Server, more: &[&str]) -> Command {
    let mut node = program("node");
    node.arg(script(name)).args([issuer, &server.url(), "journal", KEY, &both_scopes(), OWN]);
    node.args(more);
    node
}

/// Has oauth4webapi make every call with these algorithms of proofs, and judges the answers.
pub(super) fn calls_are_answered(issuer: &str, server: &Server, algorithms: &[Algorithm]) {
    let names = algorithms.iter().map(|algorithm| algorithm.name());
    let more: Vec<&str> = std::iter::once(OTHERS).chain(names).collect();
    let output = run(&mut node("signed_in.mjs", issuer, server, &more));
    let output = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), algorithms.len());
    let mut offsets = Vec::new();
    for (line, algorithm) in lines.iter().zip(algorithms) {
        assert_eq!(line["algorithm"], algorithm.name());
        assert_eq!(line["appended"]["status"], 201, "{line}");
        offsets.push(line["appended"]["body"]["notifications"][0]["offset"].clone());
        assert_eq!(line["polled"]["status"], 200, "{line}");
        let page = line["polled"]["body"]["notifications"].as_array().expect("an array");
        assert!(page.iter().map(|one| &one["offset"]).eq(&offsets), "{line}");

        let refused = &line["refused"];
        assert_eq!(
            (&refused["status"], &refused["body"]["errorCode"]),
            (&403.into(), &1202.into())
        );
        assert_eq!(refused["body"]["detail"], "No access to HER-id 9.");

        let replayed = &line["replayed"];
        assert_eq!(replayed["status"], 401, "{line}");
        assert_eq!(replayed["body"]["type"], "urn:herald:problem:unauthenticated", "{line}");
        let algs = Algorithm::ALL.map(Algorithm::name).join(" ");
        let why = "The proof is not accepted: it was used before.";
        let challenge =
            json!({"error": "invalid_dpop_proof", "error_description": why, "algs": algs});
        assert_eq!(replayed["challenges"], json!([{"scheme": "dpop", "parameters": challenge}]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn oauth4webapi_calls_with_proofs_of_every_algorithm() {
    let home = tempfile::tempdir().expect("a directory");
    let (_issuer, url) = dev_issuer(&home, "10m");
    let server = server(&home, &url).await;
    calls_are_answered(&url, &server, &Algorithm::ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn npm_eventsource_outlives_its_tokens_without_gap_or_repeat() {
    let home = tempfile::tempdir().expect("a directory");
    let (_issuer, url) = dev_issuer(&home, "3s");
    let server = server(&home, &url).await;
    let enough = CONNECTIONS.to_string();
    let more = [Algorithm::Es256.name(), &enough];
    let output = run(&mut node("signed_in_stream.mjs", &url, &server, &more));
    let output = String::from_utf8(output.stdout).expect("text");
    let (mut appended, mut streamed, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for line in output.lines() {
        match line.split_once(' ').expect("a word and what it is about") {
            ("appended", offset) => appended.push(offset.parse::<u64>().expect("an offset")),
            ("connected", so_far) => tokens.push(so_far.parse::<usize>().expect("a number")),
            ("streamed", event) => {
                let (id, data) = event.split_once(' ').expect("an id and data");
                let data: Value = serde_json::from_str(data).expect("a notification");
                assert_eq!(data["offset"].to_string(), id);
                streamed.push(id.parse::<u64>().expect("an offset"));
            }
            (word, _) => panic!("it printed {word}"),
        }
    }
    // Answers to appends may overtake each other.
    appended.sort_unstable();
    assert_eq!(streamed, appended);
    assert!(tokens.iter().copied().eq(1..=CONNECTIONS), "{tokens:?}");
}
