//! `herald stream` against a scripted server: lines, checkpoints, signals and ends.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    script::{Script, answer, connected, event, object, page, wait_for_close, write},
    support::cli::{Ended, Running, run},
};

const HISTORY: &str = "herald-history: 6f9619ff-8b86-d011-b42d-00cf4fc964ff\r\n";

fn args<'a>(url: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["stream", "--url", url, "--her-id", "7"], flags].concat()
}

fn run_stream(url: &str, flags: &[&str]) -> Ended {
    run(&args(url, flags))
}

/// A server with notifications 1 to 7, which then stays silent.
fn seven() -> Script {
    Script::start(|_, request, stream| {
        let events: String = (request.after() + 1..=7).map(event).collect();
        write(stream, connected(HISTORY) + &events);
        wait_for_close(stream);
    })
}

fn checkpoint() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoint");
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The offset that a checkpoint of one run keeps.
fn kept(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("\"offsets\":[").unwrap();
    rest.split(']').next().unwrap().parse().unwrap()
}

#[test]
fn it_prints_the_server_s_objects_and_stops_after_max() {
    let ended = run_stream(&seven().url, &["--offset", "2", "--max", "3"]);
    assert_eq!(
        (ended.code, ended.lines()),
        (0, [3, 4, 5].map(object).iter().map(String::as_str).collect())
    );
}

#[test]
fn from_now_leaves_out_what_is_stored_and_is_asked_for_until_there_is_an_answer() {
    let (_directory, path) = checkpoint();
    let server = Script::start(|number, request, stream| match number {
        0 => write(stream, answer("503 Service Unavailable", "", "<html>")),
        _ if request.target() == "GET /notifications" => {
            write(stream, page("200 OK", &format!("herald-tail: 5\r\n{HISTORY}"), &[object(1)]));
        }
        _ => {
            let events: String = (request.after() + 1..=7).map(event).collect();
            write(stream, connected(HISTORY) + &events);
            wait_for_close(stream);
        }
    });
    let flags = ["--from-now", "--checkpoint", text(&path), "--max", "1"];
    assert_eq!(run_stream(&server.url, &flags).lines(), [object(6)]);
    assert_eq!(run_stream(&server.url, &flags).lines(), [object(7)], "the checkpoint wins");
}

#[test]
fn a_start_that_nobody_chose_is_wrong_usage() {
    let (_directory, path) = checkpoint();
    let both = ["--offset", "0", "--from-now"];
    for flags in [&[][..], &["--checkpoint", text(&path)], &both] {
        let ended = run_stream("http://127.0.0.1:9", flags);
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{flags:?}");
        assert!(ended.stderr.contains("--offset"), "{}", ended.stderr);
    }
}

#[test]
fn comments_do_not_keep_it_from_an_idle_exit() {
    let server = Script::start(|_, _, stream| {
        write(stream, connected("") + &event(6));
        for _ in 0..600 {
            write(stream, ": until 5\n\n");
            thread::sleep(Duration::from_millis(50));
        }
    });
    let ended = run_stream(&server.url, &["--offset", "5", "--idle-exit", "500ms"]);
    assert_eq!((ended.code, ended.lines()), (0, vec![object(6).as_str()]), "{}", ended.stderr);
}

#[test]
fn an_end_for_good_is_exit_code_1_with_reason_and_status_on_stderr() {
    for (wrong, words) in [
        (answer("204 No Content", "", ""), &["204"][..]),
        (answer("403 Forbidden", "", r#"{"detail":"not yours"}"#), &["403", "not yours"]),
        (answer("200 OK", "content-type: text/html\r\n", "<html>"), &["200", "text/html"]),
        (
            (connected("") + "event: notification\ndata: {}\n\n").into(),
            &["200", "notification", "offset"],
        ),
    ] {
        let server = Script::start(move |_, _, stream| write(stream, &wrong));
        let ended = run_stream(&server.url, &["--offset", "0"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
        assert!(words.iter().all(|word| ended.last_word().contains(word)), "{}", ended.stderr);
    }
}

#[test]
fn transient_failures_are_waited_out() {
    let server = Script::start(|number, request, stream| match number {
        0 => write(stream, answer("503 Service Unavailable", "", "<html>")),
        1 => write(stream, connected("") + &event(6) + &event(7)[..30]),
        2 => {}
        _ => write(stream, connected("") + &event(request.after() + 1)),
    });
    let ended = run_stream(&server.url, &["--offset", "5", "--max", "3"]);
    assert_eq!(
        (ended.code, ended.lines()),
        (0, [6, 7, 8].map(object).iter().map(String::as_str).collect())
    );
    assert!(
        ended.stderr.contains("503") && ended.stderr.contains("trying again"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_checkpoint_follows_each_line_and_wins_over_the_offset() {
    let (_directory, path) = checkpoint();
    let server = seven();
    let first = ["--offset", "2", "--checkpoint", text(&path), "--max", "2"];
    assert_eq!(run_stream(&server.url, &first).lines().len(), 2);
    assert_eq!(kept(&path), 4);
    let ended = run_stream(&server.url, &first);
    assert_eq!(ended.lines(), [5, 6].map(object));
    let alone = ["--checkpoint", text(&path), "--max", "1"];
    assert_eq!(run_stream(&server.url, &alone).lines(), [object(7)]);
}

#[test]
fn a_checkpoint_that_is_saved_now_and_then_is_right_at_the_end() {
    let (_directory, path) = checkpoint();
    let flags =
        ["--offset", "0", "--checkpoint", text(&path), "--checkpoint-every", "1h", "--max", "7"];
    assert_eq!(run_stream(&seven().url, &flags).lines().len(), 7);
    assert_eq!(kept(&path), 7);
}

#[test]
fn a_checkpoint_is_there_as_soon_as_the_server_is_and_not_before() {
    let (_directory, path) = checkpoint();
    let flags = ["--offset", "7", "--checkpoint", text(&path), "--idle-exit", "300ms"];
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(run_stream(&format!("http://{away}"), &flags).code, 0);
    assert!(!path.exists());
    assert_eq!(run_stream(&seven().url, &flags).code, 0);
    assert_eq!(kept(&path), 7);
}

#[test]
fn until_moves_the_checkpoint_of_quiet_receivers() {
    let (_directory, path) = checkpoint();
    let server = Script::start(|_, _, stream| {
        write(stream, connected(HISTORY) + &event(6) + ": until 45\n\n");
        wait_for_close(stream);
    });
    let flags = ["--offset", "5", "--checkpoint", text(&path), "--idle-exit", "500ms"];
    assert_eq!(run_stream(&server.url, &flags).code, 0);
    assert_eq!(kept(&path), 45);
}

#[test]
fn a_checkpoint_of_others_is_refused_and_left_as_it_is() {
    let (_directory, path) = checkpoint();
    let server = seven();
    let flags = ["--offset", "2", "--checkpoint", text(&path), "--max", "2"];
    assert_eq!(run_stream(&server.url, &flags).code, 0);
    let before = fs::read(&path).unwrap();

    let more = [&flags[..], &["--her-id", "8"]].concat();
    let ended = run_stream(&server.url, &more);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.last_word().contains(text(&path)), "{}", ended.stderr);

    let other = Script::start(|_, _, stream| {
        write(
            stream,
            connected("herald-history: 00000000-0000-0000-0000-000000000001\r\n") + &event(9),
        );
    });
    let ended = run_stream(&other.url, &flags);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    assert!(ended.last_word().contains("history"), "{}", ended.stderr);
    assert!(ended.last_word().contains(text(&path)), "{}", ended.stderr);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_damaged_checkpoint_is_refused_and_left_as_it_is() {
    let (_directory, path) = checkpoint();
    let server = seven();
    let flags = ["--offset", "2", "--checkpoint", text(&path), "--max", "1"];
    assert_eq!(run_stream(&server.url, &flags).code, 0);
    let whole = fs::read(&path).unwrap();
    for damaged in [&b""[..], &whole[..whole.len() / 2], b"5\n", b"\xFF\xFE"] {
        fs::write(&path, damaged).unwrap();
        let ended = run_stream(&server.url, &flags);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
        assert!(ended.last_word().contains(text(&path)), "{}", ended.stderr);
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

#[test]
fn a_signal_ends_it_with_0_and_the_checkpoint_of_the_last_line() {
    for signal in ["INT", "TERM"] {
        let (_directory, path) = checkpoint();
        let server = seven();
        let flags = ["--offset", "0", "--checkpoint", text(&path), "--checkpoint-every", "1h"];
        let mut running = Running::start(&args(&server.url, &flags));
        let lines: Vec<_> = (0..7).filter_map(|_| running.line()).collect();
        assert_eq!(lines, (1..=7).map(object).collect::<Vec<_>>());
        running.signal(signal);
        assert_eq!(running.wait().code, 0);
        assert_eq!(kept(&path), 7);
    }
}

#[test]
fn a_signal_ends_it_while_the_server_is_away_and_while_nobody_reads_its_lines() {
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flood = Script::start(|_, request, stream| {
        write(stream, connected(""));
        for offset in request.after() + 1..request.after() + 100_000 {
            write(stream, event(offset));
        }
    });
    for url in [&format!("http://{away}"), &flood.url] {
        let mut running = Running::start(&args(url, &["--offset", "0"]));
        // It listens for signals before it says or prints anything.
        if *url == flood.url {
            assert_eq!(running.line(), Some(object(1)));
            running.is_stuck();
        } else {
            running.heard_on_stderr();
        }
        running.signal("TERM");
        assert_eq!(running.end().0, 0);
    }
}

#[test]
fn a_signal_ends_it_while_nobody_reads_what_it_says() {
    // Stderr is a pipe that is full before it has said much: a problem may be long.
    let problem = format!("{{\"detail\":\"{}\"}}", "x".repeat(100_000));
    let server = Script::start(move |_, _, stream| {
        write(stream, answer("503 Service Unavailable", "", &problem));
    });
    for (command, code) in [("stream", 0), ("poll", 1)] {
        let flags = [command, "--url", &server.url, "--her-id", "7", "--offset", "0"];
        let flags =
            [&flags[..], if command == "poll" { &["--follow-pages"] } else { &[] }].concat();
        let mut running = Running::start(&flags);
        running.heard_on_stderr();
        running.signal("TERM");
        assert_eq!(running.wait_unread(), Some(code), "{command}");
    }
}

#[test]
fn a_stdout_that_nobody_reads_ends_it_quietly() {
    let server = Script::start(|_, request, stream| {
        write(stream, connected(""));
        for offset in request.after() + 1..request.after() + 1000 {
            write(stream, event(offset));
            thread::sleep(Duration::from_millis(1));
        }
        wait_for_close(stream);
    });
    let mut running = Running::start(&args(&server.url, &["--offset", "0"]));
    assert_eq!(running.line(), Some(object(1)));
    running.close_stdout();
    let (code, stderr) = running.end();
    assert_eq!(code, 0);
    assert!(!stderr.contains("error"), "{stderr}");
}

#[test]
fn it_notices_that_nobody_reads_its_stdout_even_when_nothing_comes() {
    let server = seven();
    let mut running = Running::start(&args(&server.url, &["--offset", "6"]));
    assert_eq!(running.line(), Some(object(7)));
    running.close_stdout();
    assert_eq!(running.end().0, 0);
}

#[test]
fn more_than_1500_receivers_are_followed_with_one_checkpoint() {
    let (_directory, path) = checkpoint();
    let server = Script::start(|_, request, stream| {
        let offset = if request.query("HerIds").len() == 1500 { 10 } else { 20 };
        write(stream, connected(HISTORY));
        if offset > request.after() {
            write(stream, event(offset));
        }
        wait_for_close(stream);
    });
    let her_ids: Vec<_> = (8..=1507_u32).map(|her_id| format!("--her-id={her_id}")).collect();
    let mut flags = vec!["--offset", "5", "--checkpoint", text(&path), "--idle-exit", "1s"];
    flags.extend(her_ids.iter().map(String::as_str));
    let ended = run_stream(&server.url, &flags);
    let mut lines = ended.lines();
    lines.sort_unstable();
    assert_eq!((ended.code, lines), (0, [10, 20].map(object).iter().map(String::as_str).collect()));
    assert!(fs::read_to_string(&path).unwrap().contains("\"offsets\":[10,20]"));
    assert_eq!(run_stream(&server.url, &flags).lines(), [""; 0]);
}

#[test]
fn a_page_is_no_stream() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[object(6)])));
    let ended = run_stream(&server.url, &["--offset", "5"]);
    assert!(ended.code == 1 && ended.last_word().contains("application/json"), "{}", ended.stderr);
}
