//! The server's settings through the real binary: what is printed at start, and how wrong ones are refused.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    cli::run,
    server::{Server, herald},
};

/// The exit code and stderr of a server that must not start.
fn refused(flags: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = herald()
        .arg("serve")
        .args(flags)
        .envs(environment.iter().copied())
        .output()
        .expect("the binary starts");
    (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[tokio::test]
async fn every_setting_is_printed_at_start_with_where_it_came_from() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("herald.toml");
    std::fs::write(&config, "heartbeat = \"3s\"\n").expect("a file");
    let config = config.to_str().expect("UTF-8");
    let server = Server::start(dir.path(), &["--drain", "0s", "--config", config]).await;
    server.signal("-TERM");
    let (_, log) = server.ended();
    let settings: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|line| line["message"] == "setting")
        .collect();
    let of = |key: &str| {
        let line = settings.iter().find(|line| line["key"] == key);
        let line = line.unwrap_or_else(|| panic!("{key} is not printed"));
        (line["value"].as_str().expect("text"), line["source"].as_str().expect("text"))
    };
    let help = run(&["serve", "--help"]).stdout;
    // All but the file itself.
    assert_eq!(settings.len(), help.matches("[env:").count() - 1);
    assert_eq!(of("drain"), ("0s", "flag"));
    assert_eq!(of("heartbeat"), ("3s", config));
    assert_eq!(of("retention"), ("30d", "default"));
}

#[test]
fn wrong_settings_exit_2_and_say_what_and_where() {
    for (flags, environment, says) in [
        (&["--retention", "soon"] as &[_], &[] as &[_], "--retention \"soon\": must be a duration"),
        (&[], &[("HERALD_DRAIN", "2h")], "HERALD_DRAIN \"2h\": must be from 0s to 1h"),
        (&["--listen", "0.0.0.0:0"], &[], "--insecure-no-auth allows it"),
        (&["--config", "/nowhere.toml"], &[], "/nowhere.toml: "),
        (&["--no-such-flag"], &[], "--no-such-flag"),
    ] {
        let (code, text) = refused(flags, environment);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn an_unknown_key_of_the_file_exits_2_and_names_the_nearest_known_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("herald.toml");
    std::fs::write(&config, "retenton = \"3d\"\n").expect("a file");
    let (code, text) = refused(&["--config", config.to_str().expect("UTF-8")], &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("retenton is not a setting, did you mean retention?"), "{text}");
}

#[tokio::test]
async fn a_connection_is_closed_after_the_time_for_a_head_and_then_after_the_idle_timeout() {
    let dir = tempfile::tempdir().expect("a directory");
    for (flag, start) in [
        ("--head-timeout", &b""[..]),
        ("--head-timeout", b"GET /ping HTTP/1.1\r\n"),
        ("--idle-timeout", b"GET /ping HTTP/1.1\r\nhost: test\r\n\r\n"),
    ] {
        let server = Server::start(dir.path(), &[flag, "1s"]).await;
        let mut silent = TcpStream::connect(server.api).await.expect("a connection");
        silent.write_all(start).await.expect("it is sent");
        // Sooner than the defaults.
        let closed = timeout(Duration::from_secs(15), silent.read_to_end(&mut Vec::new())).await;
        closed.expect("it is closed").expect("the end");
        assert!(server.stop().success());
    }
}
