//! A small HTTP server: what each path answers is up to the test, and it tells what it was asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

#[derive(Clone)]
pub(crate) enum Answer {
    /// A status, headers and a body.
    Is(u16, String, Vec<u8>),
    /// A body without an end.
    Endless,
    /// Nothing, for ever.
    Silent,
    /// The answer, when there is a permit for it.
    When(Arc<Semaphore>, Box<Answer>),
}

impl Answer {
    pub(crate) fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::Is(200, String::new(), body.into())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Is(status, String::new(), Vec::new())
    }
}

#[derive(Clone)]
pub(crate) struct Site {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    /// The head of every request so far.
    heads: watch::Sender<Vec<String>>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Shared { answers: Mutex::default(), heads: watch::Sender::default() };
        let site = Self { address: listener.local_addr().unwrap(), shared: Arc::new(shared) };
        let serving = site.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let site = serving.clone();
                tokio::spawn(async move { site.serve(connection).await });
            }
        });
        site
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn put(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// How often `path` was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        count(&self.shared.heads.borrow(), path)
    }

    /// Waits until `path` was asked for `times` times.
    pub(crate) async fn asked(&self, path: &str, times: usize) {
        let mut heads = self.shared.heads.subscribe();
        heads.wait_for(|heads| count(heads, path) >= times).await.unwrap();
    }

    /// The head of the last request.
    pub(crate) fn last_head(&self) -> String {
        self.shared.heads.borrow().last().cloned().unwrap_or_default()
    }

    /// One request on each connection: a client that is cut off in the middle of a body does not come back to it.
    async fn serve(self, mut connection: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        self.shared.heads.send_modify(|heads| heads.push(head));
        let answer = self.shared.answers.lock().unwrap().get(&path).cloned();
        write(&mut connection, answer.unwrap_or_else(|| Answer::status(404))).await
    }
}

fn count(heads: &[String], path: &str) -> usize {
    heads.iter().filter(|head| head.split(' ').nth(1) == Some(path)).count()
}

async fn write(connection: &mut TcpStream, answer: Answer) -> Option<()> {
    match answer {
        Answer::Is(status, headers, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
            );
            connection.write_all(head.as_bytes()).await.ok()?;
            connection.write_all(&body).await.ok()
        }
        Answer::Endless => {
            connection.write_all(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n").await.ok()?;
            while connection.write_all(&[b' '; 4096]).await.is_ok() {}
            None
        }
        // Until the client has enough.
        Answer::Silent => connection.read_u8().await.map(drop).ok(),
        Answer::When(permits, answer) => {
            permits.acquire().await.ok()?.forget();
            Box::pin(write(connection, *answer)).await
        }
    }
}

/// As long as it lives, paused time moves only when a test says so: otherwise it would jump to the next time-out whenever
/// everything waits for a socket.
pub(crate) struct HeldClock {
    _release: std::sync::mpsc::Sender<()>,
}

pub(crate) fn hold_clock() -> HeldClock {
    let (release, held) = std::sync::mpsc::channel::<()>();
    // tokio's paused clock does not jump while there is blocking work.
    tokio::task::spawn_blocking(move || held.recv());
    HeldClock { _release: release }
}

/// Runs other tasks, sockets too, until `done`.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}
