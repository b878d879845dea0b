//! The limit of a stream: hyper that writes prepared Server-Sent Events to its open streams, frame by frame.
//!
//! `GET /notifications/stream?HerIds=N` opens a stream; with `&Replay=M` it gets M prepared events at once, with
//! `&Offset=0` those that `--ascending` asks for.
//! `POST /notifications?To=N&Count=K&Over=R&Step=S` reads its body, writes K prepared events to the streams of the R HER-ids
//! N, N + S, … in turn, and answers as Herald does. Nothing is parsed, numbered or stored.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use herald_bench::bare::{Answer, fixed, number_in, serve};
use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, Response,
    body::{Body, Frame, Incoming},
};
use memchr::memmem;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// One event of Herald's, to the byte
    #[arg(long)]
    event: PathBuf,
    /// The body of Herald's answer to an append
    #[arg(long)]
    answer: PathBuf,
    /// Also prepare so many events, alike but for their offsets, which ascend from 1
    #[arg(long, default_value_t = 0)]
    ascending: u64,
}

/// How many bytes a piece of a replay has: what hyper writes fastest.
const REPLAY_BYTES: usize = 64 * 1024;
const CONNECTED: Bytes = Bytes::from_static(b"event: connected\ndata:\n\n");

/// The open streams by HER-id. A plain mutex: held for a lookup.
type Open = Mutex<HashMap<u64, Vec<UnboundedSender<Bytes>>>>;

struct Shared {
    open: Open,
    event: Bytes,
    replay_piece: Bytes,
    replay_events: u64,
    ascending: Bytes,
    answer: Bytes,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let event = fs::read(&args.event).context("could not read the event")?;
    let count = (REPLAY_BYTES / event.len()).max(1);
    let shared = Arc::new(Shared {
        open: Mutex::default(),
        replay_piece: event.repeat(count).into(),
        replay_events: count as u64,
        ascending: ascending(str::from_utf8(&event)?, args.ascending)?,
        event: event.into(),
        answer: fs::read(&args.answer).context("could not read the answer")?.into(),
    });
    serve(args.listen, move |request| answer(Arc::clone(&shared), request))
}

/// Events like `event` with the offsets from 1 to `count`.
fn ascending(event: &str, count: u64) -> anyhow::Result<Bytes> {
    let (_, rest) = event.split_once("\nevent: ").context("an event with an id and a type")?;
    let (start, _) = rest.rsplit_once("\"offset\":").context("an event with an offset")?;
    let mut events = Vec::new();
    for offset in 1..=count {
        write!(events, "id: {offset}\nevent: {start}\"offset\":{offset}}}\n\n")?;
    }
    Ok(events.into())
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let query = request.uri().query().unwrap_or("").to_owned();
    let number = |name| number_in(&query, name);
    if request.method() == Method::GET {
        let ascending = number("Offset") == Some(0);
        return stream(&shared, number("HerIds").unwrap_or(0), number("Replay"), ascending);
    }
    let _ = request.into_body().collect().await;
    let (first, count) = (number("To").unwrap_or(0), number("Count").unwrap_or(1));
    let (over, step) = (number("Over").unwrap_or(1), number("Step").unwrap_or(1));
    let open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
    for at in 0..count {
        for stream in open.get(&(first + at % over * step)).into_iter().flatten() {
            let _ = stream.send(shared.event.clone());
        }
    }
    drop(open);
    let mut answer = Response::new(fixed(shared.answer.clone()));
    *answer.status_mut() = hyper::StatusCode::CREATED;
    answer
}

fn stream(shared: &Arc<Shared>, her_id: u64, replay: Option<u64>, ascending: bool) -> Answer {
    let (sender, receiver) = unbounded_channel();
    let _ = sender.send(CONNECTED);
    if replay.is_none() {
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.entry(her_id).or_default().push(sender);
    }
    let body = Events {
        receiver,
        replay: replay.unwrap_or(0),
        ascending: if ascending { shared.ascending.clone() } else { Bytes::new() },
        shared: Arc::clone(shared),
    };
    let answer = Response::builder()
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store")
        .header("connection", "close");
    answer.body(body.boxed_unsync()).expect("the headers are constants")
}

/// The events of one stream.
struct Events {
    receiver: UnboundedReceiver<Bytes>,
    replay: u64,
    ascending: Bytes,
    shared: Arc<Shared>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Poll::Ready(Some(event)) = self.receiver.poll_recv(cx) {
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        if !self.ascending.is_empty() {
            // Whole events, as Herald's chunks have: a reader that counts lines does not see one that a chunk's end cuts.
            let most = self.ascending.len().min(REPLAY_BYTES);
            let end = memmem::rfind(&self.ascending[..most], b"\n\n").map_or(most, |at| at + 2);
            return Poll::Ready(Some(Ok(Frame::data(self.ascending.split_to(end)))));
        }
        match self.replay {
            0 => Poll::Pending,
            left => {
                let events = left.min(self.shared.replay_events);
                self.replay -= events;
                let bytes = events as usize * self.shared.event.len();
                Poll::Ready(Some(Ok(Frame::data(self.shared.replay_piece.slice(..bytes)))))
            }
        }
    }
}
