//! Event streams: bytes in, events out, by the rules of the WHATWG HTML standard, section 9.2.6.
//!
//! Two things that a reader of events alone would not need are here because a client that must notice a dead connection
//! does: comments come out too, and nothing grows without bound.

use std::{borrow::Cow, mem, sync::Arc, time::Duration};

use bytes::Bytes;

/// The most bytes of one event or line; a notification is far below.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What stands in an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event that has data, if only an empty line of it.
    Event(Event),
    /// A line that begins with a colon, without the colon.
    Comment(Bytes),
    /// How long to wait before connecting again.
    Retry(Duration),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` if the stream does not say.
    pub name: Arc<str>,
    /// Its `data` lines joined by line feeds, without the last one's end.
    pub data: String,
    /// The newest id that the stream has given, here or earlier; shared, since a stream need not give another one.
    pub last_id: Arc<str>,
}

/// An event or a line longer than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {EVENT_BYTES_MAX} bytes")]
pub struct TooLong;

/// Reads one event stream. [`Parser::push`] bytes as they come, then take items until there is none.
#[derive(Debug, Default)]
pub struct Parser {
    /// What has come and is not yet read; `at` is where the next line begins.
    buffer: Vec<u8>,
    at: usize,
    /// How much of the line that begins at `at` has been searched for its end, so that no byte is searched twice.
    searched: usize,
    started: bool,
    /// The last line ended with CR: a LF that follows belongs to it.
    after_cr: bool,
    /// Empty until an `event` line says otherwise.
    name: Arc<str>,
    /// The last event's name: nearly all of a stream have the same one.
    usual: Arc<str>,
    /// The `data` lines so far, joined by line feeds.
    data: Option<String>,
    last_id: Arc<str>,
}

impl Parser {
    /// A parser at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..mem::take(&mut self.at));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item that is complete, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`TooLong`] if what is not complete has outgrown [`EVENT_BYTES_MAX`]; the stream is of no more use then.
    pub fn item(&mut self) -> Result<Option<Item>, TooLong> {
        if !self.started && !self.skip_bom() {
            return Ok(None);
        }
        while let Some((start, end)) = self.line() {
            // Also when all of it came at once: what is read must not depend on the cuts.
            if end - start > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            if let Some(item) = self.read_line(start, end) {
                return Ok(Some(item));
            }
            // With the last line's end.
            if self.data.as_ref().is_some_and(|data| data.len() >= EVENT_BYTES_MAX) {
                return Err(TooLong);
            }
        }
        if self.buffer.len() - self.at > EVENT_BYTES_MAX { Err(TooLong) } else { Ok(None) }
    }

    /// Skips one byte order mark, or says that it cannot tell yet.
    fn skip_bom(&mut self) -> bool {
        let unread = &self.buffer[self.at..];
        if unread.len() < BOM.len() && BOM.starts_with(unread) {
            return false;
        }
        if unread.starts_with(BOM) {
            self.at += BOM.len();
        }
        self.started = true;
        true
    }

    /// The next complete line's place in the buffer, without its end.
    fn line(&mut self) -> Option<(usize, usize)> {
        if self.after_cr && self.at < self.buffer.len() {
            self.after_cr = false;
            if self.buffer[self.at] == b'\n' {
                self.at += 1;
            }
        }
        let from = self.at + self.searched;
        let Some(found) = memchr::memchr2(b'\r', b'\n', &self.buffer[from..]) else {
            self.searched = self.buffer.len() - self.at;
            return None;
        };
        let (start, end) = (self.at, from + found);
        self.after_cr = self.buffer[end] == b'\r';
        self.at = end + 1;
        self.searched = 0;
        Some((start, end))
    }

    fn read_line(&mut self, start: usize, end: usize) -> Option<Item> {
        let line = &self.buffer[start..end];
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) => return Some(Item::Comment(Bytes::copy_from_slice(&line[1..]))),
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"event" if value == self.usual.as_bytes() => self.name = Arc::clone(&self.usual),
            b"event" => self.name = text(value).into(),
            b"data" => match &mut self.data {
                None => self.data = Some(text(value).into_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(&text(value));
                }
            },
            b"id" if !value.contains(&0) => {
                self.last_id = text(value).into();
            }
            b"retry" => return read_retry(value).map(Item::Retry),
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Item> {
        let name = mem::take(&mut self.name);
        let data = self.data.take()?;
        let name = if name.is_empty() { "message".into() } else { name };
        if !Arc::ptr_eq(&name, &self.usual) {
            self.usual = Arc::clone(&name);
        }
        Some(Item::Event(Event { name, data, last_id: Arc::clone(&self.last_id) }))
    }
}

/// An event stream is UTF-8, and what is not is replaced, as when a browser decodes it. Nearly all is, and judging that alone
/// is faster.
fn text(value: &[u8]) -> Cow<'_, str> {
    str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// Milliseconds in ASCII digits and nothing else; more than fit count as the most.
fn read_retry(value: &[u8]) -> Option<Duration> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let millis = str::from_utf8(value).ok()?.parse().unwrap_or(u64::MAX);
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
