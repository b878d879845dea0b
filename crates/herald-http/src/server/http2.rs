//! A connection of HTTP/2, which is hyper's to its end.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, task::Poll};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{
    Peer, Routes,
    connection::Port,
    io::Guarded,
    requests::{Activity, answer},
};

pub(super) async fn serve_http2<R: Routes>(port: &Arc<Port<R>>, io: Guarded, peer: Peer) {
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let (port, activity) = (Arc::clone(port), Arc::clone(&activity));
        async move { Ok::<_, Infallible>(answer(&port, &activity, request, peer).await) }
    });
    let mut connection = pin!(port.http2.serve_connection(TokioIo::new(io), service));
    let mut closing = pin!(port.closing.listen());
    let mut cut = pin!(port.cut.listen());
    let mut idle = pin!(sleep(port.idle_timeout));
    let mut is_closing = false;
    poll_fn(|cx| {
        if cut.as_mut().poll_given(&port.cut, cx) {
            return Poll::Ready(());
        }
        if !is_closing && closing.as_mut().poll_given(&port.closing, cx) {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
        }
        while idle.as_mut().poll(cx).is_ready() {
            let until = activity.busy_until() + port.idle_timeout;
            if until > Instant::now() {
                idle.as_mut().reset(until);
            } else if is_closing {
                // It was asked to close, and its peer does not answer.
                return Poll::Ready(());
            } else {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
                idle.as_mut().reset(Instant::now() + port.idle_timeout);
            }
        }
        connection.as_mut().poll(cx).map(|result| {
            if let Err(error) = result {
                debug!(%error, "connection ended");
            }
        })
    })
    .await;
}
