//! What the real server asks of the system, one step of a client at a time.
//!
//! Only what each step needs is judged. How often a thread waits, sleeps and wakes another depends on who runs when; that
//! is printed for those who look for it.

use std::path::Path;

use anyhow::Context as _;

use crate::{
    client::{Connection, Stream},
    kept::Counts,
    server::Server,
    trace::{Calls, mark},
};

/// How often each step is made.
const STEPS: usize = 100;
/// Receivers with a record that the server finds on its disk when it starts.
const RECEIVERS: u32 = 1000;
/// Of them a poll asks for so many.
const RECEIVERS_ASKED: u32 = 50;
/// The receiver of a stream whose events come one by one, and all at once.
const HER_ID: u32 = 2000;
/// The receiver of many streams.
const HER_ID_OF_MANY: u32 = 2001;

/// Counts all of it.
pub(crate) fn count(herald: &Path, counts: &mut Counts) -> anyhow::Result<()> {
    let dir = tempfile::tempdir().context("could not make a directory for the log")?;
    let (data, trace) = (dir.path().join("data"), dir.path().join("trace"));
    let server = Server::start(herald, &data)?;
    Connection::open(server.address())?.append_for_each(RECEIVERS)?;
    server.stop()?;

    let server = Server::start_traced(herald, &data, &trace)?;
    let ports = act(&server)?;
    let trace = server.stop()?;
    let data = data.to_str().context("the directory's name is text")?;

    let polls = trace.between("polls", "singles")?;
    counts.add("idle_polls_disk_reads", polls.file_reads(data));
    counts.add("idle_polls_socket_writes", polls.writes_to(&[ports.poller]));
    show("polls that find nothing", &polls);

    let singles = trace.between("singles", "group")?;
    counts.add("appends_syncs", singles.syncs());
    counts.add("appends_disk_writes", singles.file_writes(data));
    counts.add("events_socket_writes", singles.writes_to(&[ports.stream]));
    show("appends of one draft, each one event", &singles);

    let group = trace.between("group", "fan-out")?;
    counts.add("group_syncs", group.syncs());
    counts.add("group_socket_writes", group.writes_to(&[ports.stream]));
    show("drafts in one append, all of them for one stream", &group);

    let fan_out = trace.between("fan-out", "end")?;
    counts.add("fan_out_socket_writes", fan_out.writes_to(&ports.many));
    show("streams woken by one append", &fan_out);
    Ok(())
}

/// By which ports the server knows the connections.
struct Ports {
    poller: u16,
    stream: u16,
    many: Vec<u16>,
}

/// The steps, each between two marks. A step is done when its effect has arrived.
fn act(server: &Server) -> anyhow::Result<Ports> {
    let tail = u64::from(RECEIVERS);
    // Marks are requests of their own, whose answers are no part of what is counted.
    let mut marker = Connection::open(server.address())?;
    let mut poller = Connection::open(server.address())?;
    let mut producer = Connection::open(server.address())?;
    let mut stream = Stream::open(server.address(), HER_ID, tail)?;
    let many = (0..STEPS).map(|_| Stream::open(server.address(), HER_ID_OF_MANY, tail));
    let mut many: Vec<Stream> = many.collect::<Result<_, _>>()?;

    mark(&mut marker, "polls")?;
    let her_ids: String = (1..=RECEIVERS_ASKED).map(|her_id| format!("HerIds={her_id}&")).collect();
    for _ in 0..STEPS {
        poller.get(&format!("/notifications?{her_ids}Offset={tail}"))?;
    }
    mark(&mut marker, "singles")?;
    for _ in 0..STEPS {
        producer.append(1, HER_ID)?;
        stream.events(1)?;
    }
    mark(&mut marker, "group")?;
    producer.append(STEPS, HER_ID)?;
    stream.events(STEPS)?;
    mark(&mut marker, "fan-out")?;
    producer.append(1, HER_ID_OF_MANY)?;
    for stream in &mut many {
        stream.events(1)?;
    }
    mark(&mut marker, "end")?;
    Ok(Ports {
        poller: poller.port()?,
        stream: stream.port()?,
        many: many.iter().map(Stream::port).collect::<Result<_, _>>()?,
    })
}

fn show(step: &str, calls: &Calls<'_>) {
    eprintln!("{STEPS} {step}: {}", calls.summary());
}
