//! The port: connections and requests, all of them bounded.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{authority::Authority, refusal::chain, routes};

/// How many bytes a request's head may have: the proof is in it.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How many bytes a request's body may have: the assertion is in it.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// How many connections are served at once; more wait.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take, which is one request and its answer.
pub const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How much of a body that is too large is read on, so that the answer arrives before the connection closes.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long to wait when the system has no room for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever; to drop it cuts every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    rotate_every: Option<Duration>,
) {
    let mut connections = JoinSet::new();
    let mut rotation = rotate_every.filter(|every| !every.is_zero()).and_then(|every| {
        let mut rotation = interval_at(Instant::now().checked_add(every)?, every);
        rotation.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(rotation)
    });
    let mut is_short = false;
    loop {
        let is_full = connections.len() >= CONNECTIONS_MAX;
        tokio::select! {
            accepted = listener.accept(), if !is_full => match accepted {
                Ok((stream, _)) => {
                    is_short = false;
                    connections.spawn(serve_one(stream, Arc::clone(&authority)));
                }
                Err(error) => {
                    if !is_short {
                        warn!(%error, "cannot accept, trying again");
                    }
                    is_short = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = ticked(&mut rotation) => {
                if let Err(error) = authority.rotate(Timestamp::now()) {
                    warn!(error = chain(&error), "could not rotate");
                    rotation = None;
                }
            }
        }
    }
}

/// Waits for the next time, for ever if there is none.
async fn ticked(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}

/// One request a connection: a client asks for two things in ten minutes, and so no connection is ever idle.
async fn serve_one(stream: TcpStream, authority: Arc<Authority>) {
    let service = service_fn(|request: Request<Incoming>| {
        let authority = &authority;
        async move {
            let (head, body) = request.into_parts();
            let body = read(body).await?;
            let request = Request::from_parts(head, body);
            Ok::<_, hyper::Error>(routes::answer(authority, request, Timestamp::now()).await)
        }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX);
    // The whole connection has a time.
    builder.header_read_timeout(None);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection ended"),
        Err(_) => info!(time_max = ?CONNECTION_TIME_MAX, "a connection took too long"),
    }
}

/// All of a body; `None` if it is too large.
async fn read(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let (mut kept, mut len) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        len += data.len();
        if len <= BODY_BYTES_MAX {
            kept.extend_from_slice(&data);
        } else if len > LINGER_BYTES_MAX {
            break;
        }
    }
    Ok((len <= BODY_BYTES_MAX).then(|| kept.into()))
}
