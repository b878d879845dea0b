//! Every route of the API.

use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;

use crate::{
    api::Api,
    body::{Body, Response},
    edge::Request,
    extract::one_host,
    problem::Error,
    route::{Route, is_get},
    routes::{append, docs, ping, poll, stream},
    server::{Peer, Routes},
};

impl Routes for Api {
    async fn answer(&self, request: http::Request<Incoming>, peer: Peer) -> Response {
        self.edge.answer(request, |request| answer(self, request, peer)).await
    }
}

async fn answer(api: &Api, request: Request, peer: Peer) -> Result<Response, Error> {
    one_host(request.headers())?;
    let route = Route::of(request.uri().path());
    match (route, request.method()) {
        (Route::Other | Route::Metrics | Route::Live | Route::Ready, _) => Err(Error::NotFound),
        (Route::Notifications, method) if is_get(method) => poll::poll(api, request, peer).await,
        // In a box: every request's future would be as large as that of an append, and is moved once.
        (Route::Notifications, &Method::POST) => Box::pin(append::append(api, request, peer)).await,
        (Route::Stream, method) if is_get(method) => stream::stream(api, &request, peer).await,
        (Route::Ping, method) if is_get(method) => ping::ping(api),
        (Route::OpenApi, method) if is_get(method) => docs::document(api),
        (Route::Swagger, method) if is_get(method) => docs::swagger(api, &request),
        (route, &Method::OPTIONS) => {
            api.lifecycle.gate()?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            let allow = HeaderValue::from_static(route.allow());
            response.headers_mut().insert(header::ALLOW, allow);
            Ok(response)
        }
        (route, _) => Err(Error::MethodNotAllowed { allow: route.allow() }),
    }
}
