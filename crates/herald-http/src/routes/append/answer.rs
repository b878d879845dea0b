//! What became of each draft, in the drafts' order.

use std::{
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use herald_log::Appended;
use http::{StatusCode, header};
use http_body::{Frame, SizeHint};

use crate::{
    body::{Body, Response},
    routes::poll::{APPLICATION_JSON, NO_STORE},
};

/// About how many bytes the answer to one draft has.
const ANSWER_BYTES: usize = 144;

/// The answer to an append, written piece by piece: 100,000 drafts are 15 MB of it, which nobody copies.
pub(super) struct Answer {
    pieces: Vec<Vec<u8>>,
    count: usize,
}

impl Answer {
    pub(super) const fn new() -> Self {
        Self { pieces: Vec::new(), count: 0 }
    }

    /// How many drafts are answered.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn add(&mut self, appended: &[Appended]) {
        let mut out = Vec::with_capacity(appended.len() * ANSWER_BYTES + 32);
        for one in appended {
            let before: &[u8] = if self.count == 0 { b"{\"notifications\":[" } else { b"," };
            out.extend_from_slice(before);
            write!(
                out,
                r#"{{"notificationId":"{}","offset":{},"createdAt":"{}","duplicate":{}}}"#,
                one.notification_id, one.offset, one.created_at, one.duplicate,
            )
            .expect("writing into memory cannot fail");
            self.count += 1;
        }
        self.pieces.push(out);
    }

    pub(super) fn into_response(mut self) -> Response {
        let end = b"]}";
        match self.pieces.last_mut() {
            Some(last) => last.extend_from_slice(end),
            None => self.pieces.push(end.to_vec()),
        }
        let body = if self.pieces.len() == 1 {
            Body::from(self.pieces.remove(0))
        } else {
            let bytes = self.pieces.iter().map(|piece| piece.len() as u64).sum();
            Body::new(Pieces { pieces: self.pieces.into_iter(), bytes })
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert(header::CONTENT_TYPE, APPLICATION_JSON);
        response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
        response
    }
}

/// Pieces as a body of known length.
struct Pieces {
    pieces: std::vec::IntoIter<Vec<u8>>,
    bytes: u64,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        self.bytes -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use herald_types::Offset;
    use http_body_util::BodyExt;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_one_array_whatever_its_pieces() {
        let appended = |number| Appended {
            notification_id: Uuid::from_u128(number),
            offset: Offset::new(7).unwrap(),
            created_at: "2026-05-08T08:32:15.31+00:00".to_owned(),
            duplicate: number == 2,
        };
        let mut answer = Answer::new();
        answer.add(&[appended(1), appended(2)]);
        answer.add(&[appended(3)]);
        assert_eq!(answer.count(), 3);
        let body = answer.into_response().into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let all = json["notifications"].as_array().unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1]["duplicate"], true);
        assert_eq!(all[2]["notificationId"], "00000000-0000-0000-0000-000000000003");
        assert_eq!(all[2]["createdAt"], "2026-05-08T08:32:15.31+00:00");
    }
}
