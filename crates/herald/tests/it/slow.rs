//! Peers that are slow, gone or too many.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::support::{
    drafts::{Draft, json},
    http::{self, Events, identified, poll_through},
    server::{Server, herald},
};
use rand::{SeedableRng as _, rngs::StdRng};

/// More than the buffers between server and reader hold.
const STORED: usize = 40_000;
const HER_ID: u32 = 7;

/// Appends `count` notifications for [`HER_ID`].
async fn fill(client: &reqwest::Client, server: &Server, count: usize) {
    let mut rng = StdRng::seed_from_u64(7);
    let drafts: Vec<_> = (0..count).map(|_| Draft::random(&mut rng, &[HER_ID])).collect();
    for drafts in drafts.chunks(1000) {
        let request = identified(client.post(format!("{}/notifications", server.url())));
        let request = request.header("content-type", "application/json").body(json(drafts));
        assert_eq!(request.send().await.expect("an answer").status(), 201);
    }
}

async fn metric(client: &reqwest::Client, server: &Server, name: &str) -> Option<f64> {
    let url = format!("http://{}/metrics", server.ops);
    let text = client.get(url).send().await.expect("metrics").text().await.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.parse().expect("a number"))
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_resumes_without_gap_or_repeat() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--stall-timeout", "300ms", "--drain", "0s"]).await;
    let client = http::client();
    fill(&client, &server, STORED).await;

    let mut stream = TcpStream::connect(server.api).expect("a connection");
    write!(
        stream,
        "GET /notifications/stream?HerIds={HER_ID}&Offset=0 HTTP/1.1\r\nhost: test\r\n\
         api-version: 3\r\nnhn-source-system: tests/1\r\naccept: text/event-stream\r\n\r\n"
    )
    .expect("a request");
    let stalled = "herald_http_stalled_total{what=\"connection\"}";
    while metric(&client, &server, stalled).await.is_none() {}
    while metric(&client, &server, "herald_open_streams").await != Some(0.0) {}

    // What had been sent before is still there, its last event perhaps cut in two.
    let mut sent = Vec::new();
    let _ = stream.read_to_end(&mut sent);
    let text = String::from_utf8_lossy(&sent);
    let whole = text.rsplit_once("\n\n").expect("whole events").0;
    let offset = |line: &str| line.strip_prefix("id: ")?.parse::<u64>().ok();
    let mut read: Vec<u64> = whole.lines().filter_map(offset).collect();
    assert!(!read.is_empty() && read.len() < STORED, "{} events", read.len());
    let after = *read.last().expect("an event");
    let mut events =
        Events::open(&client, &server.url(), &[HER_ID], after).await.expect("a stream");
    while read.len() < STORED {
        read.push(events.next().await.expect("an event").0);
    }
    let stored = poll_through(&client, &server.url(), &[HER_ID], 0).await;
    assert!(read.iter().eq(stored.iter().map(|(offset, _)| offset)));
}

/// A server that may open few files.
struct Cramped {
    child: Child,
    api: SocketAddr,
}

impl Cramped {
    fn start(dir: &Path, files: u32) -> Self {
        let program = herald().get_program().to_owned();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {files}; exec \"$0\" \"$@\""))
            .arg(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(dir)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains("listening"));
        let line: serde_json::Value =
            serde_json::from_str(&line.expect("it listens")).expect("JSON");
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        let api = line["api"].as_str().expect("an address").parse().expect("an address");
        Self { child, api }
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks for `/ping`; whether it was answered.
fn ping(api: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(api).expect("the system accepts");
    stream.write_all(b"GET /ping HTTP/1.0\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.contains("pong")
}

#[test]
fn a_server_out_of_file_descriptors_goes_on_when_there_are_some_again() {
    const FILES: u32 = 64;
    let dir = tempfile::tempdir().expect("a directory");
    let server = Cramped::start(dir.path(), FILES);
    while !ping(server.api) {}
    let connect = |_| TcpStream::connect(server.api).expect("the system accepts");
    let idle: Vec<_> = (0..FILES * 2).map(connect).collect();
    drop(idle);
    assert!(ping(server.api));
}
