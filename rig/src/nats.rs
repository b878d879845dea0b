//! A NATS cluster with JetStream: real `nats-server` processes.

mod config;
mod credentials;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    Cut, Link, Pace, Tls, Way,
    home::Home,
    http,
    link::Mesh,
    node::{Kept, Slot, copy_dir, must_be_down, remove_dir},
    ports::Port,
    process, programs,
};

/// How long a start or an election may take; never waited for when all is well.
const WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a node may take to end by itself.
const TERMINATE_WAIT: Duration = Duration::from_secs(30);
/// More would not be a cluster that anybody runs for Herald.
const NODES_MAX: usize = 5;

/// Who may connect as what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Anybody is `herald`.
    #[default]
    Open,
    /// The user `herald` with the password [`PASSWORD`].
    Password,
    /// Whoever has the token [`PASSWORD`]; there is no `sys` then.
    Token,
    /// Whoever has the file [`Cluster::credentials`]: a signed user and its key, of an account that an operator has signed.
    /// There is no `sys` then.
    Credentials,
}

/// What `herald`'s password is, and `sys`'s, and the token.
pub const PASSWORD: &str = "not-a-secret";

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One node, or three, which make a cluster.
    pub nodes: usize,
    /// Where its files are; a temporary directory if none is given.
    pub dir: Option<PathBuf>,
    /// As in the server's file.
    pub max_payload: String,
    /// As in the server's file: `always`, or a time, which is unsafe.
    pub sync_interval: String,
    /// Who may connect.
    pub access: Access,
    /// Clients must speak TLS, and routes do.
    pub tls: Option<Tls>,
    /// Nodes reach each other over links, which [`Cluster::cut`] cuts.
    pub linked: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: 3,
            dir: None,
            max_payload: "8MB".to_owned(),
            sync_interval: "always".to_owned(),
            access: Access::default(),
            tls: None,
            linked: false,
        }
    }
}

impl Settings {
    /// Starts the nodes and waits until JetStream can be used.
    ///
    /// The user `sys` (password [`PASSWORD`]) belongs to the system account and may ask `$SYS.REQ.SERVER.PING.JSZ`; `herald`
    /// may too, since its account imports that subject.
    ///
    /// # Errors
    /// When a program is missing or a node does not become ready.
    pub async fn start(self) -> anyhow::Result<Cluster> {
        ensure!((1..=NODES_MAX).contains(&self.nodes), "1 to {NODES_MAX} nodes");
        let program = programs::find("nats-server")?;
        let home = Home::new(self.dir.as_deref(), "nats")?;
        let mut nodes = Vec::new();
        for number in 1..=self.nodes {
            nodes.push(Node::new(&home, number)?);
        }
        let routes: Vec<SocketAddr> = nodes.iter().map(|node| node.routes.address()).collect();
        let mesh = if self.linked { Mesh::between(&routes)? } else { Mesh::default() };
        let signed = match self.access {
            Access::Credentials => Some(credentials::Signed::make(&home.join("herald.creds"))?),
            Access::Open | Access::Password | Access::Token => None,
        };
        let cluster = Cluster { nodes, mesh, settings: self, signed, program, home };
        for node in 0..cluster.nodes.len() {
            cluster.launch(node)?;
        }
        cluster.ready().await?;
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
    signed: Option<credentials::Signed>,
    program: PathBuf,
    home: Home,
}

#[derive(Debug)]
struct Node {
    slot: Slot,
    client: Port,
    routes: Port,
    monitor: Port,
}

impl Node {
    fn new(home: &Home, number: usize) -> anyhow::Result<Self> {
        let name = format!("n{number}");
        let dir = home.join(&name);
        std::fs::create_dir_all(&dir)?;
        let slot = Slot::new(name, dir);
        Ok(Self { slot, client: Port::free()?, routes: Port::free()?, monitor: Port::free()? })
    }

    fn store(&self) -> PathBuf {
        self.slot.dir.join("store")
    }

    async fn ask(&self, target: &str) -> anyhow::Result<Value> {
        let answer = http::get(self.monitor.address(), target).await?;
        ensure!(answer.status == 200, "{} answers {}", self.slot.name, answer.status);
        Ok(serde_json::from_str(&answer.body)?)
    }
}

impl Cluster {
    /// Starts so many nodes with what is usual.
    ///
    /// # Errors
    /// As [`Settings::start`].
    pub async fn start(nodes: usize) -> anyhow::Result<Self> {
        Settings { nodes, ..Settings::default() }.start().await
    }

    /// `nats://h1:p1,h2:p2,h3:p3`, with user or token before the first, and `tls://` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.addresses(), &self.user())
    }

    /// The URL for the user of the system account; the same as [`Self::url`] where there is none.
    #[must_use]
    pub fn system_url(&self) -> String {
        let user = match self.settings.access {
            Access::Token | Access::Credentials => self.user(),
            Access::Open | Access::Password => format!("sys:{PASSWORD}@"),
        };
        self.url_of(&self.addresses(), &user)
    }

    /// The file of who may connect; with [`Access::Credentials`].
    #[must_use]
    pub fn credentials(&self) -> Option<PathBuf> {
        self.signed.as_ref().map(|_| self.home.join("herald.creds"))
    }

    /// Links of one's own to all nodes, and a URL through them; no server tells a client another way.
    ///
    /// # Errors
    /// When there are no ports.
    pub fn way(&self) -> anyhow::Result<Way> {
        Way::new(&self.addresses(), |addresses| self.url_of(addresses, &self.user()))
    }

    /// Where clients connect, by node.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client.address()).collect()
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

    fn user(&self) -> String {
        match self.settings.access {
            Access::Open | Access::Credentials => String::new(),
            Access::Password => format!("herald:{PASSWORD}@"),
            Access::Token => format!("{PASSWORD}@"),
        }
    }

    fn url_of(&self, addresses: &[SocketAddr], user: &str) -> String {
        let scheme = if self.settings.tls.is_some() { "tls" } else { "nats" };
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("{scheme}://{user}{}", addresses.join(","))
    }

    fn launch(&self, node: usize) -> anyhow::Result<()> {
        let file = self.nodes[node].slot.dir.join("nats.conf");
        std::fs::write(&file, config::write(self, node))?;
        let mut command = process::command(&self.program, "KILL", None);
        command.arg("--config").arg(file);
        self.nodes[node].slot.start(command)
    }

    /// SIGKILL; the node is gone when this returns.
    pub fn kill(&self, node: usize) {
        self.nodes[node].slot.kill();
    }

    /// SIGSTOP: it keeps its connections and says nothing.
    pub fn stop(&self, node: usize) {
        self.nodes[node].slot.stop();
    }

    /// SIGCONT.
    pub fn go_on(&self, node: usize) {
        self.nodes[node].slot.go_on();
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it is down already, or does not end.
    pub async fn terminate(&self, node: usize) -> anyhow::Result<ExitStatus> {
        let slot = &self.nodes[node].slot;
        let mut process = slot.take().with_context(|| format!("{} is down", slot.name))?;
        process.end(Signal::TERM, TERMINATE_WAIT).await
    }

    /// Starts it again on its own ports and store, and waits for nothing; [`Self::ready`] does. Kills it first if it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&self, node: usize) -> anyhow::Result<()> {
        self.launch(node)
    }

    /// Whether the node has not ended; one that is stopped has not.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].slot.is_running()
    }

    /// Removes all that a node has stored, which must be down.
    ///
    /// # Errors
    /// When it runs.
    pub fn wipe(&self, node: usize) -> anyhow::Result<()> {
        must_be_down(&self.nodes[node].slot)?;
        remove_dir(&self.nodes[node].store())
    }

    /// Copies what a node has stored, which must be down.
    ///
    /// # Errors
    /// When it runs, or cannot be copied.
    pub async fn keep(&self, node: usize) -> anyhow::Result<Kept> {
        must_be_down(&self.nodes[node].slot)?;
        Kept::of(&self.nodes[node].store()).await
    }

    /// Puts back what was kept: what the node has acknowledged since is lost.
    ///
    /// # Errors
    /// When it runs, or cannot be copied.
    pub async fn put_back(&self, node: usize, kept: &Kept) -> anyhow::Result<()> {
        must_be_down(&self.nodes[node].slot)?;
        kept.put(&self.nodes[node].store()).await
    }

    /// Gives a node what another one has stored, both down.
    ///
    /// # Errors
    /// When one runs, or it cannot be copied.
    pub async fn copy_store(&self, from: usize, to: usize) -> anyhow::Result<()> {
        must_be_down(&self.nodes[from].slot)?;
        must_be_down(&self.nodes[to].slot)?;
        remove_dir(&self.nodes[to].store())?;
        copy_dir(&self.nodes[from].store(), &self.nodes[to].store()).await
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

    /// Waits until every node that runs, and is not stopped, is healthy and JetStream has a leader.
    ///
    /// # Errors
    /// When one ends, or it takes too long.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.slot.is_running()).collect();
        let began = Instant::now();
        for node in running {
            loop {
                node.slot.must_run()?;
                let outcome = self.look_at(node).await;
                let Err(error) = outcome else { break };
                if began.elapsed() > WAIT {
                    return Err(error).with_context(|| {
                        format!("{} is not ready after {WAIT:?}", node.slot.name)
                    });
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn look_at(&self, node: &Node) -> anyhow::Result<()> {
        let health = http::get(node.monitor.address(), "/healthz").await?;
        ensure!(health.status == 200, "not healthy: {}", health.body);
        if self.nodes.len() > 1 {
            let meta = node.ask("/jsz").await?;
            ensure!(leader(&meta["meta_cluster"]).is_some(), "JetStream has no leader");
        }
        Ok(())
    }

    /// The node that leads JetStream; waits until most agree on one that answers.
    ///
    /// # Errors
    /// When there is none for too long.
    pub async fn meta_leader(&self) -> anyhow::Result<usize> {
        self.agreed("/jsz", "JetStream", |page| leader(&page["meta_cluster"])).await
    }

    /// The node that leads a stream; waits until most agree on one that answers.
    ///
    /// # Errors
    /// When there is none for too long, or no such stream.
    pub async fn stream_leader(&self, stream: &str) -> anyhow::Result<usize> {
        let target = "/jsz?accounts=true&streams=true";
        self.agreed(target, stream, |page| stream_leader(page, stream)).await
    }

    async fn agreed(
        &self,
        target: &str,
        what: &str,
        leader: impl Fn(&Value) -> Option<String>,
    ) -> anyhow::Result<usize> {
        if self.nodes.len() == 1 {
            return Ok(0);
        }
        let began = Instant::now();
        loop {
            let mut votes: HashMap<String, Vec<usize>> = HashMap::new();
            for (index, node) in self.nodes.iter().enumerate() {
                let page = if node.slot.is_running() { node.ask(target).await.ok() } else { None };
                if let Some(leader) = page.as_ref().and_then(&leader) {
                    votes.entry(leader).or_default().push(index);
                }
            }
            for (name, voters) in votes {
                let index = self.nodes.iter().position(|node| node.slot.name == name);
                let leads = index.filter(|index| voters.contains(index));
                if let Some(index) = leads.filter(|_| voters.len() * 2 > self.nodes.len()) {
                    return Ok(index);
                }
            }
            if began.elapsed() > WAIT {
                bail!("{what} has no leader after {WAIT:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The nodes that a node is connected with.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn routes(&self, node: usize) -> anyhow::Result<Vec<usize>> {
        let page = self.nodes[node].ask("/routez").await?;
        let routes = page["routes"].as_array().context("no list of routes")?;
        let named = |name: &str| routes.iter().any(|route| route["remote_name"] == name);
        let others = self.nodes.iter().enumerate();
        Ok(others.filter(|(_, other)| named(&other.slot.name)).map(|(index, _)| index).collect())
    }

    /// What a node says of its JetStream (`/jsz`), with all streams.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn jsz(&self, node: usize) -> anyhow::Result<Value> {
        self.nodes[node].ask("/jsz?accounts=true&streams=true&config=true").await
    }

    /// Where a node writes what it does.
    #[must_use]
    pub fn log(&self, node: usize) -> PathBuf {
        self.nodes[node].slot.log()
    }

    /// The directory of all nodes.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.home.path()
    }
}

/// The name of a leader that is said to be there.
fn leader(group: &Value) -> Option<String> {
    group["leader"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn stream_leader(page: &Value, stream: &str) -> Option<String> {
    let accounts = page["account_details"].as_array()?.iter();
    let streams = accounts.filter_map(|account| account["stream_detail"].as_array()).flatten();
    let mut named = streams.filter(|detail| detail["name"] == stream);
    named.find_map(|detail| leader(&detail["cluster"]))
}
