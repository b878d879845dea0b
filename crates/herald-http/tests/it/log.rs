//! The log of one test: on a single node, or, with `HERALD_TEST_LOG` set to the URL of an engine, a log of its own there.

use std::{path::Path, process::Command, sync::LazyLock, thread};

use herald_log::{EngineSettings, Log, LogSettings, OrderPlace, Progress};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Where an engine's tasks run: tests open their log in the middle of a runtime that must not be blocked, and some of them
/// have clocks that stand still.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Opens a new log.
pub(crate) fn open_log(dir: &Path) -> Log {
    let settings = LogSettings::default();
    let Ok(engine) = std::env::var("HERALD_TEST_LOG") else {
        return Log::open(dir, settings).unwrap();
    };
    let place: OrderPlace = own_log(&engine).parse().unwrap();
    let open = move || {
        let reach =
            EngineSettings { ca_file: None, credentials_file: None, retention: settings.retention };
        let progress = Progress::default();
        RUNTIME.block_on(Log::open_at(&place, &reach, dir, settings, &progress)).unwrap()
    };
    thread::scope(|scope| scope.spawn(open).join().unwrap())
}

/// The URL of a log in the same engine that no other test has.
fn own_log(engine: &str) -> String {
    let name = format!("test_{}", Uuid::new_v4().simple());
    if engine.starts_with("nats") {
        return format!("{engine}?stream={name}");
    }
    let created = Command::new("psql")
        .args(["--quiet", "--command", &format!("CREATE DATABASE {name}"), engine])
        .status();
    assert!(created.unwrap().success(), "psql makes a database");
    let (start, parameters) = engine.split_once('?').unwrap_or((engine, ""));
    let (servers, _) = start.rsplit_once('/').unwrap();
    format!("{servers}/{name}?{parameters}")
}
