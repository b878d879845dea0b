//! The body of an answer.

use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use herald_feed::Stream;
use herald_types::wire::Events;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

use crate::limits::StreamSlot;

/// Whatever ends a body early.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// An answer.
pub(crate) type Response = http::Response<Body>;

/// The body of an answer: nearly always bytes that are there, or a stream.
#[derive(Debug)]
pub struct Body(Kind);

enum Kind {
    Whole(Bytes),
    Stream(Box<ClientStream>),
    Other(UnsyncBoxBody<Bytes, BoxError>),
}

/// A stream, and its client's slot for as long as it lives.
pub(crate) struct ClientStream {
    pub(crate) stream: Stream,
    _slot: Option<StreamSlot>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Stream(_) => "Stream",
            Self::Other(_) => "Other",
        })
    }
}

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Whole(Bytes::new()))
    }

    /// Any other body.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Kind::Other(body.map_err(Into::into).boxed_unsync()))
    }

    /// A stream, which takes one of its client's slots where those are counted.
    pub(crate) fn stream(stream: Stream, slot: Option<StreamSlot>) -> Self {
        Self(Kind::Stream(Box::new(ClientStream { stream, _slot: slot })))
    }

    pub(crate) const fn is_stream(&self) -> bool {
        matches!(self.0, Kind::Stream(_))
    }

    /// The stream that this body is, with nothing left of it here; or `None`.
    pub(crate) fn take_stream(&mut self) -> Option<Box<ClientStream>> {
        match mem::replace(self, Self::empty()).0 {
            Kind::Stream(stream) => Some(stream),
            kind => {
                self.0 = kind;
                None
            }
        }
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self(Kind::Whole(bytes.into()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => {
                let bytes = mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => {
                let mut events = Events::default();
                Poll::Ready(match ready!(stream.stream.poll_events(cx, &mut events)) {
                    Ok(true) => Some(Ok(Frame::data(events.0.into()))),
                    Ok(false) => None,
                    // All that can be said to the reader by now is the end; it will come back.
                    Err(error) => {
                        stream_broke(&error);
                        None
                    }
                })
            }
            Kind::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(_) => false,
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(_) => SizeHint::default(),
            Kind::Other(body) => body.size_hint(),
        }
    }
}

/// One log line for a stream that could not be read.
pub(crate) fn stream_broke(error: &herald_log::ReadError) {
    tracing::error!(%error, "stream ended: could not read");
}
