//! A PostgreSQL primary with synchronous standbys, or one node: real servers of the installed version.

mod config;
mod failover;
mod user;

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio::time::sleep;
use user::User;

use crate::{
    Cut, Link, Pace, Tls, Way,
    home::Home,
    link::Mesh,
    node::{Kept, Slot, copy_dir, must_be_down, remove_dir},
    ports::Port,
    process, programs,
};

/// How long a start, a promotion or a new standby may take; never waited for when all is well.
const WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a node may take to end by itself.
const TERMINATE_WAIT: Duration = Duration::from_secs(30);
/// How long one question to a node may take, once it has let one in, on a disk that is busy.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a node may take to let one in, in seconds; one that is stopped never does.
const CONNECT_WAIT: &str = "3";
/// Every node has a place in `synchronous_standby_names`.
const NODES_MAX: usize = 5;
/// The database that [`Cluster::url`] names.
const DATABASE: &str = "herald";

/// What `postgres`'s password is with [`Access::Password`].
pub const PASSWORD: &str = "not-a-secret";

/// Who may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Anybody, as any role.
    #[default]
    Open,
    /// With a password (SCRAM): the role `postgres` has [`PASSWORD`].
    Password,
}

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One node, or a primary (node 0) and standbys.
    pub nodes: usize,
    /// Where its files are; a temporary directory if none is given. Root gives it to the user `postgres`.
    pub dir: Option<PathBuf>,
    /// A commit waits for any one standby.
    pub synchronous: bool,
    /// Who may connect.
    pub access: Access,
    /// Only with TLS.
    pub tls: Option<Tls>,
    /// Standbys reach their primary over links, which [`Cluster::cut`] cuts.
    pub linked: bool,
    /// More variables of each node's server, such as `LD_PRELOAD`; nodes behind the last entry have none.
    pub environment: Vec<Vec<(String, OsString)>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: 3,
            dir: None,
            synchronous: true,
            access: Access::default(),
            tls: None,
            linked: false,
            environment: Vec::new(),
        }
    }
}

impl Settings {
    /// Starts node 0 as the primary and the others as its standbys, and makes the database `herald`.
    ///
    /// # Errors
    /// When a program is missing or a node does not become ready.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        ensure!((1..=NODES_MAX).contains(&self.nodes), "1 to {NODES_MAX} nodes");
        let user = User::of_servers()?;
        let home = Home::new(self.dir.as_deref(), "postgres")?;
        let mut nodes = Vec::new();
        for number in 1..=self.nodes {
            nodes.push(Node::new(&home, number)?);
        }
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.port.address()).collect();
        let mesh = if self.linked { Mesh::between(&addresses)? } else { Mesh::default() };
        let cluster = Cluster { nodes, mesh, settings: self, user, home };
        cluster.set_up().await?;
        Ok(cluster)
    }
}

/// A running cluster; nodes are counted from 0. Dropping it kills all nodes.
#[derive(Debug)]
pub struct Cluster {
    // Before the directory: nodes are dead when it is removed.
    nodes: Vec<Node>,
    mesh: Mesh,
    settings: Settings,
    user: User,
    home: Home,
}

#[derive(Debug)]
struct Node {
    slot: Slot,
    port: Port,
    /// It must not come back as what it was.
    is_fenced: AtomicBool,
}

impl Node {
    fn new(home: &Home, number: usize) -> anyhow::Result<Self> {
        let name = format!("n{number}");
        let dir = home.join(&name);
        std::fs::create_dir_all(&dir)?;
        let slot = Slot::new(name, dir);
        Ok(Self { slot, port: Port::free()?, is_fenced: AtomicBool::new(false) })
    }

    fn data(&self) -> PathBuf {
        self.slot.dir.join("data")
    }
}

impl Node {
    fn kill(&self) {
        self.slot.kill();
        // A server that is killed leaves its segment of shared memory to the next one on its data, and there may be none.
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let id = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(id) = id {
            Command::new("ipcrm").args(["--shmem-id", id]).output().ok();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Cluster {
    /// A primary and two standbys.
    ///
    /// # Errors
    /// As [`Settings::start`].
    pub async fn start() -> anyhow::Result<Self> {
        Settings::default().start().await
    }

    /// One node, which nobody waits for: the fastest for tests that break nothing.
    ///
    /// # Errors
    /// As [`Settings::start`].
    pub async fn start_alone() -> anyhow::Result<Self> {
        Settings { nodes: 1, ..Settings::default() }.start().await
    }

    async fn set_up(&self) -> anyhow::Result<()> {
        let (primary, standbys) = self.nodes.split_first().context("a cluster has nodes")?;
        self.user.give(self.home.path())?;
        self.initialise(primary).await?;
        for (node, standby) in (1..).zip(standbys) {
            // What was never started can be copied as it is.
            copy_dir(&primary.data(), &standby.data()).await?;
            let follows = self.seen_from(node, 0);
            config::write(&self.settings, standby, self.nodes.len(), Some(follows))?;
            self.user.give(&standby.data())?;
        }
        config::write(&self.settings, primary, self.nodes.len(), None)?;
        self.user.give(&primary.data())?;
        for node in 0..self.nodes.len() {
            self.launch(node)?;
        }
        self.ready().await?;
        self.database(DATABASE).await.map(drop)
    }

    async fn initialise(&self, node: &Node) -> anyhow::Result<()> {
        let mut initdb = self.tool("initdb")?;
        initdb.args(["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        match self.settings.access {
            Access::Open => initdb.arg("--auth=trust"),
            Access::Password => {
                let file = node.slot.dir.join("password");
                std::fs::write(&file, PASSWORD)?;
                self.user.give(&file)?;
                initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(file)
            }
        };
        initdb.arg("--pgdata").arg(node.data());
        process::run(initdb).await.map(drop)
    }

    /// One of PostgreSQL's programs, as the user who runs servers.
    fn tool(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = process::command(&programs::find(program)?, "KILL", self.user.name());
        // The directory that we are in may not be one that the other user may enter.
        command.current_dir("/").env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", CONNECT_WAIT);
        Ok(command)
    }

    fn launch(&self, node: usize) -> anyhow::Result<()> {
        self.kill(node);
        let mut command = process::command(&programs::find("postgres")?, "QUIT", self.user.name());
        command.current_dir("/").arg("-D").arg(self.nodes[node].data());
        command.envs(self.settings.environment.get(node).cloned().unwrap_or_default());
        self.nodes[node].slot.start(command)
    }

    /// Where `from` finds `to`: over a link, if there are any.
    fn seen_from(&self, from: usize, to: usize) -> SocketAddr {
        self.mesh.address(from, to).unwrap_or(self.nodes[to].port.address())
    }

    /// `postgres://postgres@h1:p1,h2:p2,h3:p3/herald?target_session_attrs=read-write`, with a password if one is needed, and
    /// with TLS `sslmode=require`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.addresses(), DATABASE)
    }

    fn url_of(&self, addresses: &[SocketAddr], database: &str) -> String {
        let password = match self.settings.access {
            Access::Open => String::new(),
            Access::Password => format!(":{PASSWORD}"),
        };
        let hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let hosts = hosts.join(",");
        let tls = if self.settings.tls.is_some() { "&sslmode=require" } else { "" };
        format!(
            "postgres://postgres{password}@{hosts}/{database}?target_session_attrs=read-write{tls}"
        )
    }

    /// Makes a database, so that one cluster serves several tests; its URL.
    ///
    /// # Errors
    /// When there is no primary, or there is such a database.
    pub async fn database(&self, name: &str) -> anyhow::Result<String> {
        let primary = self.primary().await?;
        self.query(primary, &format!("CREATE DATABASE \"{name}\"")).await?;
        Ok(self.url_of(&self.addresses(), name))
    }

    /// Links of one's own to all nodes, and a URL through them.
    ///
    /// # Errors
    /// When there are no ports.
    pub fn way(&self) -> anyhow::Result<Way> {
        self.way_to(DATABASE)
    }

    /// The same to another database.
    ///
    /// # Errors
    /// When there are no ports.
    pub fn way_to(&self, database: &str) -> anyhow::Result<Way> {
        Way::new(&self.addresses(), |addresses| self.url_of(addresses, database))
    }

    /// Where each node listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.port.address()).collect()
    }

    /// The process of each node that runs.
    #[must_use]
    pub fn ids(&self) -> Vec<Option<u32>> {
        self.nodes.iter().map(|node| node.slot.id()).collect()
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a cluster has nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// SIGKILL to the server and each of its processes; they are gone when this returns.
    pub fn kill(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// SIGSTOP to all of them.
    pub fn stop(&self, node: usize) {
        self.nodes[node].slot.stop();
    }

    /// SIGCONT to all of them.
    pub fn go_on(&self, node: usize) {
        self.nodes[node].slot.go_on();
    }

    /// A fast shutdown (SIGINT), and waits for its end.
    ///
    /// # Errors
    /// When it is down already, or does not end.
    pub async fn terminate(&self, node: usize) -> anyhow::Result<ExitStatus> {
        let slot = &self.nodes[node].slot;
        let mut process = slot.take().with_context(|| format!("{} is down", slot.name))?;
        process.end(Signal::INT, TERMINATE_WAIT).await
    }

    /// Starts it again as what it was, on its own port and data, and waits for nothing; [`Self::ready`] does. Kills it first
    /// if it runs.
    ///
    /// # Errors
    /// When it is fenced, or cannot be started.
    pub fn restart(&self, node: usize) -> anyhow::Result<()> {
        let is_fenced = self.nodes[node].is_fenced.load(Ordering::Relaxed);
        ensure!(!is_fenced, "n{} is fenced: it may only follow another one", node + 1);
        self.launch(node)
    }

    /// Whether the node has not ended; one that is stopped has not.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].slot.is_running()
    }

    /// Copies what a node has stored, which must be down.
    ///
    /// # Errors
    /// When it runs, or cannot be copied.
    pub async fn keep(&self, node: usize) -> anyhow::Result<Kept> {
        must_be_down(&self.nodes[node].slot)?;
        Kept::of(&self.nodes[node].data()).await
    }

    /// Puts back what was kept: what the node has promised since is lost.
    ///
    /// # Errors
    /// When it runs, or cannot be copied.
    pub async fn put_back(&self, node: usize, kept: &Kept) -> anyhow::Result<()> {
        must_be_down(&self.nodes[node].slot)?;
        kept.put(&self.nodes[node].data()).await
    }

    /// Removes all that a node has stored, which must be down; it may then [`Self::follow`] another one.
    ///
    /// # Errors
    /// When it runs.
    pub fn wipe(&self, node: usize) -> anyhow::Result<()> {
        must_be_down(&self.nodes[node].slot)?;
        remove_dir(&self.nodes[node].data())
    }

    /// Cuts two nodes off from each other; with [`Settings::linked`].
    ///
    /// # Panics
    /// Without it.
    pub fn cut(&self, a: usize, b: usize, how: Cut) {
        self.assert_linked();
        self.mesh.pair(a, b).for_each(|link| link.cut(how));
    }

    /// Makes what two nodes say to each other slow.
    ///
    /// # Panics
    /// Without [`Settings::linked`].
    pub fn slow(&self, a: usize, b: usize, pace: Pace) {
        self.assert_linked();
        self.mesh.pair(a, b).for_each(|link| link.slow(pace));
    }

    /// Connects all nodes again.
    pub fn heal(&self) {
        self.mesh.all().for_each(Link::heal);
    }

    fn assert_linked(&self) {
        assert!(
            self.settings.linked,
            "only nodes that are `linked` can be cut off from each other"
        );
    }

    /// Waits until every node that runs, and is not stopped, answers, and every such standby gets its primary's log if there
    /// is a primary.
    ///
    /// # Errors
    /// When one ends, or it takes too long.
    pub async fn ready(&self) -> anyhow::Result<()> {
        for node in (0..self.nodes.len()).filter(|node| self.is_running(*node)) {
            self.answers(node).await?;
        }
        if self.primary_now().await.is_some() {
            for node in (0..self.nodes.len()).filter(|node| self.is_running(*node)) {
                if !self.is_primary(node).await? {
                    self.receives(node, WAIT).await?;
                }
            }
        }
        Ok(())
    }

    async fn answers(&self, node: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while let Err(error) = self.query(node, "SELECT 1").await {
            self.nodes[node].slot.must_run()?;
            if began.elapsed() > WAIT {
                return Err(error.context(format!("n{} is not ready after {WAIT:?}", node + 1)));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Asks a node by SQL; rows are lines, columns stand apart by `|`.
    ///
    /// # Errors
    /// What the node says, or that it does not answer.
    pub async fn query(&self, node: usize, sql: &str) -> anyhow::Result<String> {
        let database = if sql.starts_with("CREATE DATABASE") { "postgres" } else { "template1" };
        self.query_in(node, database, sql).await
    }

    /// Asks a node by SQL in one of its databases.
    ///
    /// # Errors
    /// What the node says, or that it does not answer: within 30 s, or 3 s if it does not even let one in.
    pub async fn query_in(&self, node: usize, database: &str, sql: &str) -> anyhow::Result<String> {
        let address = self.nodes[node].port.address();
        let mut psql = process::command(&programs::find("psql")?, "KILL", None);
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--username=postgres"]);
        psql.arg(format!("--host={}", address.ip())).arg(format!("--port={}", address.port()));
        psql.arg(format!("--dbname={database}")).arg(format!("--command={sql}"));
        psql.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", CONNECT_WAIT);
        process::run_within(psql, ANSWER_WAIT).await
    }

    /// Where a node writes what it does.
    #[must_use]
    pub fn log(&self, node: usize) -> PathBuf {
        self.nodes[node].slot.log()
    }

    /// The directory of all nodes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }
}
