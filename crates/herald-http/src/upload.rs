//! A request's body: read within bounds, given up when a stop begins, and read on after an error.

use std::{
    fmt::Display,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use herald_types::Violations;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    lifecycle::{Lifecycle, Phase},
    problem::Error,
};

/// How much of a body is read on after an error, so that the answer arrives before the connection closes.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// For how long a body is read on after an error.
pub const LINGER_MAX: Duration = Duration::from_secs(5);
/// How long an upload may pause.
pub const UPLOAD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A request's body, piece by piece.
pub(crate) struct Upload<B: RequestBody = Incoming> {
    body: Lingering<B>,
    lifecycle: Lifecycle,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The body of a request.
pub(crate) trait RequestBody:
    HttpBody<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static
{
}

impl<B: HttpBody<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static> RequestBody for B {}

impl<B: RequestBody> Upload<B> {
    pub(crate) fn new(body: Lingering<B>, lifecycle: &Lifecycle) -> Self {
        let stop = Box::pin(lifecycle.stop_signal());
        Self { body, lifecycle: lifecycle.clone(), stop }
    }

    /// The next piece, never empty, or `None` at the end.
    ///
    /// # Errors
    /// When a stop begins, when nothing comes for [`UPLOAD_PAUSE_MAX`], and when the body breaks off.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.lifecycle.phase() == Phase::Draining {
                self.lifecycle.gate()?;
            }
            let frame = tokio::select! {
                biased;
                // Nearly always it is there already.
                frame = timeout(UPLOAD_PAUSE_MAX, self.body.frame()) => frame,
                () = &mut self.stop => continue,
            };
            match frame {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers, or nothing.
                    Ok(_) | Err(_) => {}
                },
                Ok(Some(Err(error))) => return Err(broken(format!("the body broke off: {error}"))),
                Ok(None) => return Ok(None),
                Err(_) => {
                    let seconds = UPLOAD_PAUSE_MAX.as_secs();
                    return Err(broken(format!("the body paused for more than {seconds} s")));
                }
            }
        }
    }

    /// All of it, at most `bytes_max`.
    ///
    /// # Errors
    /// As [`Upload::next`], and [`Error::TooLarge`].
    pub(crate) async fn all(&mut self, bytes_max: usize) -> Result<Vec<u8>, Error> {
        let too_large = || {
            Error::TooLarge(format!(
                "The body is larger than {bytes_max} bytes, the limit of JSON."
            ))
        };
        let size = self.body.size_hint();
        if size.lower() > bytes_max as u64 {
            return Err(too_large());
        }
        let mut all = Vec::with_capacity(usize::try_from(size.lower()).unwrap_or(0));
        while let Some(data) = self.next().await? {
            if data.len() > bytes_max - all.len() {
                return Err(too_large());
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

fn broken(text: String) -> Error {
    let mut violations = Violations::new();
    violations.add(text);
    Error::Invalid(violations)
}

/// A body that, dropped before its end, is read on for a while in a task of its own.
///
/// Closing a connection with bytes unread resets it, and a reset may overtake the answer. So whoever answers early,
/// a handler or the router itself, just drops the body.
pub(crate) struct Lingering<B: RequestBody> {
    body: Option<B>,
    left: Option<Left>,
    // Whoever waits for `100 Continue` has not sent anything that would have to be read on.
    is_under_way: bool,
}

/// Whether a body was dropped before its end, so that the connection closes behind the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left(Arc<AtomicBool>);

impl Left {
    pub(crate) fn is_unread(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<B: RequestBody> Lingering<B> {
    /// Nothing is left of a body that has nothing to read.
    pub(crate) fn wrap(body: B, headers: &HeaderMap) -> (Self, Option<Left>) {
        if body.is_end_stream() {
            return (Self { body: None, left: None, is_under_way: false }, None);
        }
        let is_under_way = !headers.contains_key(header::EXPECT);
        let left = Left::default();
        (Self { body: Some(body), left: Some(left.clone()), is_under_way }, Some(left))
    }
}

impl<B: RequestBody> HttpBody for Lingering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(pin!(body).poll_frame(cx));
        match frame {
            Some(Ok(_)) => self.is_under_way = true,
            Some(Err(_)) | None => self.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B: RequestBody> Drop for Lingering<B> {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        // Relaxed: the answer is made by the task that drops the body.
        if let Some(left) = &self.left {
            left.0.store(true, Ordering::Relaxed);
        }
        if self.is_under_way {
            // Bounded by its own limits and by the connection, so nobody needs its handle.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(timeout(LINGER_MAX, read_on(body)));
            }
        }
    }
}

async fn read_on(mut body: impl RequestBody) {
    let mut bytes_left = LINGER_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        bytes_left = match bytes_left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(bytes_left) => bytes_left,
            None => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::atomic::AtomicUsize};

    use futures_util::{Stream, StreamExt as _, stream};
    use http_body_util::StreamBody;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A body whose second piece comes after `pause`.
    fn pausing(pause: Duration) -> Lingering<impl RequestBody> {
        let body = body_of(stream::unfold(0, move |piece| async move {
            match piece {
                0 => {}
                1 => sleep(pause).await,
                _ => return None,
            }
            Some((Bytes::from_static(b"x"), piece + 1))
        }));
        Lingering::wrap(body, &HeaderMap::new()).0
    }

    fn body_of(pieces: impl Stream<Item = Bytes> + Send + 'static) -> impl RequestBody {
        StreamBody::new(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_pause_for_30_s_and_no_longer() {
        let life = Lifecycle::new(Duration::from_secs(10));
        let tick = Duration::from_millis(5);
        let mut upload = Upload::new(pausing(UPLOAD_PAUSE_MAX - tick), &life);
        assert_eq!(upload.all(2).await.unwrap(), b"xx");
        let mut upload = Upload::new(pausing(UPLOAD_PAUSE_MAX + tick), &life);
        let Err(Error::Invalid(violations)) = upload.all(2).await else { panic!("it is refused") };
        assert_eq!(violations.into_texts(), ["the body paused for more than 30 s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_body_is_read_on_for_5_s_and_no_longer() {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let body = body_of(stream::unfold((), move |()| {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(1)).await;
                Some((Bytes::from_static(b"x"), ()))
            }
        }));
        let began = Instant::now();
        let (body, left) = Lingering::wrap(body, &HeaderMap::new());
        drop(body);
        assert!(left.unwrap().is_unread());
        sleep(LINGER_MAX * 10).await;
        assert!(began.elapsed() >= LINGER_MAX * 10);
        // The last one was begun and given up.
        assert!((5..=6).contains(&read.load(Ordering::Relaxed)));
    }

    #[tokio::test]
    async fn a_dropped_body_is_read_on_for_16_mib_and_no_longer() {
        const PIECE: Bytes = Bytes::from_static(&[0; 64 * 1024]);
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let body = body_of(stream::repeat_with(move || {
            counted.fetch_add(PIECE.len(), Ordering::Relaxed);
            PIECE
        }));
        read_on(body).await;
        assert_eq!(read.load(Ordering::Relaxed), LINGER_BYTES_MAX + PIECE.len());
    }
}
