//! Row 19: a poller that behaves, beside connections that do not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{
    Bench,
    polls::{Expected, Polls},
    streams::Background,
};
use crate::{
    fill::fill,
    load::Load,
    measure::{Figure, Target},
    requests::{self, her_ids},
    server::{Server, own_cpu_seconds},
};

/// Connections that mean no good.
const HOSTILE: usize = 2000;
/// Fewer places than those want, in the second figure.
const PLACES_OF: usize = 2;
/// What the poller does: so much that a second has a p99, so little that the server is mostly idle.
const RATE: f64 = 500.0;
const LANES: usize = 8;
const STORED: u64 = 50_000;
/// So few that each has many pages.
const RECEIVERS: u64 = 10;
/// How often a slow peer sends or takes a little.
const SLOW_EVERY: Duration = Duration::from_secs(1);
const TAKEN_BYTES: usize = 256;
/// How many requests an HTTP/2 peer takes back at once: more than it may.
const RESETS: u32 = 30;
/// How long one that comes and goes stays away.
const CHURN_EVERY: Duration = Duration::from_millis(200);
/// How long any other waits before it comes again.
const COME_AGAIN: Duration = Duration::from_secs(1);
const START_MAX: Duration = Duration::from_secs(30);

pub(super) fn beside_hostile(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let hostile = HOSTILE.min(bench.size.streams);
    let places = (hostile / PLACES_OF).to_string();
    let described = format!("polls at {RATE}/s, p99, beside {hostile} hostile connections");
    let mut figures = Vec::new();
    for (row, what, flags) in [
        ("19a", described.clone(), vec![]),
        (
            "19b",
            format!("{described} for which there are {places} places"),
            vec!["--connections-max", &places],
        ),
    ] {
        let mut figure = Figure::new(row, what, "µs", Target::AtMost(3.0));
        let herald = bench.places.fresh_herald(&flags)?;
        fill(&herald, STORED, RECEIVERS)?;
        let query = format!("{}&Offset={}", her_ids(0..RECEIVERS), herald.tail()?);
        let mut polls = Polls::new(vec![requests::poll(&query)], Expected::Empty);
        let mut load = Load::new(herald.address, LANES)?;
        let (mut quiet_cores, mut cores) = (Cores::default(), Cores::default());
        for _ in 0..bench.size.rounds {
            let quiet = p99(bench, &herald, &mut load, &mut polls, &mut quiet_cores)?;
            let attack = Attack::start(&herald, hostile)?;
            let attacked = p99(bench, &herald, &mut load, &mut polls, &mut cores)?;
            attack.stop()?;
            figure.round(attacked, quiet);
        }
        figure.note = format!(
            "of a core, Herald {:.2} and {:.2} quiet, poller and attackers {:.2} and {:.2} quiet",
            cores.herald / cores.seconds,
            quiet_cores.herald / quiet_cores.seconds,
            cores.load / cores.seconds,
            quiet_cores.load / quiet_cores.seconds,
        );
        figures.push(figure);
    }
    Ok(figures)
}

/// CPU time, and in how much time.
#[derive(Default)]
struct Cores {
    herald: f64,
    load: f64,
    seconds: f64,
}

/// The poller's p99 in microseconds. A poll that is not answered as it must be fails the row, and so does a connection of
/// the poller that is closed.
fn p99(
    bench: &Bench,
    herald: &Server,
    load: &mut Load,
    polls: &mut Polls,
    cores: &mut Cores,
) -> anyhow::Result<f64> {
    let (began, ours) = (Instant::now(), own_cpu_seconds()?);
    let (window, cpu) = herald
        .costing(|| load.run(polls, Some(RATE), bench.size.warm_up, bench.size.window * 2))?;
    cores.herald += cpu;
    cores.load += own_cpu_seconds()? - ours;
    cores.seconds += began.elapsed().as_secs_f64();
    Ok(window.latency.value_at_quantile(0.99) as f64 / 1000.0)
}

/// Hostile connections, in a thread of their own.
struct Attack(Background);

impl Attack {
    /// Starts them and waits until all have been there once.
    fn start(herald: &Server, count: usize) -> anyhow::Result<Self> {
        let (address, connected) = (herald.address, Arc::new(AtomicUsize::new(0)));
        let theirs = Arc::clone(&connected);
        let background = Background::start(move |is_over| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                for number in 0..count {
                    tokio::spawn(come_again(address, Kind::of(number), Arc::clone(&theirs)));
                    // Not all at once: that would be another row.
                    if number % 50 == 0 {
                        sleep(Duration::from_millis(10)).await;
                    }
                }
                while !is_over() {
                    sleep(Duration::from_millis(50)).await;
                }
            });
            // Its connections are closed with it.
            drop(runtime);
            Ok(())
        })?;
        let began = Instant::now();
        while connected.load(Ordering::Relaxed) < count {
            ensure!(began.elapsed() < START_MAX, "the attack does not come about");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self(background))
    }

    fn stop(self) -> anyhow::Result<()> {
        self.0.stop().context("the attack")
    }
}

/// What a hostile connection does.
#[derive(Clone, Copy)]
enum Kind {
    /// Sends a head, a byte a second.
    SlowHead,
    /// Sends nothing.
    Silent,
    /// Begins HTTP/2, and takes its requests back as soon as it has made them.
    Resets,
    /// Has a stream of all that is stored, and takes next to nothing of it.
    SlowStream,
    /// Asks for the largest page likewise.
    SlowPage,
    /// Comes and goes.
    Churn,
}

impl Kind {
    fn of(number: usize) -> Self {
        match number % 20 {
            0..=6 => Self::SlowHead,
            7..=12 => Self::Silent,
            13..=14 => Self::Resets,
            15..=16 => Self::SlowStream,
            17 => Self::SlowPage,
            _ => Self::Churn,
        }
    }
}

/// One hostile peer: it comes again whenever it has been closed or turned away.
async fn come_again(address: SocketAddr, kind: Kind, connected: Arc<AtomicUsize>) {
    let mut is_first = true;
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            if std::mem::take(&mut is_first) {
                connected.fetch_add(1, Ordering::Relaxed);
            }
            // Closed in one way or another.
            let _ = act(stream, kind).await;
        }
        sleep(if matches!(kind, Kind::Churn) { CHURN_EVERY } else { COME_AGAIN }).await;
    }
}

async fn act(mut stream: TcpStream, kind: Kind) -> std::io::Result<()> {
    let all = || format!("{}&Offset=0", her_ids(0..RECEIVERS));
    match kind {
        Kind::SlowHead => {
            stream.write_all(b"GET /notifications HTTP/1.1\r\nhost: herald\r\nx-slow: ").await?;
            loop {
                sleep(SLOW_EVERY).await;
                stream.write_all(b"x").await?;
            }
        }
        Kind::Silent => take_slowly(stream).await,
        Kind::Resets => {
            stream.write_all(&resets()).await?;
            take_slowly(stream).await
        }
        Kind::SlowStream => {
            stream.write_all(&requests::stream(&all())).await?;
            take_slowly(stream).await
        }
        Kind::SlowPage => {
            let query = format!("{}&NotificationsToFetch=1000", all());
            stream.write_all(&requests::poll(&query)).await?;
            take_slowly(stream).await
        }
        Kind::Churn => Ok(()),
    }
}

async fn take_slowly(mut stream: TcpStream) -> std::io::Result<()> {
    let mut taken = [0; TAKEN_BYTES];
    while stream.read(&mut taken).await? > 0 {
        sleep(SLOW_EVERY).await;
    }
    Ok(())
}

/// The greeting of HTTP/2, and requests each with its reset (RFC 9113, sections 3.4, 6.2 and 6.4).
fn resets() -> Vec<u8> {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_BOTH: u8 = 5;
    const CANCEL: u32 = 8;
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let len = payload.len() as u32;
        out.extend_from_slice(&len.to_be_bytes()[1..]);
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(payload);
    };
    frame(SETTINGS, 0, 0, &[]);
    // `GET http /ping` of nobody, mostly out of the static table of RFC 7541.
    let fields = [&[0x82, 0x86, 0x04, 5], &b"/ping"[..], &[0x01, 1, b'x']].concat();
    for stream in (1..).step_by(2).take(RESETS as usize) {
        frame(HEADERS, END_BOTH, stream, &fields);
        frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }
    out
}
