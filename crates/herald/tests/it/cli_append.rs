//! `herald append` against a scripted server: what it sends, what it prints, and which line it blames.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use serde_json::Value;

use crate::{
    script::{Request, Script, answer, page, wait_for_close, write},
    support::cli::{Running, run, run_with_input},
};

const MESSAGE: &str = "0f84d750-8ce3-4471-a1ac-ab7a55e609c0";

fn drafts(request: &Request) -> Vec<Value> {
    let body = String::from_utf8(request.body.clone()).unwrap();
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A server that answers for each line with its id.
fn accepting() -> Script {
    Script::start(|_, request, stream| {
        let id = |draft: Value| {
            format!(r#"{{"notificationId":{}, "offset":1}}"#, draft["notificationId"])
        };
        let answers: Vec<_> = drafts(request).into_iter().map(id).collect();
        write(stream, page("201 Created", "", &answers));
    })
}

#[test]
fn one_notification_comes_from_flags() {
    let answer = r#"{"notificationId":"x","offset":45459,"createdAt":"t","duplicate":false}"#;
    let server =
        Script::start(move |_, _, stream| write(stream, page("201 Created", "", &[answer.into()])));
    let description = "New \"document\"";
    let ended = run(&[
        "append",
        "--url",
        &server.url,
        "--her-id",
        "8139764",
        "--triggered-by",
        "90215",
        "--type",
        "NewMessage",
        "--message-id",
        MESSAGE,
        "--description",
        description,
    ]);
    assert_eq!((ended.code, ended.lines()), (0, vec![answer]), "{}", ended.stderr);
    let request = &server.requests()[0];
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let draft = &body["notifications"][0];
    assert_eq!(draft["relatedMessageId"], MESSAGE);
    assert_eq!(draft["type"], "NewMessage");
    assert_eq!(draft["notificationReceiverHerId"], 8_139_764);
    assert_eq!(draft["notificationTriggeredByHerId"], 90215);
    assert_eq!(draft["description"], description);
    assert!(draft["notificationId"].is_string());
}

#[test]
fn lines_come_from_stdin_or_a_file_and_each_has_an_id_when_it_is_sent() {
    let lines = "{\"a\":1}\n\n  {\"notificationId\":\"own\"}\r\n{\"notificationId\":null}";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let path = file.path().to_str().unwrap();
    for (flags, input) in [(&[][..], lines), (&["--file", "-"], lines), (&["--file", path], "")] {
        let server = accepting();
        let args = [&["append", "--url", &server.url], flags].concat();
        let ended = run_with_input(&args, input);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let request = &server.requests()[0];
        assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
        let sent = drafts(request);
        assert_eq!(
            (sent.len(), &sent[0]["a"], &sent[1]["notificationId"]),
            (3, &1.into(), &"own".into())
        );
        let ids: Vec<_> = sent.iter().map(|draft| draft["notificationId"].to_string()).collect();
        let printed = ids.iter().map(|id| format!("{{\"notificationId\":{id}, \"offset\":1}}"));
        assert_eq!(ended.lines(), printed.collect::<Vec<_>>());
    }
}

#[test]
fn a_request_has_at_most_10000_lines_and_a_bad_line_is_named_by_its_place_in_the_input() {
    let problem = r#"{"detail":"d","validationErrors":["line 3: type: required"]}"#;
    let server = Script::start(move |number, request, stream| match number {
        0 => write(stream, page("201 Created", "", &vec!["{}".to_owned(); drafts(request).len()])),
        _ => write(stream, answer("400 Bad Request", "", problem)),
    });
    let input = "{}\n\n".repeat(10_005);
    let ended = run_with_input(&["append", "--url", &server.url], &input);
    let counts: Vec<_> = server.requests().iter().map(|request| drafts(request).len()).collect();
    assert!(counts[0] <= 10_000 && counts.len() == 2, "{counts:?}");
    assert_eq!((ended.code, ended.lines().len()), (1, counts[0]));
    let line = 2 * (counts[0] + 3) - 1;
    let said = format!("400 Bad Request: d (line {line}: type: required)");
    assert!(ended.last_word().contains(&said), "{}", ended.stderr);
    assert!(ended.last_word().contains(&format!("{} lines", counts[0])), "{}", ended.stderr);
}

#[test]
fn nothing_to_append_is_no_failure() {
    let server = accepting();
    let ended = run_with_input(&["append", "--url", &server.url], "\n \n");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    assert!(server.requests().is_empty());
}

#[test]
fn a_transient_failure_is_tried_again_three_times_with_the_same_ids() {
    let server = Script::start(|_, _, stream| write(stream, answer("503 Unavailable", "", "")));
    let ended = run_with_input(&["append", "--url", &server.url], "{}");
    assert_eq!(ended.code, 1);
    assert!(ended.last_word().contains("503"), "{}", ended.stderr);
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request.body == requests[0].body));
}

#[test]
fn a_line_of_more_than_a_mebibyte_is_not_read_to_its_end() {
    for (bytes, code) in [(1024 * 1024, 0), (1024 * 1024 + 1, 1)] {
        let server = accepting();
        let fill = "x".repeat(bytes - r#"{"d":""}"#.len() - 1);
        let input = format!("{{}}\n{{\"d\":\"{fill}\"}}\n");
        let ended = run_with_input(&["append", "--url", &server.url], &input);
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert_eq!(ended.last_word().contains("line 2: a line has more than 1048576"), code == 1);
    }
}

#[test]
fn a_signal_does_not_pretend_that_what_was_not_answered_is_done() {
    let server = Script::start(|_, _, stream| wait_for_close(stream));
    let mut running = Running::start(&["append", "--url", &server.url]);
    running.stdin("{}\n");
    while server.requests().is_empty() {
        std::thread::yield_now();
    }
    running.signal("TERM");
    let ended = running.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.last_word().contains("stopped by a signal before line 1"), "{}", ended.stderr);
}
