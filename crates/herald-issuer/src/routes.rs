//! Every route: a whole request in, an answer out.

use bytes::Bytes;
use herald_auth::Algorithm;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, RETRY_AFTER},
};
use http_body_util::Full;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::{
    authority::Authority,
    refusal::{Refusal, chain},
    token,
};

/// What the issuer is and where everything else is (OpenID Connect Discovery).
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// The same (RFC 8414).
pub const AUTHORIZATION_SERVER_PATH: &str = "/.well-known/oauth-authorization-server";
/// The published keys.
pub const KEYS_PATH: &str = "/.well-known/openid-configuration/jwks";
/// Where tokens are asked for.
pub const TOKEN_PATH: &str = "/connect/token";
/// Another key signs from now on.
pub const ROTATE_PATH: &str = "/dev/rotate";
/// Only the key that signs is published from now on.
pub const RETIRE_KEYS_PATH: &str = "/dev/retire-keys";
/// No nonce that was handed out is known any more.
pub const RENEW_NONCES_PATH: &str = "/dev/renew-nonces";

/// When to come back to an issuer that remembers as much as it can.
const BUSY_RETRY_AFTER_S: u64 = 10;
const NONCE_HEADER: &str = "dpop-nonce";

/// The answer to a request.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers a request whose body is `None` if it was too large.
pub(crate) async fn answer(
    authority: &Authority,
    request: Request<Option<Bytes>>,
    now: Timestamp,
) -> Answer {
    let path = request.uri().path();
    let allowed = match path {
        CONFIGURATION_PATH | AUTHORIZATION_SERVER_PATH | KEYS_PATH => Method::GET,
        TOKEN_PATH | ROTATE_PATH | RETIRE_KEYS_PATH | RENEW_NONCES_PATH => Method::POST,
        _ => return json(StatusCode::NOT_FOUND, &json!({"error": "not_found"})),
    };
    let is_head = allowed == Method::GET && request.method() == Method::HEAD;
    if *request.method() != allowed && !is_head {
        let mut answer =
            json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "method_not_allowed"}));
        let allowed = if allowed == Method::GET { "GET, HEAD" } else { "POST" };
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return answer;
    }
    let Some(body) = request.body() else {
        let refusal = Refusal::request("the body is too large");
        return refuse(&Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, ..refusal });
    };
    match path {
        KEYS_PATH => json(StatusCode::OK, &authority.keys().published(now)),
        TOKEN_PATH => answer_token(authority, &request, body, now).await,
        ROTATE_PATH | RETIRE_KEYS_PATH | RENEW_NONCES_PATH => {
            control(authority, path, &request, now)
        }
        _ => json(StatusCode::OK, &configuration(authority)),
    }
}

async fn answer_token(
    authority: &Authority,
    request: &Request<Option<Bytes>>,
    body: &Bytes,
    now: Timestamp,
) -> Answer {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return refuse(&Refusal::request("the body must be application/x-www-form-urlencoded"));
    }
    let clients = authority.registry.clients().await;
    let (granted, nonce) = token::grant(authority, &clients, request.headers(), body, now);
    let mut answer = match granted {
        Ok(granted) => json(StatusCode::OK, &granted),
        Err(refusal) => refuse(&refusal),
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::try_from(nonce).ok()) {
        answer.headers_mut().insert(NONCE_HEADER, nonce);
    }
    answer
}

/// What a developer may do to an issuer. A page in a browser may not: it would say where it comes from.
fn control(
    authority: &Authority,
    path: &str,
    request: &Request<Option<Bytes>>,
    now: Timestamp,
) -> Answer {
    if request.headers().contains_key(ORIGIN) {
        return json(StatusCode::FORBIDDEN, &json!({"error": "not_for_browsers"}));
    }
    let outcome = match path {
        ROTATE_PATH => authority.rotate(now).map_err(|error| chain(&error)),
        RETIRE_KEYS_PATH => {
            authority.retire_old_keys();
            Ok(())
        }
        _ => authority.renew_nonces().map_err(|error| chain(&error)),
    };
    match outcome {
        Ok(()) => json(StatusCode::OK, &json!({"kid": authority.keys().current().kid})),
        Err(description) => {
            let description = json!({"error": "conflict", "error_description": description});
            json(StatusCode::CONFLICT, &description)
        }
    }
}

fn configuration(authority: &Authority) -> Value {
    let url = &authority.url;
    let algorithms = Algorithm::ALL.map(Algorithm::name);
    let signs_with = authority.keys().current().algorithm.name();
    json!({
        "issuer": url,
        "token_endpoint": format!("{url}{TOKEN_PATH}"),
        "jwks_uri": format!("{url}{KEYS_PATH}"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "dpop_signing_alg_values_supported": algorithms,
        // Required by the documents' own rules; there is nobody to sign in here.
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [signs_with],
    })
}

fn refuse(refusal: &Refusal) -> Answer {
    let Refusal { status, error, description } = refusal;
    // Every client that has no nonce yet asks for one so.
    if *error == "use_dpop_nonce" {
        debug!(error, "nonce asked for");
    } else if status.is_server_error() {
        warn!(error, description, "token request failed");
    } else {
        info!(error, description, "token refused");
    }
    let mut answer = json(*status, &json!({"error": error, "error_description": description}));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if *status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(RETRY_AFTER, BUSY_RETRY_AFTER_S.into());
    }
    answer
}

/// Not to be kept: the next key may be another.
fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("what is answered has text keys only");
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_put_off_is_told_for_how_long() {
        let answer = refuse(&Refusal::busy("too much"));
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[RETRY_AFTER], "10");
        assert!(!refuse(&Refusal::client("x")).headers().contains_key(RETRY_AFTER));
    }
}
