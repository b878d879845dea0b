//! A server that does as a test says, byte by byte: what no well-behaved server would do, too.
//!
//! The tests of the command line use it as well.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by two test binaries; what fails here fails the test"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The request line and the headers, each on its line.
    pub(crate) head: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut request = Self { head, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |text| text.parse().unwrap());
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.iter().filter_map(|line| line.split_once(": "));
        headers.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Method and path.
    pub(crate) fn target(&self) -> &str {
        self.head[0].split(['?', '\r']).next().unwrap().trim_end_matches(" HTTP/1.1")
    }

    /// The values of a query parameter.
    pub(crate) fn query(&self, name: &str) -> Vec<&str> {
        let (_, query) = self.head[0].split_once('?').unwrap_or_default();
        let query = query.split(' ').next().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    }

    /// The offset it asks to go on behind.
    pub(crate) fn after(&self) -> u64 {
        self.query("Offset")[0].parse().unwrap()
    }
}

/// The server. It goes on until the test's process ends.
pub(crate) struct Script {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Script {
    /// Answers each request on a connection of its own with `answer`, which is told its number from 0; then closes it.
    pub(crate) fn start(
        answer: impl Fn(usize, &Request, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, all) = (Arc::new(answer), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, all) = (Arc::clone(&answer), Arc::clone(&all));
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = Request::read(&stream) else { return };
                    let number = {
                        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push(request.clone());
                        all.len() - 1
                    };
                    answer(number, &request, &mut stream);
                });
            }
        });
        Self { url, requests }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes what the peer may no longer want to read.
pub(crate) fn write(stream: &mut TcpStream, text: impl AsRef<[u8]>) {
    let _ = stream.write_all(text.as_ref());
}

/// A whole answer with a body; `headers` are lines with their ends.
pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A page or the answer to an append, with these objects.
pub(crate) fn page(status: &str, headers: &str, objects: &[String]) -> Vec<u8> {
    let body = format!("{{\"notifications\":[{}]}}", objects.join(","));
    answer(status, &format!("content-type: application/json\r\n{headers}"), body)
}

/// The head of a stream and its first event; the stream ends with the connection.
pub(crate) fn connected(headers: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n{headers}\r\n\
         event: connected\ndata:\n\n"
    )
}

/// A notification as some server of the page writes it: no `notificationId`, nulls, a field that nobody knows.
pub(crate) fn object(offset: u64) -> String {
    format!(
        r#"{{"relatedMessageId":null,"type":"News","notificationReceiverHerId":7,"notificationTriggeredByHerId":null,"description":null,"createdAt":null,"extra":[1.0],"offset":{offset}}}"#
    )
}

/// The event around [`object`].
pub(crate) fn event(offset: u64) -> String {
    format!("event: notification\ndata: {}\n\n", object(offset))
}

/// Waits until the peer has closed the connection.
pub(crate) fn wait_for_close(stream: &mut TcpStream) {
    while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
}
