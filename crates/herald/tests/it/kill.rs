//! `herald stream --checkpoint` under `kill -9`, a hundred times in a row: what it printed in all its lives together is
//! the log, and its lines come again only as far as the checkpoint may lag behind them.
//!
//! A failure prints its seed; `HERALD_KILL_SEED` repeats the moments (not what the process does at them).

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    sync::Arc,
    time::Duration,
};

use herald_client::Client;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinHandle,
};

use crate::support::{
    drafts::{Draft, ndjson},
    http::{self, poll_through},
    server::{Server, herald},
    setting,
};

const HER_ID: u32 = 8_139_764;
/// How far the log is ahead of the lines that were waited for: more than a pipe holds, so that some kills meet a line
/// that is half in it.
const LEAD: usize = 40;
/// So many lines take longer than a checkpoint may: each is appended when the one before has been read.
const CHECKPOINT_WITHIN: usize = 5000;
/// One life in so many is killed before its first line, and one while nobody reads.
const SPECIAL_IN: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_repeat_at_most_the_last_line_each_and_lose_none() {
    kill_again_and_again(Lives { kills: 100, lines: 12, flags: &[], repeats_max: 1 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_between_checkpoints_repeat_what_came_since_the_last_one_and_lose_nothing() {
    let flags = &["--checkpoint-every", "100ms"];
    kill_again_and_again(Lives { kills: 40, lines: 200, flags, repeats_max: usize::MAX }).await;
}

struct Lives<'a> {
    kills: u32,
    /// The most lines that are waited for before a kill.
    lines: usize,
    flags: &'a [&'a str],
    /// How many lines a kill may cause to be printed again.
    repeats_max: usize,
}

async fn kill_again_and_again(lives: Lives<'_>) {
    let seed = setting("HERALD_KILL_SEED").unwrap_or_else(rand::random);
    println!("kill: again with HERALD_KILL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"), &[]).await;
    let checkpoint = directory.path().join("checkpoint");
    let wanted = Arc::new(Semaphore::new(LEAD));
    let producer = produce(&server.url(), Arc::clone(&wanted), rng.random());

    let mut judge = Judge { repeats_max: lives.repeats_max, ..Judge::default() };
    let mut printed = Vec::new();
    for number in 1..=lives.kills {
        let mut life = Life::start(&server.url(), &checkpoint, lives.flags);
        let lines = rng.random_range(1..=lives.lines);
        let before = fs::read(&checkpoint).ok();
        match rng.random_range(0..SPECIAL_IN) {
            // The last one lives until it has left a checkpoint, so that the way there is no repeating from the oldest.
            _ if number == lives.kills => {
                let mut left = CHECKPOINT_WITHIN;
                while fs::read(&checkpoint).ok() == before {
                    life.read_lines(1, &wanted);
                    left -= 1;
                    assert!(left > 0, "no checkpoint after {CHECKPOINT_WITHIN} lines, seed {seed}");
                }
            }
            0 => wait(&mut rng, Duration::from_millis(150)),
            1 => {
                life.read_lines(lines, &wanted);
                wait(&mut rng, Duration::from_millis(100));
            }
            _ => {
                life.read_lines(lines, &wanted);
                wait(&mut rng, Duration::from_millis(3));
            }
        }
        let waited_for = life.lines();
        let all = life.kill();
        wanted.add_permits(LEAD.min(count_lines(&all) - waited_for));
        printed.push(all);
    }
    wanted.close();
    producer.await.unwrap();
    let log = poll_through(&http::client(), &server.url(), &[HER_ID], 0).await;
    for (number, printed) in printed.iter().enumerate() {
        judge.life(&format!("life {number} with seed {seed}"), printed, &log);
    }
    let last = Life::start(&server.url(), &checkpoint, lives.flags).read_all_of(&log);
    judge.life(&format!("the last life with seed {seed}"), &last, &log);
    assert!(judge.start > 0, "a checkpoint has been used with seed {seed}");
    assert_eq!(judge.next, log.len(), "all of the log is printed with seed {seed}");
    println!(
        "kill: {} lines, {} repeated, {} torn, by {} kills",
        log.len(),
        judge.repeated,
        judge.torn,
        lives.kills
    );
}

fn count_lines(printed: &[u8]) -> usize {
    printed.iter().filter(|byte| **byte == b'\n').count()
}

/// The moment of a kill, up to `within` from now.
fn wait(rng: &mut StdRng, within: Duration) {
    std::thread::sleep(rng.random_range(Duration::ZERO..within));
}

/// Appends one notification for each that is wanted, and a last one.
fn produce(url: &str, wanted: Arc<Semaphore>, seed: u64) -> JoinHandle<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = Client::new(url, "producer").unwrap();
    tokio::spawn(async move {
        loop {
            let is_wanted = wanted.acquire().await.map(SemaphorePermit::forget).is_ok();
            let mut draft = Draft::random(&mut rng, &[HER_ID]);
            if rng.random_bool(0.5) {
                // As long as there are: a pipe does not take it as a whole.
                draft.description = "😀".repeat(1024);
            }
            client.append_lines(ndjson(&[draft]).into()).await.unwrap();
            if !is_wanted {
                return;
            }
        }
    })
}

/// One process, and what it printed.
struct Life {
    child: Child,
    stdout: BufReader<ChildStdout>,
    printed: Vec<u8>,
}

impl Life {
    fn start(url: &str, checkpoint: &Path, flags: &[&str]) -> Self {
        let mut child = herald()
            .args(["stream", "--url", url, "--her-id", &HER_ID.to_string(), "--offset", "0"])
            .arg("--checkpoint")
            .arg(checkpoint)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, printed: Vec::new() }
    }

    /// Waits for so many lines; for each, one more is wanted of the producer.
    fn read_lines(&mut self, count: usize, wanted: &Semaphore) {
        for _ in 0..count {
            wanted.add_permits(1);
            self.read_line();
        }
    }

    fn lines(&self) -> usize {
        count_lines(&self.printed)
    }

    fn read_line(&mut self) -> &[u8] {
        let start = self.printed.len();
        let read = self.stdout.read_until(b'\n', &mut self.printed).unwrap();
        assert!(read > 0, "it goes on until it is killed");
        &self.printed[start..]
    }

    /// SIGKILL; then all that it has printed.
    fn kill(mut self) -> Vec<u8> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.stdout.read_to_end(&mut self.printed).unwrap();
        std::mem::take(&mut self.printed)
    }

    /// Reads up to the last line of the log, and stops it.
    fn read_all_of(mut self, log: &[(u64, String)]) -> Vec<u8> {
        let last = log.last().unwrap().1.as_bytes();
        while self.read_line().strip_suffix(b"\n") != Some(last) {}
        let id = self.child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success()
        );
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.stdout.read_to_end(&mut self.printed).unwrap();
        std::mem::take(&mut self.printed)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Follows the log through the lives of one stream.
#[derive(Default)]
struct Judge {
    repeats_max: usize,
    /// How many lines of the log have been printed whole.
    next: usize,
    /// Where in the log the newest life began.
    start: usize,
    repeated: usize,
    torn: usize,
}

impl Judge {
    /// What this life printed goes on in the log where the lives before it came to, or a little before; a line without
    /// its end is none, and comes again.
    fn life(&mut self, who: &str, printed: &[u8], log: &[(u64, String)]) {
        let mut lines: Vec<_> = printed.split(|byte| *byte == b'\n').collect();
        let torn = lines.pop().unwrap();
        let first = lines.first().copied().unwrap_or(torn);
        let earliest = self.next.saturating_sub(self.repeats_max);
        let is_first = |place: &usize| match log.get(*place) {
            Some((_, object)) if lines.is_empty() => object.as_bytes().starts_with(first),
            Some((_, object)) => object.as_bytes() == first,
            None => first.is_empty(),
        };
        let start = (earliest..=self.next).rev().find(is_first);
        let start = start.unwrap_or_else(|| {
            panic!(
                "{who}: begins with {:?}, which is not one of the {} lines up to {:?}",
                String::from_utf8_lossy(first),
                self.next - earliest + 1,
                log.get(self.next)
            )
        });
        let expected = log[start..].iter().map(|(_, object)| object.as_bytes());
        assert!(lines.iter().copied().eq(expected.take(lines.len())), "{who}: not the log's order");
        let end = start + lines.len();
        assert!(
            torn.is_empty() || log[end].1.as_bytes().starts_with(torn),
            "{who}: torn from no line"
        );
        self.repeated += end.min(self.next) - start;
        self.torn += usize::from(!torn.is_empty());
        self.start = start;
        self.next = self.next.max(end);
    }
}
