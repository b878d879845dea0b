//! `GET /openapi.json` and `GET /swagger`: the document and its UI, from the binary, with no network.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderValue, header};
use utoipa_swagger_ui::Config;

use crate::{
    api::Api,
    body::{Body, Response},
    edge::Request,
    openapi::{self, PlainProblems},
    problem::Error,
    routes::poll::APPLICATION_JSON,
};

/// The OpenAPI document of this API
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "Service",
    operation_id = "openapi",
    responses(
        (
            status = 200,
            description = "OpenAPI 3.1",
            body = Object,
            content_type = "application/json",
        ),
        PlainProblems,
    )
)]
pub(crate) fn document(api: &Api) -> Result<Response, Error> {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::json().into());
    api.lifecycle.gate()?;
    let mut response = Response::new(Body::from(DOCUMENT.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, APPLICATION_JSON);
    Ok(response)
}

/// A page to read the OpenAPI document and to try the calls
#[utoipa::path(
    get,
    path = "/swagger",
    tag = "Service",
    operation_id = "swagger",
    responses(
        (status = 200, description = "Swagger UI", body = String, content_type = "text/html"),
        PlainProblems,
    )
)]
pub(crate) fn swagger(api: &Api, request: &Request) -> Result<Response, Error> {
    api.lifecycle.gate()?;
    let path = request.uri().path();
    let file = path.strip_prefix("/swagger/").filter(|file| !file.is_empty());
    let mut response = asset(file.unwrap_or("index.html"))?;
    if path == "/swagger" {
        // Seen from here, the page's relative links point beside it; this moves them below.
        let html = utoipa_swagger_ui::serve("index.html", CONFIG.clone()).ok().flatten();
        let html = html.ok_or(Error::NotFound)?;
        let html = String::from_utf8_lossy(&html.bytes);
        *response.body_mut() =
            Body::from(html.replacen("<head>", "<head>\n    <base href=\"swagger/\">", 1));
    }
    Ok(response)
}

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::new(["/openapi.json"]);
    Arc::new(config.try_it_out_enabled(true).display_request_duration(true).validator_url("none"))
});

fn asset(file: &str) -> Result<Response, Error> {
    let file = utoipa_swagger_ui::serve(file, CONFIG.clone()).ok().flatten();
    let file = file.ok_or(Error::NotFound)?;
    let mut response = Response::new(Body::from(Bytes::from(file.bytes.into_owned())));
    let content_type = HeaderValue::try_from(file.content_type);
    let headers = response.headers_mut();
    if let Ok(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}
