//! A public set of conformance vectors for parsers of event streams, and the parser that it comes with.
//!
//! Both are of the crate `sse-parse`, whose package has its tests in it.

use std::{env, fs, path::Path, process::Command};

use herald_client::sse::{Item, Parser};
use serde_json::Value;

/// The vectors of version 0.1.0, the two that are made by a rule among them.
const VECTORS: usize = 36;

/// What both parsers say about an event: its type, its data, the last id.
type Read = (String, String, String);

fn ours<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Read>, Vec<u64>) {
    let mut parser = Parser::new();
    let (mut events, mut retries) = (Vec::new(), Vec::new());
    for piece in pieces {
        parser.push(piece);
        while let Some(item) = parser.item().expect("no vector is as long as an event may be") {
            match item {
                Item::Event(event) => {
                    events.push((event.name.to_string(), event.data, event.last_id.to_string()));
                }
                Item::Retry(retry) => retries.push(retry.as_millis().try_into().expect("u64")),
                Item::Comment(_) => {}
            }
        }
    }
    (events, retries)
}

#[test]
fn every_vector_of_the_public_set_is_read_as_it_says() {
    let set: Value = serde_json::from_str(&vectors()).expect("the set is JSON");
    assert_eq!(set["schema"], "sse-conformance-vectors/1");
    let vectors = set["vectors"].as_array().expect("vectors");
    assert_eq!(vectors.len(), VECTORS);
    for vector in vectors {
        let (pieces, expected) = (pieces(vector), &vector["expected"]);
        let (events, retries) = ours(pieces.iter().map(Vec::as_slice));
        assert_eq!(events, expected_events(expected), "{}", vector["id"]);
        if let Some(updates) = expected["retry_updates"].as_array() {
            let updates: Vec<u64> = updates.iter().filter_map(Value::as_u64).collect();
            assert_eq!(retries, updates, "{}", vector["id"]);
        }
        let stream = pieces.concat();
        assert_eq!(ours(stream.chunks(1)), (events, retries), "{} byte by byte", vector["id"]);
    }
}

#[test]
fn the_other_parser_reads_the_same_events_in_the_whole_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/sse");
    for entry in fs::read_dir(corpus).expect("a corpus") {
        let path = entry.expect("a corpus can be listed").path();
        let stream = fs::read(&path).expect("an input can be read");
        let mut parser = sse_parse::SseParser::new();
        parser.feed(&stream);
        parser.finish();
        let events = std::iter::from_fn(|| parser.next_event());
        let events: Vec<Read> = events.map(|event| (event.event, event.data, event.id)).collect();
        assert_eq!(ours(stream.chunks(usize::MAX)).0, events, "{}", path.display());
    }
}

/// The file lies beside the crate's manifest, wherever Cargo keeps that.
fn vectors() -> String {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version=1", "--locked", "--no-default-features"]);
    metadata.arg("--manifest-path");
    metadata.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let output = metadata.output().expect("Cargo runs the tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut packages = metadata["packages"].as_array().expect("packages").iter();
    let package = packages.find(|package| package["name"] == "sse-parse").expect("a dependency");
    let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
    fs::read_to_string(manifest.with_file_name("tests/conformance-vectors.json")).expect("a set")
}

fn pieces(vector: &Value) -> Vec<Vec<u8>> {
    let generator = &vector["generator"];
    let text = |name: &str| generator[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| generator[name].as_u64().unwrap_or(1).try_into().expect("small");
    let stream = match generator["kind"].as_str() {
        None => {
            let pieces = vector["chunks"].as_array().expect("chunks");
            return pieces.iter().map(piece).collect();
        }
        Some("repeat_stream") => text("unit_text").repeat(number("count")),
        Some("long_line") => {
            text("prefix") + &text("fill_char").repeat(number("fill_count")) + &text("suffix")
        }
        Some(other) => panic!("no rule {other}"),
    };
    stream.as_bytes().chunks(number("chunk_bytes")).map(<[u8]>::to_vec).collect()
}

fn piece(chunk: &Value) -> Vec<u8> {
    if let Some(text) = chunk["text"].as_str() {
        return text.as_bytes().to_vec();
    }
    let hex = chunk["hex"].as_str().expect("text or hex").as_bytes();
    let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).expect("hex"), 16).expect("hex");
    hex.chunks(2).map(byte).collect()
}

fn expected_events(expected: &Value) -> Vec<Read> {
    let events = &expected["events"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |event: &Value| (text(&event["event"]), text(&event["data"]), text(&event["id"]));
    let number = |name: &str| events[name].as_u64().unwrap_or(1).try_into().expect("small");
    match events["kind"].as_str() {
        None => events.as_array().expect("events").iter().map(read).collect(),
        Some("repeat") => vec![read(&events["event"]); number("count")],
        Some("single_fill_event") => {
            let data = text(&events["fill_char"]).repeat(number("fill_count"));
            vec![(text(&events["event"]), data, text(&events["id"]))]
        }
        Some(other) => panic!("no rule {other}"),
    }
}
