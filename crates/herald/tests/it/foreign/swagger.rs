//! The Swagger page as a person uses it: in a browser, with no network but the server itself.

use serde::Deserialize;

use super::{program, run, script};
use crate::support::{
    drafts::{AppendAnswer, Draft, json},
    http::{client, identified},
    server::Server,
};
use rand::{SeedableRng as _, rngs::StdRng};

const HER_ID: u32 = 8_139_764;

/// What the page showed.
#[derive(Debug, Deserialize)]
struct Shown {
    status: String,
    body: String,
    asked: Vec<String>,
    problems: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs tools: cargo xtask foreign"]
async fn a_poll_can_be_tried_out_on_the_swagger_page_without_a_network() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(&home.path().join("data"), &[]).await;
    let mut draft = Draft::random(&mut StdRng::seed_from_u64(1), &[HER_ID]);
    draft.description = "Seen in a browser".to_owned();
    let post = identified(client().post(format!("{}/notifications", server.url())));
    let post = post.header("content-type", "application/json").body(json(&[draft]));
    let answer = post.send().await.expect("an append is answered").text().await.expect("a body");
    serde_json::from_str::<AppendAnswer>(&answer).expect("an answer to an append");

    let picture = home.path().join("swagger.png");
    let mut browser = program("node");
    browser.arg(script("swagger.mjs")).arg(server.url()).arg(HER_ID.to_string()).arg(&picture);
    let output = run(&mut browser);
    if let Some(kept) = std::env::var_os("HERALD_PICTURE") {
        std::fs::copy(&picture, kept).expect("the picture can be kept");
    }
    let shown: Shown = serde_json::from_slice(&output.stdout).expect("what the page showed");
    assert_eq!(shown.status, "200", "{shown:?}");
    assert!(shown.body.contains("Seen in a browser"), "{shown:?}");
    assert_eq!(shown.problems, [] as [&str; 0]);
    let is_own = |address: &&String| {
        address.starts_with(&server.url())
            || address.starts_with("data:")
            || address.starts_with("blob:")
    };
    let away: Vec<_> = shown.asked.iter().filter(|address| !is_own(address)).collect();
    assert!(away.is_empty(), "asked for {away:?}");
}
