//! `gzip` and `zstd` for pages, when asked for; never for streams.

use std::{convert::Infallible, future::ready};

use http::{HeaderMap, Request, header};
use http_body::Body as _;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::{CompressionLevel, compression::CompressionLayer};

use crate::body::{Body, Response};

/// A body below so many bytes is sent as it is: it fits into one packet anyway.
pub const COMPRESSED_BYTES_MIN: u64 = 256;

/// `response`, compressed as the request's `Accept-Encoding` asks.
///
/// Not a layer around the router: that would box every body, streams among them, for the few that ask.
pub(crate) async fn compress(request: &HeaderMap, response: Response) -> Response {
    let is_small = response.body().size_hint().lower() < COMPRESSED_BYTES_MIN;
    if is_small || !request.contains_key(header::ACCEPT_ENCODING) {
        return response;
    }
    Box::pin(compress_as_asked(request, response)).await
}

async fn compress_as_asked(request: &HeaderMap, response: Response) -> Response {
    let mut asking = Request::new(());
    for value in request.get_all(header::ACCEPT_ENCODING) {
        asking.headers_mut().append(header::ACCEPT_ENCODING, value.clone());
    }
    let mut response = Some(response);
    let answer = service_fn(move |_: Request<()>| {
        ready(Ok::<_, Infallible>(response.take().expect("asked once")))
    });
    let layer = CompressionLayer::new().quality(CompressionLevel::Fastest);
    match layer.layer(answer).oneshot(asking).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
