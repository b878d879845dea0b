//! A request's body: read within bounds, given up when a stop begins, and read on after an error.

mod room;

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
use tokio::time::{Instant, timeout};
use tokio_util::sync::WaitForCancellationFutureOwned;

use self::room::{GivesWay, Room, STEP_BYTES, busy};
pub use self::room::{ROOM_KEPT_MIN, ROOM_WAIT_MAX, UPLOADS_BYTES_MAX};
pub(crate) use self::room::{Rooms, Sender};
use crate::{
    api::{Api, JSON_BYTES_MAX},
    lifecycle::{Lifecycle, Phase},
    limited::Limit,
    problem::Error,
};

/// How much of a body is read on after an error, so that the answer arrives before the connection closes.
pub const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// For how long a body is read on after an error.
pub const LINGER_MAX: Duration = Duration::from_secs(5);
/// How long an upload may pause.
pub const UPLOAD_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a body is waited for in all, usually: 16 MiB at half a megabit a second.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How much room a body takes at most before it needs it.
const AHEAD_BYTES_MAX: usize = 1024 * 1024;

/// A request's body, piece by piece.
pub(crate) struct Upload<B: RequestBody = Incoming> {
    body: Lingering<B>,
    lifecycle: Lifecycle,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    timeout: Duration,
    // How long it has been waited for; what the server does in between is not its sender's.
    waited: Duration,
    received: usize,
    room: Room,
    gives_way: Arc<GivesWay>,
}

/// The body of a request.
pub(crate) trait RequestBody:
    HttpBody<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static
{
}

impl<B: HttpBody<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static> RequestBody for B {}

impl<B: RequestBody> Upload<B> {
    pub(crate) fn new(body: Lingering<B>, sender: Sender, api: &Api) -> Self {
        Self::within(body, sender, &api.lifecycle, &api.rooms, api.settings.upload_timeout)
    }

    fn within(
        body: Lingering<B>,
        sender: Sender,
        lifecycle: &Lifecycle,
        rooms: &Rooms,
        timeout: Duration,
    ) -> Self {
        let (stop, lifecycle) = (Box::pin(lifecycle.stop_signal()), lifecycle.clone());
        let ((room, gives_way), waited) = (rooms.enter(sender), Duration::ZERO);
        Self { body, lifecycle, stop, timeout, waited, received: 0, room, gives_way }
    }

    /// The next piece, never empty, or `None` at the end.
    ///
    /// # Errors
    /// When a stop begins, when nothing comes for [`UPLOAD_PAUSE_MAX`] or it takes too long in all, when there is no room
    /// for it, and when it breaks off.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.lifecycle.phase() == Phase::Draining {
                self.lifecycle.gate()?;
            }
            let pause_max = UPLOAD_PAUSE_MAX.min(self.timeout.saturating_sub(self.waited));
            let received = self.received;
            let (room, body, waited) = (&mut self.room, &mut self.body, &mut self.waited);
            let read = async {
                room.have(ahead(received + 1, received, body.size_hint().upper())).await?;
                let began = Instant::now();
                let frame = timeout(pause_max, body.frame()).await;
                *waited += began.elapsed();
                if let Ok(Some(Ok(frame))) = &frame {
                    room.heard();
                    let received = received + frame.data_ref().map_or(0, Bytes::len);
                    room.have(ahead(received, received, body.size_hint().upper())).await?;
                }
                Ok::<_, Error>(frame)
            };
            let frame = tokio::select! {
                biased;
                // Nearly always it is there already.
                frame = read => frame?,
                () = &mut self.stop => continue,
                () = self.gives_way.notified() => return Err(busy()),
            };
            match frame {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        self.received += data.len();
                        return Ok(Some(data));
                    }
                    // Trailers, or nothing.
                    Ok(_) | Err(_) => {}
                },
                Ok(Some(Err(error))) => return Err(broken(format!("the body broke off: {error}"))),
                Ok(None) => {
                    self.room.all_read();
                    return Ok(None);
                }
                Err(_) => {
                    Limit::UploadTime.met();
                    let (what, max) = if pause_max < UPLOAD_PAUSE_MAX {
                        ("took", self.timeout)
                    } else {
                        ("paused for", UPLOAD_PAUSE_MAX)
                    };
                    return Err(broken(format!("the body {what} more than {} s", max.as_secs())));
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
        if self.body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large());
        }
        // What the sender declares is no reason to take memory: it grows with the room that was granted.
        let mut all = Vec::new();
        while let Some(data) = self.next().await? {
            if data.len() > bytes_max - all.len() {
                return Err(too_large());
            }
            if all.capacity() - all.len() < data.len() {
                let granted = self.room.bytes().min(bytes_max);
                all.reserve_exact(granted.saturating_sub(all.len()).max(data.len()));
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

/// How much room a body takes when it needs `bytes`: whole steps, and of a large one a quarter of it ahead, so that it is
/// seldom copied; but not beyond the end that it declares, with `left` to come behind what was `received`. No body keeps
/// more than the largest of JSON: of lines, the answer to each is about as long as the line.
fn ahead(bytes: usize, received: usize, left: Option<u64>) -> usize {
    let grown = bytes + (bytes / 4).min(AHEAD_BYTES_MAX);
    let end = left.and_then(|left| usize::try_from(left).ok()?.checked_add(received));
    grown.min(end.unwrap_or(usize::MAX)).max(1).next_multiple_of(STEP_BYTES).min(JSON_BYTES_MAX)
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

    use futures_util::{Stream, StreamExt as _, stream, stream::BoxStream};
    use http_body_util::StreamBody;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn sender() -> Sender {
        Sender::Client("one".into())
    }

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
        let rooms = Rooms::new(JSON_BYTES_MAX);
        let of = |body| Upload::within(body, sender(), &life, &rooms, UPLOAD_TIMEOUT);
        let mut upload = of(pausing(UPLOAD_PAUSE_MAX - tick));
        assert_eq!(upload.all(2).await.unwrap(), b"xx");
        let mut upload = of(pausing(UPLOAD_PAUSE_MAX + tick));
        let Err(Error::Invalid(violations)) = upload.all(2).await else { panic!("it is refused") };
        assert_eq!(violations.into_texts(), ["the body paused for more than 30 s"]);
    }

    /// A body of `count` pieces, one every 20 s.
    fn trickling(count: usize) -> Lingering<impl RequestBody> {
        let body = body_of(stream::unfold(0, move |piece| async move {
            sleep(Duration::from_secs(20)).await;
            (piece < count).then(|| (Bytes::from_static(b"x"), piece + 1))
        }));
        Lingering::wrap(body, &HeaderMap::new()).0
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_take_as_long_as_is_set_and_the_servers_own_time_does_not_count() {
        let life = Lifecycle::new(Duration::from_secs(10));
        let rooms = Rooms::new(JSON_BYTES_MAX);
        let tick = Duration::from_millis(5);
        // The end takes 20 s too.
        let all = Duration::from_secs(20 * 10);
        let mut upload = Upload::within(trickling(9), sender(), &life, &rooms, all + tick);
        for _ in 0..9 {
            assert!(upload.next().await.unwrap().is_some());
            sleep(all).await;
        }
        assert_eq!(upload.next().await.unwrap(), None);
        let mut upload = Upload::within(trickling(9), sender(), &life, &rooms, all - tick);
        let Err(Error::Invalid(violations)) = upload.all(9).await else { panic!("it is refused") };
        assert_eq!(violations.into_texts(), ["the body took more than 199 s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_body_fits_into_the_least_room_and_of_two_one_gives_way() {
        let life = Lifecycle::new(Duration::from_secs(10));
        let rooms = Rooms::new(JSON_BYTES_MAX);
        let of = |pieces: BoxStream<'static, Bytes>| {
            let (body, _) = Lingering::wrap(body_of(pieces), &HeaderMap::new());
            Upload::within(body, sender(), &life, &rooms, UPLOAD_TIMEOUT)
        };
        let large = || {
            let pieces = stream::repeat(Bytes::from_static(&[b'x'; 16 * 1024]));
            pieces.take(JSON_BYTES_MAX / (16 * 1024)).boxed()
        };
        assert_eq!(of(large()).all(JSON_BYTES_MAX).await.unwrap().len(), JSON_BYTES_MAX);
        // One that has sent next to nothing, and one that needs all there is.
        let one = stream::once(async { Bytes::from_static(b"x") });
        let mut silent = of(one.chain(stream::pending()).boxed());
        assert!(silent.next().await.unwrap().is_some());
        let silent = tokio::spawn(async move { silent.all(2).await });
        tokio::task::yield_now().await;
        let mut upload = of(large());
        assert_eq!(upload.all(JSON_BYTES_MAX).await.unwrap().len(), JSON_BYTES_MAX);
        assert!(matches!(silent.await.unwrap(), Err(Error::Busy)));
    }

    #[test]
    fn room_is_taken_in_steps_and_not_beyond_the_end() {
        const MIB: usize = 1024 * 1024;
        for (bytes, received, left, expected) in [
            (1, 0, None, STEP_BYTES),
            (STEP_BYTES + 1, STEP_BYTES, Some(0), STEP_BYTES),
            (1, 0, Some(0), STEP_BYTES),
            (STEP_BYTES + 1, STEP_BYTES, None, 2 * STEP_BYTES),
            (1, 0, Some(16 * MIB as u64), STEP_BYTES),
            (4 * MIB, 4 * MIB, Some(12 * MIB as u64), 5 * MIB),
            (8 * MIB, 8 * MIB, Some(8 * MIB as u64), 9 * MIB),
            (8 * MIB, 8 * MIB, Some(1), 8 * MIB + STEP_BYTES),
            (8 * MIB, 8 * MIB, Some(u64::MAX), 9 * MIB),
            (16 * MIB, 16 * MIB, None, JSON_BYTES_MAX),
            (17 * MIB, 17 * MIB, None, JSON_BYTES_MAX),
        ] {
            assert_eq!(ahead(bytes, received, left), expected, "{bytes}, {left:?}");
        }
    }

    /// Declares the most there may be, and sends `sent` of it.
    struct Declares {
        sent: usize,
        pieces: BoxStream<'static, Bytes>,
    }

    impl HttpBody for Declares {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let piece = ready!(self.pieces.poll_next_unpin(cx));
            self.sent += piece.as_ref().map_or(0, Bytes::len);
            Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact((JSON_BYTES_MAX - self.sent) as u64)
        }
    }

    #[tokio::test]
    async fn what_a_body_declares_takes_no_memory_before_it_comes() {
        let life = Lifecycle::new(Duration::from_secs(10));
        let rooms = Rooms::new(JSON_BYTES_MAX);
        for bytes in [1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, JSON_BYTES_MAX] {
            let piece = |len| Bytes::from_static(&[b'x'; STEP_BYTES]).slice(..len);
            let whole = stream::iter(vec![piece(STEP_BYTES); bytes / STEP_BYTES]);
            let pieces = whole.chain(stream::iter([piece(bytes % STEP_BYTES)])).boxed();
            let (body, _) = Lingering::wrap(Declares { sent: 0, pieces }, &HeaderMap::new());
            let mut upload = Upload::within(body, sender(), &life, &rooms, UPLOAD_TIMEOUT);
            let all = upload.all(JSON_BYTES_MAX).await.unwrap();
            assert_eq!(all.len(), bytes);
            assert!(all.capacity() <= upload.room.bytes(), "{bytes}: {}", all.capacity());
            assert!(upload.room.bytes() <= (bytes + bytes / 4 + 1).next_multiple_of(STEP_BYTES));
        }
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
