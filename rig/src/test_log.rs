//! The engine that tests are told to run on.

use std::{env, process::Command};

use uuid::Uuid;

/// The URL of a log that no other test has, on the engine that `HERALD_TEST_LOG` names; `None` where tests have a single node.
///
/// # Panics
/// When PostgreSQL does not make a database for it.
#[must_use]
pub fn test_log() -> Option<String> {
    let engine = env::var("HERALD_TEST_LOG").ok()?;
    let name = format!("test_{}", Uuid::new_v4().simple());
    if engine.starts_with("nats") {
        return Some(format!("{engine}?stream={name}"));
    }
    let created = Command::new("psql")
        .args(["--quiet", "--command", &format!("CREATE DATABASE {name}"), &engine])
        .status();
    assert!(created.is_ok_and(|status| status.success()), "psql makes a database");
    let (start, parameters) = engine.split_once('?').unwrap_or((&engine, ""));
    let (servers, _) = start.rsplit_once('/').expect("a URL with a database");
    Some(format!("{servers}/{name}?{parameters}"))
}
