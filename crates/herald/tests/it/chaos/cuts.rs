//! A stream that breaks off, in whatever way and at whatever byte, or comes in crumbs.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{join, sync::watch};

use super::{Log, NOBODY, append, client, drafts, everything, follow, stream_until};
use crate::support::{
    drafts::Draft,
    proxy::{End, Fault, Proxy, Size},
    server::Server,
};

const HER_ID: u32 = 8_139_764;
/// Clients at the same time; each takes three sockets of this process, which may have a thousand.
const AT_ONCE: usize = 200;

/// A server with four notifications for one receiver, at offsets of four digits: the bytes of a stream of them stay
/// where they are when the tail moves.
struct Stage {
    server: Server,
    log: Log,
    /// The length of a stream's answer up to its first heartbeat.
    length: usize,
    /// How many that are for nobody have moved the tail.
    moves: AtomicU64,
    _directory: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path(), &["--heartbeat", "1s"]).await;
        let producer = client(&server.url(), "producer");
        append(&producer, &drafts(1, 1000, &[NOBODY])).await;
        append(&producer, &four()).await;
        let log = Log::of(&server, &[HER_ID]).await;
        let length = stream_until(&server, HER_ID, b": until 1004\n\n\r\n").await.len();
        Self { server, log, length, moves: AtomicU64::new(0), _directory: directory }
    }

    /// A client whose first stream breaks; the judgement falls when the next one is open and its server has looked as far
    /// as the tail that is moved then.
    async fn survive(&self, proxy: &Proxy, caller: &str) {
        let mut notifications = everything(&client(&proxy.url, caller), &[HER_ID]);
        let (end, end_known) = watch::channel(None);
        let move_tail = async {
            proxy.streams_asked(caller, 2).await;
            let seed = 1000 + self.moves.fetch_add(1, Ordering::Relaxed);
            let producer = client(&self.server.url(), "producer");
            end.send_replace(Some(append(&producer, &drafts(seed, 1, &[NOBODY])).await));
        };
        let (handed, ()) = join!(follow(&mut notifications, end_known), move_tail);
        self.log.judge(caller, &handed);
    }

    /// All these clients, many of them at the same time.
    async fn survive_all(&self, proxy: &Proxy, callers: impl IntoIterator<Item = String>) {
        let all =
            callers.into_iter().map(|caller| async move { self.survive(proxy, &caller).await });
        stream::iter(all).buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

/// The same each time, with something of every kind in them.
fn four() -> Vec<Draft> {
    let mut drafts = drafts(2, 4, &[HER_ID]);
    for (draft, text) in
        drafts.iter_mut().zip(["", "Melding mottatt", "data: \r\n\r\n", "æ😀\u{2028}"])
    {
        draft.description = text.to_owned();
    }
    drafts
}

/// The number that a caller is named by.
fn number_of(caller: &str) -> usize {
    caller.rsplit(' ').next().unwrap().parse().unwrap()
}

/// For each byte of a stream's answer, a client whose first stream is cut there.
async fn cut_at_every_byte(cut: fn(usize) -> Fault) {
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.server.api, move |request, number| {
        let at = number_of(request.header("nhn-source-system").unwrap());
        if number == 0 { cut(at) } else { Fault::Pass }
    });
    assert!(stage.length > 1500, "there is something to cut: {} bytes", stage.length);
    stage.survive_all(&proxy, (0..=stage.length).map(|at| format!("cut at {at}"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_closed_at_any_byte_of_its_answer_goes_on_without_gap_or_repeat() {
    cut_at_every_byte(|at| Fault::Cut { at, end: End::Close }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_reset_at_any_byte_of_its_answer_goes_on_without_gap_or_repeat() {
    cut_at_every_byte(|at| Fault::Cut { at, end: End::Reset }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_seems_to_end_at_any_byte_of_its_answer_goes_on_without_gap_or_repeat() {
    cut_at_every_byte(|at| Fault::Unframed { at }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_a_wrong_chunk_goes_on_without_gap_or_repeat() {
    // `connected`, the four, a heartbeat.
    const CHUNKS: usize = 3;
    const SIZES: [Size; 4] = [Size::Garbage, Size::TooLarge, Size::TooSmall, Size::HalfAndTheEnd];
    let stage = Stage::new().await;
    let proxy = Proxy::start(stage.server.api, |request, number| {
        let which = number_of(request.header("nhn-source-system").unwrap());
        let (number_of_chunk, size) = (which / SIZES.len(), SIZES[which % SIZES.len()]);
        if number == 0 { Fault::Chunk { number: number_of_chunk, size } } else { Fault::Pass }
    });
    stage
        .survive_all(&proxy, (0..CHUNKS * SIZES.len()).map(|which| format!("chunk {which}")))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_comes_byte_by_byte_or_in_fits_and_starts_is_whole() {
    const PIECES: [(usize, Duration); 4] = [
        (1, Duration::ZERO),
        (1, Duration::from_millis(1)),
        (7, Duration::from_millis(5)),
        (900, Duration::from_millis(700)),
    ];
    let stage = Stage::new().await;
    // The first stream breaks off somewhere, the second is the slow one.
    let proxy = Proxy::start(stage.server.api, |request, number| {
        let which = number_of(request.header("nhn-source-system").unwrap());
        let (bytes, pause) = PIECES[which / 2];
        match number {
            0 => Fault::Cut { at: 600 + 400 * (which % 2), end: End::Close },
            _ => Fault::Pieces { bytes, pause },
        }
    });
    stage.survive_all(&proxy, (0..PIECES.len() * 2).map(|which| format!("pieces {which}"))).await;
}
