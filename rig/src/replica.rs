//! One `herald serve` as a process of its own.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    balancer::Backend,
    home::Home,
    http,
    node::{Slot, must_be_down, remove_dir},
    ports::Port,
    process,
};

/// How long a start may take: as long as a rebuilt view.
const READY_WAIT: Duration = Duration::from_secs(120);
/// How often it is looked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long it may take to end by itself: longer than the drain window is by default.
const TERMINATE_WAIT: Duration = Duration::from_secs(90);

/// How a replica is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it is called in a balancer and where its test fails.
    pub name: String,
    /// `herald`.
    pub program: PathBuf,
    /// Where its files are; a temporary directory if none is given.
    pub dir: Option<PathBuf>,
    /// The engine's URL, for `--log`.
    pub log: String,
    /// More flags of `herald serve`.
    pub flags: Vec<String>,
    /// More variables, such as `LD_PRELOAD`; those of this process that begin with `HERALD_` do not reach it.
    pub environment: Vec<(String, OsString)>,
}

impl Settings {
    /// A replica of this program on an engine; `local` is one of its own.
    #[must_use]
    pub fn new(name: &str, program: impl Into<PathBuf>, log: &str) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            dir: None,
            log: log.to_owned(),
            flags: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With more flags.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Starts it and waits for nothing; [`Replica::ready`] does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(self) -> anyhow::Result<Replica> {
        let home = Home::new(self.dir.as_deref(), &self.name)?;
        let slot = Slot::new(self.name.clone(), home.path().to_owned());
        let replica =
            Replica { slot, api: Port::free()?, ops: Port::free()?, settings: self, home };
        replica.restart()?;
        Ok(replica)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, ends, or takes too long.
    pub async fn start(self) -> anyhow::Result<Replica> {
        let replica = self.launch()?;
        replica.ready().await?;
        Ok(replica)
    }
}

/// A replica, running or not. Dropping it kills it.
#[derive(Debug)]
pub struct Replica {
    // Before the directory: it is dead when that is removed.
    slot: Slot,
    api: Port,
    ops: Port,
    settings: Settings,
    home: Home,
}

impl Replica {
    /// Where its API is; the same over restarts.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        self.api.address()
    }

    /// Where its health and metrics are; the same over restarts.
    #[must_use]
    pub fn ops(&self) -> SocketAddr {
        self.ops.address()
    }

    /// The base of its API's URLs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.api())
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.slot.id()
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What a balancer needs to know of it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        Backend { name: self.settings.name.clone(), api: self.api(), ops: self.ops() }
    }

    /// Starts it again on its data and ports, and waits for nothing. Kills it first if it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self) -> anyhow::Result<()> {
        let mut command = process::command(&self.settings.program, "KILL", None);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("HERALD_") {
                command.env_remove(name);
            }
        }
        command.envs(self.settings.environment.iter().cloned());
        command.arg("serve").arg("--log").arg(&self.settings.log);
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--listen").arg(self.api().to_string());
        command.arg("--ops-listen").arg(self.ops().to_string());
        command.args(&self.settings.flags);
        self.slot.start(command)
    }

    /// What its next starts are like: another program for an upgrade, other flags.
    pub fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    /// Waits until `/health/ready` says yes.
    ///
    /// # Errors
    /// When it ends, or takes too long.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.is_ready().await {
            self.slot.must_run()?;
            ensure!(
                began.elapsed() < READY_WAIT,
                "{} is not ready after {READY_WAIT:?}",
                self.name()
            );
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Whether `/health/ready` says yes now.
    pub async fn is_ready(&self) -> bool {
        let answer = http::get(self.ops(), "/health/ready").await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Whether it has not ended; one that is stopped has not.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.slot.is_running()
    }

    /// SIGKILL; it is gone when this returns.
    pub fn kill(&self) {
        self.slot.kill();
    }

    /// SIGSTOP: it keeps its connections and says nothing.
    pub fn stop(&self) {
        self.slot.stop();
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.slot.go_on();
    }

    /// SIGTERM, which begins its drain, and waits for its end.
    ///
    /// # Errors
    /// When it is down already, or does not end.
    pub async fn terminate(&self) -> anyhow::Result<ExitStatus> {
        let mut process = self.slot.take().with_context(|| format!("{} is down", self.name()))?;
        process.end(Signal::TERM, TERMINATE_WAIT).await
    }

    /// Waits until it has ended by itself, as one does that refuses its log.
    ///
    /// # Errors
    /// When it is down already, or does not end.
    pub async fn ended(&self) -> anyhow::Result<ExitStatus> {
        let mut process = self.slot.take().with_context(|| format!("{} is down", self.name()))?;
        process.ended(READY_WAIT).await
    }

    /// Removes its data; it must be down.
    ///
    /// # Errors
    /// When it runs.
    pub fn wipe(&self) -> anyhow::Result<()> {
        must_be_down(&self.slot)?;
        remove_dir(&self.data_dir())
    }

    /// Where its data is.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The value of a metric: of one series if its labels are given, `name{a="b"}`, or else the sum of all that have the
    /// name. `None` when there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let answer = http::get(self.ops(), "/metrics").await?;
        ensure!(answer.status == 200, "/metrics answers {}", answer.status);
        Ok(value(&answer.body, name))
    }

    /// The lines of its log that have `word` in them, of all its starts.
    #[must_use]
    pub fn lines(&self, word: &str) -> Vec<String> {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }

    /// Where it writes its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.slot.log()
    }

    /// The directory of its data and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }
}

/// A metric in the text format of Prometheus.
fn value(text: &str, name: &str) -> Option<f64> {
    let series = text.lines().filter_map(|line| line.rsplit_once(' '));
    let named = series.filter(|(series, _)| {
        let rest = series.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
    });
    let values: Vec<f64> = named.filter_map(|(_, value)| value.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_one_series_or_the_sum_of_all_with_its_name() {
        let text = "# TYPE a counter\na 1\na_b{x=\"1\"} 2\na_b{x=\"y z\"} 3.5\n";
        assert_eq!(value(text, "a"), Some(1.0));
        assert_eq!(value(text, "a_b"), Some(5.5));
        assert_eq!(value(text, "a_b{x=\"y z\"}"), Some(3.5));
        assert_eq!(value(text, "b"), None);
    }
}
