//! The client against all that a network, a gateway and an operator can do to it, over real sockets and the real server.
//!
//! The judge is the log: whatever happened, the sequence handed out is what polls of the server itself give, byte for
//! byte, nothing missing and nothing twice. Nothing is judged by the clock: what does not end is ended as a hung test.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod answers;
mod cuts;
mod holes;
mod mixed;
mod restarts;

use herald_client::{
    Answer, Client, Cursor, Event, Notification, Notifications, Status, types::Offset,
};
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use crate::support::{
    drafts::{Draft, ndjson},
    http::{self, poll_through},
    server::Server,
};

/// How many receivers one connection takes, and so one run of a client.
const RUN: usize = 1500;
/// Whom those are for that only move the tail.
const NOBODY: u32 = 2_147_483_647;

/// What the log has for the receivers of a client, one sequence for each of its runs.
struct Log {
    runs: Vec<RunLog>,
}

struct RunLog {
    receivers: Vec<u32>,
    /// Offsets and objects.
    objects: Vec<(u64, String)>,
}

impl Log {
    /// What a quiet server answers to polls; `her_ids` ascend.
    async fn of(server: &Server, her_ids: &[u32]) -> Self {
        let client = http::client();
        let mut runs = Vec::new();
        for run in her_ids.chunks(RUN) {
            let objects = poll_through(&client, &server.url(), run, 0).await;
            runs.push(RunLog { receivers: run.to_vec(), objects });
        }
        Self { runs }
    }

    /// How many notifications there are.
    fn len(&self) -> usize {
        self.runs.iter().map(|run| run.objects.len()).sum()
    }

    /// Order is kept within a run, and promised nowhere else.
    fn judge(&self, who: &str, handed: &[Notification]) {
        for RunLog { receivers, objects: expected } in &self.runs {
            let is_of_run = |notification: &&Notification| {
                let receiver = notification.fields().unwrap().notification_receiver_her_id;
                receivers.contains(&receiver.get())
            };
            let handed = handed.iter().filter(is_of_run);
            let handed: Vec<_> = handed.map(|one| (one.offset().get(), one.raw())).collect();
            let same = handed
                .iter()
                .zip(expected)
                .take_while(|(one, other)| (one.0, one.1) == (other.0, other.1.as_str()));
            let same = same.count();
            assert!(
                same == handed.len() && same == expected.len(),
                "{who}: {} were handed out and {} are in the log; the first {same} agree, then {:?} came instead of {:?}",
                handed.len(),
                expected.len(),
                handed.get(same),
                expected.get(same)
            );
        }
        assert_eq!(handed.len(), self.len(), "{who}: something came for other receivers");
    }
}

fn client(url: &str, caller: &str) -> Client {
    Client::new(url, caller).unwrap()
}

/// Everything for these receivers from the oldest on.
fn everything(client: &Client, her_ids: &[u32]) -> Notifications {
    let receivers = her_ids.iter().map(|her_id| her_id.to_string().parse().unwrap());
    client.notifications(Cursor::new(receivers, Offset::ZERO).unwrap())
}

/// Takes and acknowledges until every run has come to the offset of `end`, which may become known later.
async fn follow(
    notifications: &mut Notifications,
    end: watch::Receiver<Option<u64>>,
) -> Vec<Notification> {
    follow_connected(notifications, end, 0).await
}

/// The same, but not before a stream has been good for so many times: polls may have come to the end before.
async fn follow_connected(
    notifications: &mut Notifications,
    mut end: watch::Receiver<Option<u64>>,
    mut connections: usize,
) -> Vec<Notification> {
    let mut handed = Vec::new();
    while connections > 0 || !has_come_to(notifications.cursor(), *end.borrow()) {
        tokio::select! {
            event = notifications.next() => match event.expect("nothing ends it for good") {
                Event::Notification(notification) => {
                    notifications.ack(&notification);
                    handed.push(notification);
                }
                Event::Status(Status::Connected { .. }) => {
                    connections = connections.saturating_sub(1);
                }
                _ => {}
            },
            Ok(()) = end.changed() => {}
        }
    }
    handed
}

fn has_come_to(cursor: &Cursor, end: Option<u64>) -> bool {
    end.is_some_and(|end| cursor.offsets().iter().all(|offset| offset.get() >= end))
}

/// Stores these drafts, once each however often it takes; returns the newest offset.
async fn append(client: &Client, drafts: &[Draft]) -> u64 {
    loop {
        match client.append_lines(ndjson(drafts).into()).await {
            Ok(appended) => {
                let offset = |answer: &Answer| answer.fields().unwrap().offset.get();
                return appended.answers.iter().map(offset).max().unwrap();
            }
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// Drafts for some of these receivers; their ids are the seed's, so a test appends each seed once.
fn drafts(seed: u64, count: usize, her_ids: &[u32]) -> Vec<Draft> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| Draft::random(&mut rng, her_ids)).collect()
}

/// The bytes of a stream's answer up to `end`.
async fn stream_until(server: &Server, her_id: u32, end: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.api).await.unwrap();
    let request = format!(
        "GET /notifications/stream?HerIds={her_id}&Offset=0 HTTP/1.1\r\nhost: {}\r\n\
         accept: text/event-stream\r\napi-version: 3\r\nnhn-source-system: tests/1\r\n\r\n",
        server.api
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        if let Some(place) = answer.windows(end.len()).position(|part| part == end) {
            answer.truncate(place + end.len());
            return answer;
        }
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the server goes on");
    }
}
