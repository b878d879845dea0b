//! `herald poll` against a scripted server.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use crate::{
    script::{Script, answer, object, page, write},
    support::cli::{Running, run},
};

fn poll(url: &str, flags: &[&str]) -> Vec<String> {
    let args = [&["poll", "--url", url, "--her-id", "7"], flags].concat();
    args.into_iter().map(str::to_owned).collect()
}

fn run_poll(url: &str, flags: &[&str]) -> crate::support::cli::Ended {
    let args = poll(url, flags);
    run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A server with notifications 1 to 7.
fn seven() -> Script {
    Script::start(|_, request, stream| {
        let limit: usize = request.query("NotificationsToFetch")[0].parse().unwrap();
        let objects: Vec<_> = (request.after() + 1..=7).take(limit).map(object).collect();
        write(stream, page("200 OK", "", &objects));
    })
}

#[test]
fn one_page_is_printed_as_the_server_wrote_it() {
    let server = seven();
    let ended = run_poll(&server.url, &["--her-id", "8", "--offset", "2", "--limit", "3"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(ended.lines(), [3, 4, 5].map(object));
    assert_eq!(server.requests()[0].query("HerIds"), ["7", "8"]);
    run_poll(&server.url, &["--offset", "2"]);
    assert_eq!(server.requests()[1].query("NotificationsToFetch"), ["100"]);
}

#[test]
fn pages_are_followed_until_one_is_empty() {
    let server = seven();
    let ended = run_poll(&server.url, &["--offset", "0", "--limit", "3", "--follow-pages"]);
    assert_eq!(ended.code, 0);
    assert_eq!(ended.lines(), (1..=7).map(object).collect::<Vec<_>>());
    let asked: Vec<_> = server.requests().iter().map(crate::script::Request::after).collect();
    assert_eq!(asked, [0, 3, 6, 7], "the short page is not taken for the last");
}

#[test]
fn at_most_1500_receivers_are_polled() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[])));
    for (count, code) in [(1500, 0), (1501, 2)] {
        let flags: Vec<_> =
            (8..7 + count).flat_map(|her_id| ["--her-id".into(), her_id.to_string()]).collect();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--her-id", "7", "--offset", "0"]);
        let ended = run_poll(&server.url, &flags);
        assert_eq!(ended.code, code, "{}", ended.stderr);
    }
    assert_eq!(server.requests()[0].query("HerIds").len(), 1500);
}

#[test]
fn a_refusal_is_exit_code_1_with_the_reason_on_stderr() {
    let problem = r#"{"detail":"no access","requestId":"r7","validationErrors":["a","b"]}"#;
    let server =
        Script::start(move |_, _, stream| write(stream, answer("403 Forbidden", "", problem)));
    let ended = run_poll(&server.url, &["--offset", "0"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.last_word().contains("403 Forbidden: no access (a; b) [request r7]"));
}

#[test]
fn a_server_that_is_not_there_is_exit_code_1_after_three_more_tries() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = run_poll(&format!("http://{address}"), &["--offset", "0"]);
    assert_eq!(ended.code, 1);
    assert!(ended.last_word().starts_with("error: no connection"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("trying again").count(), 3, "{}", ended.stderr);
}

#[test]
fn a_stdout_that_nobody_reads_ends_it_quietly() {
    let server = Script::start(|_, request, stream| {
        let after = request.after();
        write(
            stream,
            page("200 OK", "", &(after + 1..after + 100).map(object).collect::<Vec<_>>()),
        );
    });
    let args = poll(&server.url, &["--offset", "0", "--follow-pages"]);
    let mut running = Running::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(running.line(), Some(object(1)));
    running.close_stdout();
    assert_eq!(running.end(), (0, String::new()));
}
