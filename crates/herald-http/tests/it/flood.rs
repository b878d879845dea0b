//! HTTP/2 spoken frame by frame by a peer that means no good.

use herald_http::server::{HTTP2_RESETS_MAX, ServerLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    limits::limited_by,
    serving::{Config, PATIENCE, Serving, ask},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&len.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /ping` or `POST /ping`, as a block of fields that are nearly all in the table of RFC 7541.
fn block(method: u8) -> Vec<u8> {
    let mut block = vec![method, 0x86, 0x04, 5];
    block.extend_from_slice(b"/ping");
    block.extend_from_slice(&[0x01, 1, b'x']);
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(GET))
}

fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

fn greeting() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// A peer that has sent this much, in one piece as far as the system lets it.
async fn peer(serving: &Serving, frames: &[Vec<u8>]) -> TcpStream {
    let mut stream = TcpStream::connect(serving.api).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // The server may have closed before all is sent.
    let _ = stream.write_all(&[greeting(), frames.concat()].concat()).await;
    stream
}

/// Reads frames until one of `kind` that is no acknowledgement: its stream and payload; `None` when the server closes.
async fn read_frame(stream: &mut TcpStream, kind: u8) -> Option<(u32, Vec<u8>)> {
    let reading = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(len).unwrap()];
            stream.read_exact(&mut payload).await.ok()?;
            if head[3] == kind && (kind == HEADERS || head[4] & ACK == 0) {
                let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                return Some((number, payload));
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("the server says something or closes")
}

/// Why the server ends the connection.
async fn goaway_reason(stream: &mut TcpStream) -> u32 {
    let (_, payload) = read_frame(stream, GOAWAY).await.expect("the server says why it goes");
    u32::from_be_bytes(payload[4..8].try_into().unwrap())
}

fn resets(count: usize) -> Vec<Vec<u8>> {
    let streams = (1..).step_by(2).take(count);
    streams.flat_map(|stream| [get(stream), reset(stream)]).collect()
}

#[tokio::test]
async fn requests_taken_back_in_a_burst_end_their_connection_and_harm_nobody_else() {
    let serving = Serving::start(&Config::default());
    let before = limited_by(&serving, "http2").await;
    let next = u32::try_from(HTTP2_RESETS_MAX * 2 + 1).unwrap();
    let mut frames = resets(HTTP2_RESETS_MAX);
    frames.push(get(next));
    let mut calm = peer(&serving, &frames).await;
    assert_eq!(read_frame(&mut calm, HEADERS).await.expect("an answer").0, next);

    let mut rapid = peer(&serving, &resets(HTTP2_RESETS_MAX + 1)).await;
    assert_eq!(goaway_reason(&mut rapid).await, ENHANCE_YOUR_CALM);
    assert!(read_frame(&mut rapid, HEADERS).await.is_none(), "the connection is closed");
    assert!(limited_by(&serving, "http2").await > before);

    calm.write_all(&get(next + 2)).await.unwrap();
    assert_eq!(read_frame(&mut calm, HEADERS).await.expect("an answer").0, next + 2);
    assert!(ask(serving.api, "/ping").await.ends_with("pong"));
}

#[tokio::test]
async fn how_many_requests_may_be_taken_back_is_a_setting() {
    let limits = ServerLimits { http2_resets_max: 3, ..ServerLimits::default() };
    let serving = Serving::start(&Config { limits, ..Config::default() });
    let mut rapid = peer(&serving, &resets(4)).await;
    assert_eq!(goaway_reason(&mut rapid).await, ENHANCE_YOUR_CALM);
}

#[tokio::test]
async fn fields_without_end_end_their_connection() {
    let serving = Serving::start(&Config::default());
    let mut frames = vec![frame(HEADERS, END_STREAM, 1, &block(GET))];
    // A field each, of which there is no end (CVE-2024-27316).
    let field = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat();
    frames.extend(vec![frame(CONTINUATION, 0, 1, &field); 100]);
    let mut flood = peer(&serving, &frames).await;
    assert_eq!(goaway_reason(&mut flood).await, ENHANCE_YOUR_CALM);
    assert!(ask(serving.api, "/ping").await.ends_with("pong"));
}

#[tokio::test]
async fn frames_of_data_without_data_end_their_connection_and_so_do_tiny_ones() {
    let serving = Serving::start(&Config::default());
    // `/slow` reads no body, so that what comes is kept.
    let mut slow = vec![POST, 0x86, 0x04, 5];
    slow.extend_from_slice(b"/slow");
    slow.extend_from_slice(&[0x01, 1, b'x']);
    let request = frame(HEADERS, END_HEADERS, 1, &slow);
    let of = |count: usize, data: &[u8]| {
        [vec![request.clone()], vec![frame(DATA, 0, 1, data); count], vec![get(3)]].concat()
    };
    // h2 drops a hundred empty ones.
    for (count, data) in [(100, &b""[..]), (1000, b"x")] {
        let mut calm = peer(&serving, &of(count, data)).await;
        assert_eq!(read_frame(&mut calm, HEADERS).await.expect("an answer").0, 3);
    }
    for (count, data) in [(101, &b""[..]), (100_000, b"x")] {
        let before = limited_by(&serving, "http2").await;
        let mut flood = peer(&serving, &of(count, data)).await;
        // It closes with so much unread that its reason may not arrive.
        while read_frame(&mut flood, GOAWAY).await.is_some() {}
        assert!(limited_by(&serving, "http2").await > before, "{count}");
    }
    assert!(ask(serving.api, "/ping").await.ends_with("pong"));
}

#[tokio::test]
async fn pings_and_settings_whose_answers_nobody_reads_stop_being_read() {
    let serving = Serving::start(&Config::default());
    for flood in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let stream = peer(&serving, &[]).await;
        let piece = flood.repeat(10_000);
        let mut sent = 0_usize;
        // What the system takes, and then no more: nothing piles up in the server.
        loop {
            match stream.try_write(&piece) {
                Ok(count) => sent += count,
                Err(_) => {
                    let room = timeout(std::time::Duration::from_millis(500), stream.writable());
                    if room.await.is_err() {
                        break;
                    }
                }
            }
            assert!(sent < 200_000_000, "the server reads on for ever");
        }
        assert!(ask(serving.api, "/ping").await.ends_with("pong"));
    }
}
