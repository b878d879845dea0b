//! The client's parser of event streams against a browser's, on every stream of the fuzzer's corpus.
//!
//! A browser shows events only. Retries and comments are compared with those of the npm package `eventsource-parser`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use herald_client::sse::{Item, Parser};
use serde::Deserialize;

use super::{program, run, script};

/// In a stream that is sent slowly, so many bytes come one at a time, and this long after each other.
const SINGLE_BYTES: usize = 200;
const PACE: Duration = Duration::from_millis(1);

/// Where the npm package differs: its numbers are not exact, and a time longer than u64 milliseconds is one to us.
const OTHERWISE: [&str; 1] = ["retry-huge"];

type Streams = BTreeMap<String, Vec<u8>>;
/// Type, data, last id.
type Event = (String, String, String);

#[derive(Debug, Deserialize)]
struct Shown {
    events: Vec<Event>,
    slowly: Vec<Event>,
    items: Vec<String>,
}

fn corpus() -> Streams {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/sse");
    let files = fs::read_dir(corpus).expect("a corpus").map(|entry| entry.expect("a file").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    files.map(|path| (name(&path), fs::read(&path).expect("a stream"))).collect()
}

fn ours(stream: &[u8]) -> (Vec<Event>, Vec<String>) {
    let mut parser = Parser::new();
    parser.push(stream);
    let (mut events, mut items) = (Vec::new(), Vec::new());
    while let Some(item) = parser.item().expect("short enough") {
        match item {
            Item::Event(event) => {
                events.push((event.name.to_string(), event.data, event.last_id.to_string()));
            }
            Item::Comment(text) => {
                let text = String::from_utf8_lossy(&text);
                // The npm package takes one space away, as behind the colon of a field.
                items.push(format!("comment {}", text.strip_prefix(' ').unwrap_or(&text)));
            }
            Item::Retry(retry) => items.push(format!("retry {}", retry.as_millis())),
        }
    }
    (events, items)
}

/// Answers `/NAME` with the stream of that name, `/NAME?slowly` with pauses, and all else with an empty page.
fn serve(streams: Streams) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let streams = Arc::new(streams);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let streams = Arc::clone(&streams);
            // A browser may go away whenever it likes.
            thread::spawn(move || answer(&streams, connection).ok());
        }
    });
    url
}

fn answer(streams: &Streams, mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let target = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (name, query) = target.split_once('?').unwrap_or((target, ""));
    let (kind, body) = match streams.get(name) {
        Some(stream) => ("event-stream", stream.as_slice()),
        None => ("html", &b"<!doctype html>"[..]),
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/{kind}\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes())?;
    let single = if query == "slowly" { body.len().min(SINGLE_BYTES) } else { 0 };
    for byte in &body[..single] {
        connection.write_all(&[*byte])?;
        thread::sleep(PACE);
    }
    connection.write_all(&body[single..])
}

#[test]
#[ignore = "needs tools: cargo xtask foreign"]
fn a_browser_reads_the_same_events_in_every_stream() {
    let streams = corpus();
    let read: BTreeMap<_, _> = streams.iter().map(|(name, stream)| (name, ours(stream))).collect();
    let names: Vec<_> = streams.keys().collect();
    let events = read.values().flat_map(|(events, _)| events);
    let types: BTreeSet<_> = events.map(|(kind, ..)| kind).collect();
    let url = serve(streams.clone());
    let mut browser = program("node");
    browser.arg(script("event_streams.mjs")).arg(&url);
    browser.arg(serde_json::to_string(&names).expect("text"));
    browser.arg(serde_json::to_string(&types).expect("text"));
    let output = run(&mut browser);
    let shown: BTreeMap<String, Shown> = serde_json::from_slice(&output.stdout).expect("streams");
    assert_eq!(shown.len(), streams.len());
    let mut differ = Vec::new();
    for (name, shown) in shown {
        let (events, items) = &read[&name];
        for (how, theirs) in [("at once", &shown.events), ("slowly", &shown.slowly)] {
            if events != theirs {
                differ.push(format!("{name} {how}: {events:?}, the browser {theirs:?}"));
            }
        }
        if items != &shown.items && !OTHERWISE.contains(&name.as_str()) {
            differ.push(format!("{name}: {items:?}, the npm package {:?}", shown.items));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
