//! What a server and a command say has no token, proof or key in it; and the tests would notice.

use std::fs;

use crate::support::{cli::run, secrets::found_in, server::Server};

/// Put together here, so that the output of a failing test has none.
fn token() -> String {
    ["eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ", "eyJleHAiOjF9", "c2ln"].join(".")
}

#[tokio::test]
async fn a_refused_token_leaves_its_reason_in_the_log_and_nothing_of_itself() {
    let directory = tempfile::tempdir().unwrap();
    let organisations = directory.path().join("organisations.json");
    fs::write(&organisations, "{}").unwrap();
    let issuer = herald_issuer::Issuer::start(herald_issuer::IssuerSettings::new(Vec::new()));
    let issuer = issuer.await.unwrap();
    let flags = ["--auth", "helseid", "--issuer", issuer.url(), "--organisations"];
    let flags = [&flags[..], &[organisations.to_str().unwrap(), "--auth-explain"]].concat();
    let server = Server::start(&directory.path().join("data"), &flags).await;
    let client = crate::support::http::client();
    let url = format!("{}/notifications?HerIds=1&Offset=0&token={}", server.url(), token());
    for authorization in [format!("DPoP {}", token()), format!("Bearer {}", token()), token()] {
        let request = client.get(&url).header("authorization", authorization);
        let request = request.header("dpop", token()).header("cookie", token());
        let refused = request.header("nhn-source-system", token()).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        let head = format!("{:?}", refused.headers());
        let body = refused.text().await.unwrap();
        assert_eq!((found_in(&head), found_in(&body)), (None, None), "{}", body.len());
    }
    server.signal("-TERM");
    let (_, log) = server.ended();
    for trace in ["\"reason\":\"token-key: ", "\"reason\":\"scheme: ", "\"message\":\"answered\""] {
        assert!(log.iter().any(|line| line.contains(trace)), "{trace}");
    }
    // For whoever looks at the output of the whole suite.
    for line in log.iter().filter(|line| line.contains("\"reason\"")) {
        println!("{line}");
    }
}

/// The checks of this suite can fail.
#[test]
#[should_panic(expected = "has written a signed object")]
fn a_command_that_repeats_a_token_is_noticed() {
    run(&["poll", "--offset", &token(), "--her-id", "1"]);
}

#[tokio::test]
#[should_panic(expected = "has written a signed object")]
async fn a_server_that_logs_a_token_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    // The settings are logged as they are, and this name of a directory is one.
    Server::start(&directory.path().join(token()), &[]).await;
}
