//! What a server asks to find in proofs (RFC 9449, sections 8 and 9).

use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::HeaderMap;

/// The longest nonce that is taken, in bytes; what is longer is left alone, since it goes into the head of each request.
pub const NONCE_BYTES_MAX: usize = 1024;
/// How often a request is sent again with the nonce that its answer asked for: one is usual, a server may change it just then.
pub const NONCE_RETRIES_MAX: u32 = 2;

/// The newest nonce of one server. A mutex, held for a moment: calls go on side by side, and whichever comes last is newest.
#[derive(Default)]
pub(super) struct Nonce(Mutex<Option<Arc<str>>>);

impl Nonce {
    /// The newest.
    pub(super) fn newest(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what an answer asks for, and returns it. Any answer may have one.
    pub(super) fn keep(&self, headers: &HeaderMap) -> Option<Arc<str>> {
        let nonce = headers.get("dpop-nonce")?.to_str().ok()?;
        if !(1..=NONCE_BYTES_MAX).contains(&nonce.len()) {
            return None;
        }
        let nonce: Arc<str> = nonce.into();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&nonce));
        Some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_1_to_1024_bytes_and_the_last_one_counts() {
        let nonce = Nonce::default();
        let keep = |text: &str| {
            let headers =
                HeaderMap::from_iter([("dpop-nonce".parse().unwrap(), text.parse().unwrap())]);
            nonce.keep(&headers).as_deref().map(str::len)
        };
        assert_eq!(keep("abc"), Some(3));
        assert_eq!(keep(&"x".repeat(NONCE_BYTES_MAX)), Some(NONCE_BYTES_MAX));
        for text in ["", &"y".repeat(NONCE_BYTES_MAX + 1), "å"] {
            assert_eq!(keep(text), None);
            assert_eq!(nonce.newest().unwrap().len(), NONCE_BYTES_MAX, "{text}");
        }
    }
}
