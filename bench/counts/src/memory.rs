//! What polls and streams take of the memory, counted by the allocator of a server in this process.
//!
//! The server runs on one thread, and the counts are read by a task on that thread: a task runs only when no other one
//! does, so that no request is half done when they are read, however busy the machine is.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use herald_feed::OpenStreams;
use herald_http::{
    api::{Api, ApiSettings},
    lifecycle::Lifecycle,
    metrics::Metrics,
    ops::Ops,
    server::{HEAD_BYTES_MAX, IDLE_TIMEOUT, Server, ServerLimits, ServerSettings},
};
use herald_log::{Log, LogSettings};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats};
use tokio::runtime::{Builder, Handle};

use crate::{kept::Counts, remote::Remote};

/// How many polls are counted together: what happens once in a while (a full block of a histogram, the log's own rounds)
/// is far less than one allocation for each.
const POLLS: usize = 1000;
const APPENDS: usize = 1000;
/// Until buffers have their size and metrics their place.
const WARM_UP: usize = 64;
/// Enough that what grows in steps (a table, a slab) is near its mean.
const STREAMS: u32 = 500;
/// How many records there are, all of [`HER_ID`].
const RECORDS: usize = 100;
const HER_ID: u32 = 1;
/// As many as a request may have.
const HER_IDS_MAX: u32 = 1500;
/// Long enough that nothing happens by itself while something is counted.
const QUIET: Duration = Duration::from_secs(3600);
/// The first heartbeat of a stream comes at any time up to this one.
const HEARTBEAT: Duration = Duration::from_secs(10_000 * 3600);

/// Counts all of it.
pub(crate) fn count(counts: &mut Counts) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("could not make a directory for the log")?;
    let counted = Counted::start(dir.path())?;
    let mut client = Remote::start(counted.address)?;
    client.append(RECORDS, HER_ID)?;

    let idle = format!("/notifications?HerIds={HER_ID}&Offset={RECORDS}");
    let polls = counted.polls(&mut client, &idle)?;
    counts.add("idle_polls_allocations", polls.allocations);
    counts.add("idle_poll_bytes", polls.bytes);

    let her_ids: String = (1..=HER_IDS_MAX).map(|her_id| format!("HerIds={her_id}&")).collect();
    let wide = format!("/notifications?{her_ids}Offset={RECORDS}");
    let polls = counted.polls(&mut client, &wide)?;
    counts.add("wide_polls_allocations", polls.allocations);
    counts.add("wide_poll_bytes", polls.bytes);

    let page = format!("/notifications?HerIds={HER_ID}&Offset=0&NotificationsToFetch={RECORDS}");
    let polls = counted.polls(&mut client, &page)?;
    counts.add("page_polls_allocations", polls.allocations);
    counts.add("page_poll_bytes", polls.bytes);

    let appends = counted.appends(&mut client, HER_ID)?;
    counts.add("appends_allocations", appends);

    // The first one registers what all of them share.
    client.open_streams(1, HER_IDS_MAX)?;
    let before = counted.stats()?;
    client.open_streams(STREAMS, HER_IDS_MAX + 1)?;
    let after = counted.stats()?;
    counts.add("idle_stream_bytes", (live(after) - live(before)) as u64 / u64::from(STREAMS));
    let with_events = counted.appends(&mut client, HER_IDS_MAX)?;
    counts.add("events_allocations", with_events.saturating_sub(appends));
    Ok(())
}

/// What polls take.
struct Taken {
    /// Calls to the allocator for memory, new or resized, by all of them. A sum and not a mean: next to a half, a mean
    /// would round up or down by chance.
    allocations: u64,
    /// What one of them asked for, whether or not it was given back; of what was resized, what it grew.
    bytes: u64,
}

/// A server whose process counts what it allocates. It runs until the process ends.
struct Counted {
    address: SocketAddr,
    runtime: Handle,
}

impl Counted {
    fn start(dir: &Path) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let log = {
            let _entered = handle.enter();
            Log::open(dir, LogSettings { retention: None }).context("could not open a log")?
        };
        let (bound, address) = mpsc::channel();
        thread::spawn(move || runtime.block_on(serve(log, bound)));
        let address = address.recv().context("the server has ended")??;
        Ok(Self { address, runtime: handle })
    }

    /// What was allocated so far, at a moment at which the server waits.
    fn stats(&self) -> anyhow::Result<Stats> {
        let reading = self.runtime.spawn(async { INSTRUMENTED_SYSTEM.stats() });
        self.runtime.block_on(reading).context("the server has ended")
    }

    /// Calls to the allocator by appends of one draft, and by the events that come of them.
    fn appends(&self, client: &mut Remote, her_id: u32) -> anyhow::Result<u64> {
        client.append_one_by_one(WARM_UP, her_id)?;
        let before = self.stats()?;
        client.append_one_by_one(APPENDS, her_id)?;
        let spent = self.stats()? - before;
        Ok((spent.allocations + spent.reallocations) as u64)
    }

    fn polls(&self, client: &mut Remote, path: &str) -> anyhow::Result<Taken> {
        client.get(WARM_UP, path)?;
        let before = self.stats()?;
        client.get(POLLS, path)?;
        let spent = self.stats()? - before;
        Ok(Taken {
            allocations: (spent.allocations + spent.reallocations) as u64,
            bytes: (spent.bytes_allocated / POLLS) as u64,
        })
    }
}

async fn serve(log: Log, bound: mpsc::Sender<anyhow::Result<SocketAddr>>) {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = ServerSettings {
        listen: any_port,
        ops_listen: any_port,
        stall_timeout: QUIET,
        head_bytes_max: HEAD_BYTES_MAX,
        idle_timeout: IDLE_TIMEOUT,
        limits: ServerLimits::default(),
    };
    let server = match Server::bind(settings) {
        Ok(server) => server,
        Err(error) => return drop(bound.send(Err(error.into()))),
    };
    // As in the real one: requests are counted there too.
    let metrics = Metrics::install();
    let lifecycle = Lifecycle::new(QUIET);
    let settings =
        ApiSettings { heartbeat: HEARTBEAT, stream_max_age: 24 * QUIET, ..ApiSettings::default() };
    let api = Arc::new(Api::new(lifecycle.clone(), OpenStreams::new(), settings));
    let ops = Arc::new(Ops::new(lifecycle.clone(), metrics));
    lifecycle.serve(log);
    drop(bound.send(Ok(server.api_address())));
    server.run(lifecycle, api, ops).await;
}

/// The bytes that are in use.
fn live(stats: Stats) -> usize {
    stats.bytes_allocated - stats.bytes_deallocated
}
