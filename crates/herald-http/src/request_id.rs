//! The id that an answer, its problem and the log line share.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The most characters of a caller's own id.
pub const REQUEST_ID_CHARS_MAX: usize = 128;

pub(crate) const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Makes ids that are distinct in this process by a counter and between processes by a random start.
///
/// Not a UUID: drawing one costs a system call or a generator's state, formatting it an allocation more.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        Self { process: rand::random(), next: AtomicU64::new(0) }
    }

    /// The caller's own id when it is 1 to 128 visible ASCII characters, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(REQUEST_ID_HEADER) {
            Some(value) if is_valid(value.as_bytes()) => value.clone(),
            Some(_) | None => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        // Relaxed: only distinctness matters.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = [b'-'; 33];
        hex(self.process, &mut text[..16]);
        hex(number, &mut text[17..]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
    }
}

fn is_valid(bytes: &[u8]) -> bool {
    (1..=REQUEST_ID_CHARS_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn hex(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_own_id_is_kept_when_it_is_1_to_128_visible_characters() {
        let ids = RequestIds::new();
        let of = |value: &str| {
            let headers =
                HeaderMap::from_iter([(REQUEST_ID_HEADER, HeaderValue::from_str(value).unwrap())]);
            ids.of(&headers).to_str().unwrap() == value
        };
        assert!(of("a") && of(&"~".repeat(128)) && of("!"));
        assert!(!of("") && !of(&"a".repeat(129)) && !of("a b") && !of("a\tb"));
        let latin = HeaderValue::from_bytes(b"\xe5").unwrap();
        let made = ids.of(&HeaderMap::from_iter([(REQUEST_ID_HEADER, latin)]));
        assert_eq!(made.len(), 33);
    }

    #[test]
    fn made_ids_are_distinct() {
        let (ids, others) = (RequestIds::new(), RequestIds::new());
        let made = [ids.make(), ids.make(), others.make()];
        assert!(made[0] != made[1] && made[0] != made[2]);
    }
}
