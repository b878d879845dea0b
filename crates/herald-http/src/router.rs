//! Every route.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, StatusCode};
use tower::Layer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::Api,
    edge::EdgeLayer,
    openapi,
    problem::Error,
    routes::{append, docs, ping, poll, stream},
};

/// The API. Call it inside a runtime: it waits there for a stop, to move the ends of the streams.
pub fn router(api: Api) -> Router {
    let (lifecycle, streams) = (api.lifecycle.clone(), api.streams.clone());
    // Ends with the stop; nobody needs its handle.
    tokio::spawn(async move {
        let drain = lifecycle.stop_begun().await;
        streams.drain(drain.stream_end_window());
    });
    let (router, _) = documented();
    let router = router
        .route("/swagger/", get(docs::swagger))
        .route("/swagger/{*file}", get(docs::swagger))
        .fallback(not_found)
        .method_not_allowed_fallback(other_method)
        .with_state(Arc::new(api));
    // Around the router and not inside of it, so that it also sees what the router adds by itself.
    Router::new().fallback_service(EdgeLayer::new().layer(router))
}

/// The routes that the document describes, and the document.
pub(crate) fn documented() -> (Router<Arc<Api>>, OpenApi) {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(poll::poll, append::append))
        .routes(routes!(stream::stream))
        .routes(routes!(ping::ping))
        .routes(routes!(docs::document))
        .routes(routes!(docs::swagger))
        .split_for_parts()
}

async fn not_found() -> Error {
    Error::NotFound
}

/// Any method that a path does not know; `Allow` is added by the router.
async fn other_method(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Error> {
    if request.method() != Method::OPTIONS {
        return Err(Error::MethodNotAllowed);
    }
    api.lifecycle.gate()?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
