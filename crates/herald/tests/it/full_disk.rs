//! A disk without room: appends are refused, everything else goes on, and nothing is lost.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rand::{SeedableRng as _, rngs::StdRng};
use reqwest::Client;
use serde_json::Value;

use crate::support::{
    drafts::{self, AppendAnswer, Draft},
    http::{Events, client, identified, poll_through},
    server::Server,
};

/// The size of the small file system.
const DISK_LEN: u64 = 64 << 20;
/// What is taken from it at first, and given back when it is full.
const BALLAST_LEN: u64 = 24 << 20;
/// More appends than fit.
const APPENDS_MAX: usize = 1000;
/// How long the server may take to notice that there is room again.
const ROOM_NOTICED_WITHIN: Duration = Duration::from_secs(30);
const HER_ID: u32 = 8_139_764;

/// A small file system of its own, unmounted when dropped.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK_LEN}"), "tmpfs"])
            .arg(directory.path())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "mounting a tmpfs needs root");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn take_room(&self) {
        let zeros = vec![0_u8; usize::try_from(BALLAST_LEN).expect("small")];
        std::fs::write(self.ballast(), zeros).expect("the ballast fits");
    }

    fn give_room(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}

/// A JSON request of about 1 MB.
fn request(rng: &mut StdRng) -> String {
    let draft = |_| Draft { description: "x".repeat(900), ..Draft::random(rng, &[HER_ID]) };
    drafts::json(&(0..800).map(draft).collect::<Vec<_>>())
}

/// The offsets, or the problem.
async fn append(client: &Client, url: &str, body: &str) -> Result<Vec<u64>, Value> {
    let post = identified(client.post(format!("{url}/notifications")));
    let answer = post.header("content-type", "application/json").body(body.to_owned()).send();
    let answer = answer.await.expect("an append is answered");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.expect("a body");
    if status == 201 {
        let answer: AppendAnswer = serde_json::from_str(&text).expect("an answer to an append");
        return Ok(answer.notifications.iter().map(|appended| appended.offset).collect());
    }
    assert_eq!(status, 503, "{text}");
    assert!(headers.contains_key("retry-after"), "{text}");
    Err(serde_json::from_str(&text).expect("a problem"))
}

async fn text(client: &Client, url: String) -> (u16, String) {
    let answer = identified(client.get(url)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a small file system: needs root"]
async fn a_full_disk_refuses_appends_and_nothing_else_until_there_is_room() {
    let disk = SmallDisk::mount();
    let data_dir = disk.path().join("data");
    disk.take_room();
    let server = Server::start(&data_dir, &[]).await;
    let (client, url) = (client(), server.url());
    let mut stream = Events::open(&client, &url, &[HER_ID], 0).await.expect("a stream opens");
    let mut rng = StdRng::seed_from_u64(1);

    let mut acknowledged = Vec::new();
    let mut refused = None;
    for _ in 0..APPENDS_MAX {
        let body = request(&mut rng);
        match append(&client, &url, &body).await {
            Ok(offsets) => acknowledged.extend(offsets),
            Err(problem) => {
                refused = Some((body, problem));
                break;
            }
        }
    }
    let (body, problem) = refused.expect("the disk is full at some point");
    assert!(!acknowledged.is_empty(), "the disk had some room");
    assert_eq!(problem["type"], "urn:herald:problem:append-refused", "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    let is_clear = detail.contains("disk") && detail.contains("full");
    assert!(is_clear && detail.contains("Nothing of this was stored"), "{detail}");

    // Still full: refused again, while polls, streams and metrics go on.
    append(&client, &url, &body).await.expect_err("there is no room yet");
    let polled = poll_through(&client, &url, &[HER_ID], 0).await;
    assert_eq!(polled.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), acknowledged);
    let mut streamed = Vec::new();
    while streamed.len() < polled.len() {
        streamed.push(stream.next().await.expect("an open stream goes on"));
    }
    assert_eq!(streamed, polled);
    let (_, metrics) = text(&client, format!("http://{}/metrics", server.ops)).await;
    assert!(metrics.contains("herald_log_poisoned 0"), "a full disk poisons nothing");

    disk.give_room();
    let began = Instant::now();
    let offsets = loop {
        match append(&client, &url, &body).await {
            Ok(offsets) => break offsets,
            Err(problem) => assert!(began.elapsed() < ROOM_NOTICED_WITHIN, "{problem}"),
        }
    };
    assert!(offsets[0] > acknowledged[acknowledged.len() - 1], "offsets go on");
    acknowledged.extend(&offsets);
    for offset in offsets {
        assert_eq!(stream.next().await.expect("an open stream goes on").0, offset);
    }
    drop(stream);
    assert!(server.stop().success());

    let server = Server::start(&data_dir, &[]).await;
    let polled = poll_through(&client, &server.url(), &[HER_ID], 0).await;
    assert_eq!(polled.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), acknowledged);
}
