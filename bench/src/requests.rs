//! The bytes of requests, and the numbers in them.

use std::fmt::Write as _;

/// The HER-ids of a benchmark all have seven digits, so that they can be written over each other.
const HER_ID_FIRST: u64 = 1_000_000;

const PAGE_HEADERS: &str = "host: herald\r\napi-version: 3\r\nnhn-source-system: Bench, v1\r\n";

/// The HER-id of receiver number `at`.
#[must_use]
pub const fn her_id(at: u64) -> u64 {
    HER_ID_FIRST + at
}

/// `HerIds=…&HerIds=…` for these receivers.
#[must_use]
pub fn her_ids(receivers: impl IntoIterator<Item = u64>) -> String {
    let mut query = String::new();
    for at in receivers {
        if !query.is_empty() {
            query.push('&');
        }
        let _ = write!(query, "HerIds={}", her_id(at));
    }
    query
}

/// A poll.
#[must_use]
pub fn poll(query: &str) -> Vec<u8> {
    format!("GET /notifications?{query} HTTP/1.1\r\n{PAGE_HEADERS}accept: application/json\r\n\r\n")
        .into_bytes()
}

/// A stream.
#[must_use]
pub fn stream(query: &str) -> Vec<u8> {
    format!(
        "GET /notifications/stream?{query} HTTP/1.1\r\n{PAGE_HEADERS}accept: text/event-stream\r\n\r\n"
    )
    .into_bytes()
}

/// An append of `body`; `query` is for limits, Herald ignores it.
#[must_use]
pub fn append(query: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /notifications?{query} HTTP/1.1\r\n{PAGE_HEADERS}content-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The same request, which ends its connection.
#[must_use]
pub fn closing(request: &[u8]) -> Vec<u8> {
    let at = memchr::memmem::find(request, b"host: ").expect("every request names its host");
    [&request[..at], b"connection: close\r\n", &request[at..]].concat()
}

/// Drafts with ids of their own, each id made once.
pub struct Drafts {
    prefix: u32,
    next: u64,
}

impl Default for Drafts {
    fn default() -> Self {
        Self { prefix: rand::random(), next: 0 }
    }
}

impl Drafts {
    /// Writes one draft for receiver number `at`.
    pub fn write(&mut self, at: u64, out: &mut Vec<u8>) {
        const START: &[u8] = br#"{"notificationId":""#;
        const REST: &[u8] = br#"","relatedMessageId":"0f84d750-8ce3-4471-a1ac-ab7a55e609c0","type":"NewMessage","notificationTriggeredByHerId":90215,"notificationReceiverHerId":"#;
        out.extend_from_slice(START);
        // 8-4-4-4-12 digits: a random prefix and a count.
        push_hex(out, u64::from(self.prefix), 8);
        out.extend_from_slice(b"-0000-4000-8000-");
        push_hex(out, self.next, 12);
        self.next += 1;
        out.extend_from_slice(REST);
        push_decimal(out, her_id(at));
        out.push(b'}');
    }

    /// A JSON body with drafts for these receivers.
    pub fn json(&mut self, receivers: impl IntoIterator<Item = u64>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"notifications":["#);
        for (number, at) in receivers.into_iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            self.write(at, out);
        }
        out.extend_from_slice(b"]}");
    }
}

fn push_hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let value = (number >> (digit * 4)) & 0xF;
        out.push(b"0123456789abcdef"[value as usize]);
    }
}

/// Appends a number in decimal.
pub fn push_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
