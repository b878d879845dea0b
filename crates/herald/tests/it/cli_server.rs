//! The commands against the real server: what goes in comes out, and what it keeps can be checked.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{fs, io::Write as _};

use rand::{SeedableRng as _, rngs::SmallRng};
use serde_json::Value;

use crate::support::{
    cli::{Running, run, run_with_input},
    drafts::Draft,
    proxy::Proxy,
    server::Server,
};

const HER_IDS: [u32; 2] = [8_139_764, 90215];

fn lines(count: usize) -> String {
    let mut rng = SmallRng::seed_from_u64(7);
    let draft = |_| serde_json::to_string(&Draft::random(&mut rng, &HER_IDS)).unwrap() + "\n";
    (0..count).map(draft).collect()
}

fn follow<'a>(command: &'a str, url: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let ids = ["--her-id", "8139764", "--her-id", "90215", "--offset", "0"];
    [&[command, "--url", url][..], &ids, flags].concat()
}

#[tokio::test]
async fn what_is_appended_comes_out_of_poll_and_stream_byte_for_byte() {
    const COUNT: usize = 2500;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let url = server.url();
    let input = lines(COUNT);
    let appended = run_with_input(&["append", "--url", &url], &input);
    assert_eq!((appended.code, appended.lines().len()), (0, COUNT), "{}", appended.stderr);
    let offsets = appended.lines().into_iter().map(|line| -> u64 {
        serde_json::from_str::<Value>(line).unwrap()["offset"].as_u64().unwrap()
    });
    assert!(offsets.eq(1..=COUNT as u64));

    let polled = run(&follow("poll", &url, &["--follow-pages", "--limit", "999"]));
    let streamed = run(&follow("stream", &url, &["--max", &COUNT.to_string()]));
    assert_eq!((polled.code, streamed.code), (0, 0));
    assert_eq!(polled.lines().len(), COUNT);
    assert!(polled.stdout == streamed.stdout, "the same bytes");
    for (sent, line) in input.lines().zip(polled.lines()) {
        let (sent, line): (Value, Value) =
            (serde_json::from_str(sent).unwrap(), serde_json::from_str(line).unwrap());
        assert!(sent.as_object().unwrap().iter().all(|(field, value)| line[field] == *value));
    }

    let again = run_with_input(&["append", "--url", &url], &input);
    assert!(again.lines().iter().all(|line| line.contains("\"duplicate\":true")));
}

#[tokio::test]
async fn a_bad_line_is_named_by_its_place_in_the_input_and_the_rest_can_be_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let good = lines(12);
    let mut input: Vec<_> = good.lines().collect();
    input.insert(10, "");
    input.insert(11, r#"{"type":"NewMessage"}"#);
    let refused = run_with_input(&["append", "--url", &server.url()], &input.join("\n"));
    assert_eq!(refused.code, 1);
    assert!(refused.last_word().contains("line 12: relatedMessageId"), "{}", refused.stderr);
    let repaired = run_with_input(&["append", "--url", &server.url()], &good);
    assert_eq!((repaired.code, repaired.lines().len()), (0, 12));
}

#[tokio::test]
async fn a_stream_goes_on_when_a_notification_comes_and_ends_with_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let url = server.url();
    let mut stream = Running::start(&follow("stream", &url, &[]));
    for offset in 1..=3 {
        assert_eq!(run_with_input(&["append", "--url", &url], &lines(offset)).code, 0);
        let line: Value = serde_json::from_str(&stream.line().unwrap()).unwrap();
        assert_eq!(line["offset"], offset);
    }
    stream.signal("INT");
    assert_eq!(stream.wait().code, 0);
}

#[tokio::test]
async fn a_stream_survives_sigkills_of_the_server_without_gap_or_repeat() {
    const ROUNDS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &[]).await;
    let proxy = Proxy::to(server.api);
    let mut stream = Running::start(&follow("stream", &proxy.url, &["--max", "18"]));
    let input = lines(3 * ROUNDS);
    let input: Vec<_> = input.lines().collect();
    let mut printed = Vec::new();
    for (round, drafts) in input.chunks(3).enumerate() {
        let appended = run_with_input(&["append", "--url", &server.url()], &drafts.join("\n"));
        assert_eq!(appended.code, 0, "{}", appended.stderr);
        // Some kills meet a stream that has read everything, some one that is behind.
        if round % 2 == 0 {
            while printed.len() < 3 * (round + 1) {
                printed.push(stream.line().unwrap());
            }
        }
        server.kill();
        server = Server::start(directory.path(), &[]).await;
        proxy.switch(server.api);
    }
    let ended = stream.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    printed.extend(ended.stdout.lines().map(str::to_owned));
    let polled = run(&follow("poll", &server.url(), &[]));
    assert_eq!(printed, polled.lines());
    assert_eq!(printed.len(), 3 * ROUNDS);
}

#[tokio::test]
async fn a_data_directory_can_be_checked_and_damage_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    assert_eq!(run_with_input(&["append", "--url", &server.url()], &lines(20)).code, 0);
    let busy = run(&["log", "check", path]);
    assert_eq!(busy.code, 1);
    assert!(busy.last_word().contains("in use"), "{}", busy.stderr);

    assert!(server.stop().success());
    let found = run(&["log", "check", path]);
    assert_eq!((found.code, found.stderr.as_str()), (0, ""));
    assert!(found.stdout.contains("records     20\n"), "{}", found.stdout);

    let segment = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read(path).is_ok_and(|bytes| contains(&bytes, b"notificationId")))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(14).position(|window| window == b"notificationId").unwrap();
    bytes[place] ^= 1;
    fs::File::create(&segment).unwrap().write_all(&bytes).unwrap();
    let damaged = run(&["log", "check", path]);
    assert_eq!((damaged.code, damaged.stdout.as_str()), (1, ""));
    assert!(damaged.last_word().contains(segment.to_str().unwrap()), "{}", damaged.stderr);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn there_is_nothing_to_check_where_there_is_no_log() {
    let empty = tempfile::tempdir().unwrap();
    let missing = empty.path().join("missing");
    for path in [empty.path(), &missing] {
        let ended = run(&["log", "check", path.to_str().unwrap()]);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
        assert!(ended.last_word().contains(path.to_str().unwrap()), "{}", ended.stderr);
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn the_openapi_document_is_json() {
    let printed = run(&["openapi"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/notifications/stream"]["get"].is_object());
}

#[test]
fn the_demo_says_where_it_is_shows_notifications_and_ends_by_itself() {
    let demo = run(&["demo", "--for", "3s"]);
    assert_eq!(demo.code, 0, "{}", demo.stderr);
    let (head, shown) = demo.stdout.split_once("What arrives:").unwrap();
    for word in ["API", "/swagger", "/metrics", "curl -N"] {
        assert!(head.contains(word), "{head}");
    }
    assert!(shown.contains("NewMessage") && shown.contains("MessageSentStateUpdated"), "{shown}");
    assert!(!demo.stdout.contains('\u{1b}'), "no colour where nobody sees it");
}

#[test]
fn a_signal_ends_the_demo_with_0() {
    let mut demo = Running::start(&["demo"]);
    while !demo.line().unwrap().contains("NewMessage") {}
    demo.signal("INT");
    assert_eq!(demo.wait().code, 0);
}
