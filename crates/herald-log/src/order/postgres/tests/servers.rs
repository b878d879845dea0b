//! Real servers for tests: one, or a primary with standbys.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

const PATIENCE: Duration = Duration::from_secs(30);

/// Some servers, ended when this is dropped.
pub(super) struct Servers {
    dir: TempDir,
    pub(super) nodes: Vec<Node>,
}

pub(super) struct Node {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) port: u16,
    process: Option<Child>,
}

/// PostgreSQL does not run as root.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

fn owner() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(|id| id.parse().unwrap());
    Some((fields.next()?, fields.next()?))
}

fn program(name: &str) -> Command {
    let dir = Command::new("pg_config").arg("--bindir").output().expect("pg_config is there");
    let path = Path::new(String::from_utf8(dir.stdout).unwrap().trim()).join(name);
    let mut command = Command::new("setpriv");
    // What a test leaves behind when it is killed ends with it.
    command.arg("--pdeathsig=KILL");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    }
    command.arg("--").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Servers {
    /// One server, with nothing in it.
    pub(super) async fn one(settings: &str) -> Self {
        let dir = TempDir::new().unwrap();
        if is_root() {
            let (user, group) = owner().expect("the system has a user postgres");
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let mut servers = Self { dir, nodes: Vec::new() };
        let node = servers.add();
        run(program("initdb")
            .args(["-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&node.dir));
        let all = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
                   shared_buffers = 32MB\nmax_connections = 60\nwal_keep_size = 256MB\n";
        node.configure(&format!("{all}{settings}\n"));
        servers.nodes[0].start().await;
        servers
    }

    /// A primary n0, and standbys n1 and n2, of which one must confirm each commit.
    pub(super) async fn three() -> Self {
        let mut servers = Self::one("").await;
        for _ in 0..2 {
            let primary = servers.nodes[0].port;
            let node = servers.add();
            node.copy_of(primary).await;
        }
        for node in &mut servers.nodes[1..] {
            node.start().await;
        }
        servers.nodes[0].set("synchronous_standby_names", "ANY 1 (n1, n2)").await;
        servers
    }

    fn add(&mut self) -> &Node {
        let name = format!("n{}", self.nodes.len());
        let dir = self.dir.path().join(&name);
        self.nodes.push(Node { name, dir, port: free_port(), process: None });
        self.nodes.last().unwrap()
    }

    pub(super) fn url(&self, database: &str) -> String {
        let hosts: Vec<_> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("postgres://postgres@{}/{database}", hosts.join(","))
    }
}

impl Node {
    fn configure(&self, lines: &str) {
        let path = self.dir.join("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{lines}port = {}\n", self.port)).unwrap();
    }

    /// Makes this a standby of another.
    pub(super) async fn copy_of(&self, primary: u16) {
        let from =
            format!("host=127.0.0.1 port={primary} user=postgres application_name={}", self.name);
        run(program("pg_basebackup")
            .args(["-R", "-c", "fast", "-N", "-d", &from, "-D"])
            .arg(&self.dir));
        self.configure("");
    }

    pub(super) async fn start(&mut self) {
        let log = fs::File::create(self.dir.with_extension("log")).unwrap();
        let begun = Instant::now();
        loop {
            let process = self.process.get_or_insert_with(|| {
                let log = log.try_clone().unwrap();
                program("postgres").arg("-D").arg(&self.dir).stderr(log).spawn().unwrap()
            });
            if process.try_wait().unwrap().is_some() {
                // Processes of its earlier life may still be about to notice that it has ended.
                self.process = None;
            }
            if self.connect("postgres").await.is_ok() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{} did not start: {}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    async fn connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The first column of the answers.
    pub(super) async fn sql(&self, database: &str, text: &str) -> Vec<String> {
        let client = self.connect(database).await.unwrap();
        let rows = client.simple_query(text).await.unwrap();
        let rows = rows.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        rows.collect()
    }

    /// Changes a setting, and sees to it that it is in force.
    pub(super) async fn set(&self, name: &str, value: &str) {
        let client = self.connect("postgres").await.unwrap();
        client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        self.until("postgres", &format!("SELECT current_setting('{name}')"), value).await;
    }

    /// Asks until the answer is the one that is waited for.
    pub(super) async fn until(&self, database: &str, question: &str, answer: &str) {
        let begun = Instant::now();
        loop {
            let found = self.sql(database, question).await;
            if found == [answer] {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}: {question} is {found:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        run(Command::new("kill").arg(format!("-{signal}")).arg(id));
    }

    /// Ends it: `KILL`, or `QUIT` (crash), `INT` (orderly).
    pub(super) fn end(&mut self, signal: &str) {
        self.signal(signal);
        self.process.take().unwrap().wait().unwrap();
    }

    /// Stops all its processes, or lets them go on.
    pub(super) fn signal_all(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let all = format!("{id} {children}");
        // One may have ended meanwhile.
        let _ =
            Command::new("kill").arg(format!("-{signal}")).args(all.split_whitespace()).status();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            self.process = None;
            let id = process.id().to_string();
            let _ = Command::new("kill").args(["-CONT", &id]).status();
            let _ = Command::new("kill").args(["-QUIT", &id]).status();
            let _ = process.wait();
        }
    }
}
