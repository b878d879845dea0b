//! HAProxy or nginx in front of replicas that come and go, set as `deploy/` has it for several replicas: what tests go through
//! is what operators are told to use.

mod haproxy;
mod nginx;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal};
use tokio::{sync::Mutex, time::sleep};

use crate::{home::Home, http, node::Slot, ports::Port, process, programs};

/// How long a start or a change may take; never waited for when all is well.
const WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether a change is there.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a worker of nginx calls itself until it is told to end.
const NGINX_WORKER: &str = "nginx: worker process";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks each replica whether it is ready.
    HaProxy,
    /// Learns from answers: it leaves a replica out for a second after a failure or a 503.
    Nginx,
}

/// A replica as a balancer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// What it is called in the balancer's own words.
    pub name: String,
    /// Where its API is.
    pub api: SocketAddr,
    /// Where its health is.
    pub ops: SocketAddr,
}

/// A file of `deploy/` with these lines in the place of its servers.
fn with_servers(file: &str, servers: impl Iterator<Item = String>) -> String {
    let is_server = |line: &&str| line.trim_start().starts_with("server ") && !line.ends_with('{');
    let before: Vec<&str> = file.lines().take_while(|line| !is_server(line)).collect();
    let behind = file.lines().skip(before.len()).filter(|line| !is_server(line));
    let lines = before.iter().map(|line| (*line).to_owned()).chain(servers);
    lines.chain(behind.map(str::to_owned)).map(|line| line + "\n").collect()
}

/// A running balancer. Dropping it kills it.
#[derive(Debug)]
pub struct Balancer {
    kind: Kind,
    // Before the directory: it is dead when that is removed.
    slot: Slot,
    listen: Port,
    /// Where it says which of its files is in force.
    status: Port,
    /// How many files it has been given. One change at a time: a change waits until it is in force.
    generation: Mutex<u64>,
    home: Home,
}

impl Balancer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When the program is missing, there is no backend, or it does not start.
    pub async fn start(kind: Kind, backends: &[Backend]) -> anyhow::Result<Self> {
        let home = Home::new(None, "balancer")?;
        let slot = Slot::new("balancer".to_owned(), home.path().to_owned());
        let (listen, status) = (Port::free()?, Port::free()?);
        let balancer = Self { kind, slot, listen, status, generation: Mutex::new(1), home };
        balancer.configure(1, backends).await?;
        balancer.slot.start(balancer.command(&[])?)?;
        balancer.is_in_force(1).await?;
        Ok(balancer)
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// The base of the API's URLs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// From now on these are the backends; waits until new connections go to no other. Open ones, streams among them, stay
    /// where they are until they end.
    ///
    /// # Errors
    /// When there is no backend, or the change does not come into force.
    pub async fn set(&self, backends: &[Backend]) -> anyhow::Result<()> {
        let mut generation = self.generation.lock().await;
        *generation += 1;
        self.configure(*generation, backends).await?;
        let reload = match self.kind {
            Kind::HaProxy => Signal::USR2,
            Kind::Nginx => Signal::HUP,
        };
        let before = self.workers();
        self.slot.with(|process| process.signal(reload)).context("the balancer has ended")?;
        self.is_in_force(*generation).await?;
        self.have_stopped(&before).await
    }

    /// nginx's processes that take connections. Those of before a change do so for a tenth of a second beside the new ones.
    fn workers(&self) -> Vec<Pid> {
        self.slot.with(|process| process.children_called(NGINX_WORKER)).unwrap_or_default()
    }

    /// Waits until none of these takes connections any more; they may go on with those that they have.
    async fn have_stopped(&self, workers: &[Pid]) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.workers().iter().any(|worker| workers.contains(worker)) {
            ensure!(began.elapsed() < WAIT, "the balancer has not changed after {WAIT:?}");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Writes its file, after the program itself has looked at it.
    async fn configure(&self, generation: u64, backends: &[Backend]) -> anyhow::Result<()> {
        ensure!(!backends.is_empty(), "a balancer needs a backend");
        let text = match self.kind {
            Kind::HaProxy => haproxy::write(self, generation, backends),
            Kind::Nginx => nginx::write(self, generation, backends),
        };
        fs::write(self.file(), text)?;
        let look = match self.kind {
            Kind::HaProxy => "-c",
            Kind::Nginx => "-t",
        };
        process::run(self.command(&[look])?).await.map(drop)
    }

    fn command(&self, flags: &[&str]) -> anyhow::Result<Command> {
        // SIGTERM: the master ends its workers, which nobody would if it were killed.
        let mut command = match self.kind {
            Kind::HaProxy => {
                let mut command = process::command(&programs::find("haproxy")?, "TERM", None);
                command.args(["-W", "-q", "-f"]).arg(self.file());
                command
            }
            Kind::Nginx => {
                let mut command = process::command(&programs::find("nginx")?, "TERM", None);
                command.args(["-q", "-e", "stderr", "-p"]).arg(self.home.path());
                command.arg("-c").arg(self.file());
                command
            }
        };
        command.args(flags);
        Ok(command)
    }

    async fn is_in_force(&self, generation: u64) -> anyhow::Result<()> {
        let expected = generation.to_string();
        let began = Instant::now();
        loop {
            let answer = http::get(self.status.address(), "/").await;
            if answer.is_ok_and(|answer| answer.body.trim() == expected) {
                return Ok(());
            }
            self.slot.must_run()?;
            ensure!(began.elapsed() < WAIT, "the balancer has not changed after {WAIT:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    fn file(&self) -> PathBuf {
        self.home.join("balancer.conf")
    }

    /// Where it writes what it does.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.slot.log()
    }

    /// The directory of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_the_place_of_a_files_own() {
        let file = "a {\n    server x;\n    server y;\n    b\n}\nserver {\n}\n";
        let servers = ["    server z;".to_owned()].into_iter();
        assert_eq!(with_servers(file, servers), "a {\n    server z;\n    b\n}\nserver {\n}\n");
    }
}
