//! The log of one test: on a single node, or, with `HERALD_TEST_LOG` set to the URL of an engine, a log of its own there.

use std::{path::Path, sync::LazyLock, thread};

use herald_log::{EngineSettings, Log, LogSettings, OrderPlace, Progress};
use tokio::runtime::Runtime;

/// Where an engine's tasks run: tests open their log in the middle of a runtime that must not be blocked, and some of them
/// have clocks that stand still.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Opens a new log.
pub(crate) fn open_log(dir: &Path) -> Log {
    let settings = LogSettings::default();
    let Some(url) = herald_rig::test_log() else {
        return Log::open(dir, settings).unwrap();
    };
    let place: OrderPlace = url.parse().unwrap();
    let open = move || {
        let reach =
            EngineSettings { ca_file: None, credentials_file: None, retention: settings.retention };
        let progress = Progress::default();
        RUNTIME.block_on(Log::open_at(&place, &reach, dir, settings, &progress)).unwrap()
    };
    thread::scope(|scope| scope.spawn(open).join().unwrap())
}
