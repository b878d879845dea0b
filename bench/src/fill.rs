//! Stores notifications through the API, many a request.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::ensure;

use crate::{
    load::{Answer, Load, Work},
    requests::{self, Drafts},
    server::{Places, Server},
};

/// How many drafts a request has.
const DRAFTS_PER_REQUEST: u64 = 20_000;
/// Enough that one request is parsed while another is stored.
const LANES: usize = 3;
const FILL_MAX: Duration = Duration::from_secs(3600);

/// Stores `count` notifications, in turn for `receivers` receivers in an order that has nothing to do with their numbers.
///
/// # Errors
/// When an append is not taken.
pub fn fill(server: &Server, count: u64, receivers: u64) -> anyhow::Result<()> {
    store(server, Filling { left: count, next: 0, receivers, first: 0, drafts: Drafts::default() })
}

/// Stores `count` notifications for receivers from number `first` on.
///
/// # Errors
/// When an append is not taken.
pub fn append_for(server: &Server, count: u64, first: u64) -> anyhow::Result<()> {
    let drafts = Drafts::default();
    store(server, Filling { left: count, next: 0, receivers: count, first, drafts })
}

fn store(server: &Server, mut filling: Filling) -> anyhow::Result<()> {
    let lanes = LANES.min(filling.left.div_ceil(DRAFTS_PER_REQUEST) as usize);
    let mut load = Load::new(server.address, lanes)?;
    let began = Instant::now();
    while filling.left > 0 {
        ensure!(began.elapsed() < FILL_MAX, "filling takes for ever");
        load.run(&mut filling, None, Duration::ZERO, Duration::from_secs(1))?;
    }
    Ok(())
}

struct Filling {
    left: u64,
    next: u64,
    receivers: u64,
    first: u64,
    drafts: Drafts,
}

impl Work for Filling {
    fn request(&mut self, _: usize, out: &mut Vec<u8>) -> bool {
        let count = self.left.min(DRAFTS_PER_REQUEST);
        if count == 0 {
            return false;
        }
        self.left -= count;
        let mut body = Vec::new();
        for _ in 0..count {
            let receiver = self.first + spread(self.next, self.receivers);
            self.drafts.write(receiver, &mut body);
            body.push(b'\n');
            self.next += 1;
        }
        out.extend_from_slice(&requests::append("", "application/x-ndjson", &body));
        true
    }

    fn answered(&mut self, _: usize, answer: &Answer<'_>, _: Instant) -> anyhow::Result<()> {
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(answer.body));
        Ok(())
    }
}

/// A permutation of the receivers, the same in each turn.
#[must_use]
pub const fn spread(number: u64, receivers: u64) -> u64 {
    // A prime that divides none of the numbers used here.
    (number % receivers) * 7919 % receivers
}

/// A stopped data directory with `count` notifications for `receivers` receivers; made once and kept.
///
/// # Errors
/// When it cannot be made.
pub fn stored(places: &Places, count: u64, receivers: u64) -> anyhow::Result<PathBuf> {
    let dir = places.data.join(format!("stored-{count}-{receivers}"));
    if dir.exists() {
        return Ok(dir);
    }
    eprintln!("    storing {count} notifications for {receivers} receivers");
    let new = places.data.join("stored.new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    let server = places.herald(&new, &["--retention", "forever"])?;
    fill(&server, count, receivers)?;
    ensure!(server.tail()? == count, "not all is stored");
    // Sealing goes on behind the appends; a stop in the middle of it would leave it to every later start.
    wait_until_sealed(&new)?;
    server.stop()?;
    fs::rename(new, &dir)?;
    Ok(dir)
}

/// The same, stored in two halves with a pause between them, and when the first one began.
///
/// # Errors
/// When it cannot be made.
pub fn stored_in_halves(
    places: &Places,
    count: u64,
    receivers: u64,
    pause: Duration,
) -> anyhow::Result<(PathBuf, SystemTime)> {
    let dir = places.data.join(format!("halves-{count}-{receivers}"));
    let (new, began_at) = (places.data.join("halves.new"), dir.with_extension("began"));
    if !dir.exists() {
        eprintln!("    storing {count} notifications in two halves");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        fs::write(&began_at, "")?;
        let server = places.herald(&new, &["--retention", "forever"])?;
        fill(&server, count / 2, receivers)?;
        thread::sleep(pause);
        fill(&server, count / 2, receivers)?;
        wait_until_sealed(&new)?;
        server.stop()?;
        fs::rename(new, &dir)?;
    }
    Ok((dir, fs::metadata(began_at)?.modified()?))
}

/// Waits until all segments but the one being written have their index files.
///
/// # Errors
/// When that takes for ever.
pub fn wait_until_sealed(dir: &std::path::Path) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let names =
            fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.collect();
        let count = |suffix: &str| names.iter().filter(|name| name.ends_with(suffix)).count();
        if count(".index") + 1 >= count(".segment") {
            return Ok(());
        }
        ensure!(began.elapsed() < FILL_MAX, "sealing takes for ever");
        thread::sleep(Duration::from_millis(200));
    }
}
