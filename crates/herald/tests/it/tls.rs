//! TLS through the real binary: its settings, its commands, and what it says when it is open to others.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::support::{
    certificates::Certificates,
    cli::run,
    http,
    server::{Server, herald},
};

const DRAFT: [&str; 6] = [
    "--her-id",
    "8139764",
    "--type",
    "NewMessage",
    "--message-id",
    "0f84d750-8ce3-4471-a1ac-ab7a55e609c0",
];

#[tokio::test]
async fn the_commands_speak_tls_and_an_append_needs_its_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Certificates::new(dir.path());
    let path = |name| made.path(name);
    let (cert, key, ca) = (path("server.pem"), path("server-key.pem"), path("ca.pem"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let server = Server::start(&dir.path().join("data"), &flags).await;
    let url = format!("https://{}", server.api);
    let (client, client_key) = (path("client.pem"), path("client-key.pem"));
    let to = ["--url", &url, "--ca-cert", &ca];
    let with = [&to[..], &["--client-cert", &client, "--client-key", &client_key]].concat();

    let appended = run(&[&["append"], &DRAFT[..], &with].concat());
    assert_eq!((appended.code, appended.lines().len()), (0, 1), "{}", appended.stderr);
    let refused = run(&[&["append"], &DRAFT[..], &to].concat());
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    let said = refused.last_word();
    assert!(said.contains("403") && said.contains("client certificate"), "{said}");

    let read = ["--her-id", "8139764", "--offset", "0"];
    let polled = run(&[&["poll"], &read[..], &to].concat());
    assert_eq!((polled.code, polled.lines().len()), (0, 1), "{}", polled.stderr);
    let streamed = run(&[&["stream"], &read[..], &to, &["--max", "1"]].concat());
    assert_eq!((streamed.code, &streamed.stdout), (0, &polled.stdout), "{}", streamed.stderr);
    // Without --ca-cert the issuer is a stranger.
    let stranger = run(&[&["poll", "--url", &url], &read[..]].concat());
    assert_eq!((stranger.code, stranger.stdout.as_str()), (1, ""));
    assert!(stranger.stderr.contains("certificate"), "{}", stranger.stderr);
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Certificates::new(dir.path());
    let path = |name| made.path(name);
    let (client, key) = (path("client.pem"), path("client-key.pem"));
    let (other, nowhere) = (path("other-key.pem"), path("nowhere.pem"));
    for (flags, code, says) in [
        (["--ca-cert", &nowhere, "--ca-cert", &nowhere], 2, "--ca-cert"),
        (["--url", "https://localhost:1", "--ca-cert", &nowhere], 2, "nowhere.pem"),
        (["--url", "https://localhost:1", "--ca-cert", &key], 2, "trusted certificates"),
        (["--client-cert", &client, "--client-key", &other], 2, "client certificate"),
        (["--client-cert", &client, "--url", "https://localhost:1"], 2, "--client-key"),
    ] {
        let read = ["poll", "--her-id", "8139764", "--offset", "0"];
        let ended = run(&[&read[..], &flags].concat());
        assert_eq!(ended.code, code, "{flags:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(says), "{flags:?}: {}", ended.stderr);
    }
}

#[test]
fn a_server_whose_key_is_anothers_does_not_start_and_names_the_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Certificates::new(dir.path());
    let (cert, key) = (made.path("server.pem"), made.path("other-key.pem"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key];
    let server = Server::launch(&dir.path().join("data"), &flags).listening();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(1));
    let last = log.last().expect("a line");
    let says =
        format!("could not serve over TLS: {key} is not the key of the certificate in {cert}");
    assert!(last.contains(&says), "{last}");
}

/// The messages at `warn` up to being ready, and the two samples of `herald_insecure`.
async fn insecurity(flags: &[&str]) -> (Vec<String>, Vec<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = herald()
        .args(["serve", "--ops-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let (mut warned, mut ops) = (Vec::new(), None);
    let lines = stderr.lines().map_while(Result::ok);
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
    for line in lines.by_ref() {
        let message = line["message"].as_str().expect("a text").to_owned();
        match (line["level"].as_str(), message.as_str()) {
            (Some("WARN"), _) => warned.push(message),
            (_, "listening") => ops = line["ops"].as_str().map(str::to_owned),
            (_, "ready") => break,
            _ => {}
        }
    }
    let url = format!("http://{}/metrics", ops.expect("it listens"));
    let text = http::client().get(url).send().await.expect("metrics").text().await.expect("text");
    let mut samples: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("herald_insecure"))
        .map(str::to_owned)
        .collect();
    samples.sort();
    child.kill().expect("the server can be killed");
    child.wait().expect("a child");
    (warned, samples)
}

#[tokio::test]
async fn a_server_that_is_open_to_others_says_so_at_start_and_in_a_metric() {
    let of = |no_auth, plain_http| {
        vec![
            format!("{{what=\"no-auth\"}} {no_auth}"),
            format!("{{what=\"plain-http\"}} {plain_http}"),
        ]
    };
    let (warned, samples) = insecurity(&["--listen", "127.0.0.1:0"]).await;
    assert_eq!((warned.len(), samples), (0, of(0, 0)), "{warned:?}");

    let (warned, samples) = insecurity(&["--listen", "0.0.0.0:0", "--insecure-no-auth"]).await;
    assert!(warned[0].contains("--insecure-no-auth") && warned[1].contains("plain HTTP"));
    assert_eq!((warned.len(), samples), (2, of(1, 1)));

    let dir = tempfile::tempdir().expect("a directory");
    let made = Certificates::new(dir.path());
    let (cert, key) = (made.path("server.pem"), made.path("server-key.pem"));
    let tls =
        ["--listen", "0.0.0.0:0", "--insecure-no-auth", "--tls-cert", &cert, "--tls-key", &key];
    let (warned, samples) = insecurity(&tls).await;
    assert_eq!((warned.len(), samples), (1, of(1, 0)), "{warned:?}");
}
