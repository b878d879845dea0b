//! Documents fetched over HTTP: bounded in size and time, never redirected, never over a line that others can write to.

use std::{net::IpAddr, time::Duration};

use reqwest::{
    Client, StatusCode, Url,
    header::{ETAG, HeaderValue, IF_NONE_MATCH},
    redirect::Policy,
};

/// How long a document may take, connection and body included.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a document could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or it broke off, or it took too long.
    #[error("no answer")]
    Transport(#[source] reqwest::Error),
    /// Another status than 200.
    #[error("the answer is {0}")]
    Status(u16),
    /// A body larger than the document may be.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
}

/// An address from which nothing is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// No URL.
    #[error("must be a URL such as https://helseid-sts.test.nhn.no")]
    Form,
    /// Neither https, nor http on this machine.
    #[error("must begin with https://; http:// is for loopback only")]
    Scheme,
    /// With a user, a query or a fragment.
    #[error("must have no user, no query and no fragment")]
    Parts,
}

/// The address in `text`, if what it answers can be believed.
pub(crate) fn trusted_url(text: &str) -> Result<Url, InvalidUrl> {
    let url = Url::parse(text).map_err(|_| InvalidUrl::Form)?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        _ => return Err(InvalidUrl::Scheme),
    }
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if is_plain { Ok(url) } else { Err(InvalidUrl::Parts) }
}

/// That `text` is an address from which keys and grants may be fetched: https, or http on this machine.
///
/// # Errors
/// [`InvalidUrl`] says why not.
pub fn check_url(text: &str) -> Result<(), InvalidUrl> {
    trusted_url(text).map(drop)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Fetches from one host.
#[derive(Debug)]
pub(crate) struct Fetcher {
    http: Client,
}

/// What came.
pub(crate) enum Fetched {
    /// It is what it was.
    Unchanged,
    Changed {
        body: Vec<u8>,
        tag: Option<HeaderValue>,
    },
}

impl Fetcher {
    pub(crate) fn new(url: &Url) -> Result<Self, reqwest::Error> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Losing the race against another thread means that there is one now.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let builder = Client::builder().timeout(FETCH_TIMEOUT).redirect(Policy::none()).no_gzip();
        // A proxy of the environment is for the way out of this machine.
        let builder = if is_loopback(url) { builder.no_proxy() } else { builder };
        Ok(Self { http: builder.build()? })
    }

    /// The document at `url`, unless it still has the tag `known`.
    pub(crate) async fn get(
        &self,
        url: Url,
        known: Option<&HeaderValue>,
        bytes_max: usize,
    ) -> Result<Fetched, FetchError> {
        let mut request = self.http.get(url).header("accept", "application/json");
        if let Some(tag) = known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        let mut answer = request.send().await.map_err(transport)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Fetched::Unchanged),
            status => return Err(FetchError::Status(status.as_u16())),
        }
        let tag = answer.headers().get(ETAG).cloned();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(transport)? {
            if piece.len() > bytes_max - body.len() {
                return Err(FetchError::TooLarge(bytes_max));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Fetched::Changed { body, tag })
    }
}

fn transport(error: reqwest::Error) -> FetchError {
    FetchError::Transport(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for url in [
            "https://sts.example.no",
            "https://sts.example.no/base/",
            "http://127.0.0.1:8088",
            "http://localhost:8088/x",
            "http://[::1]:1",
        ] {
            assert!(trusted_url(url).is_ok(), "{url}");
        }
        for (url, error) in [
            ("http://sts.example.no", InvalidUrl::Scheme),
            ("http://127.0.0.1.example.no", InvalidUrl::Scheme),
            ("http://10.0.0.1", InvalidUrl::Scheme),
            ("file:///etc/passwd", InvalidUrl::Scheme),
            ("sts.example.no", InvalidUrl::Form),
            ("", InvalidUrl::Form),
            ("https://user:word@sts.example.no", InvalidUrl::Parts),
            ("https://sts.example.no?x", InvalidUrl::Parts),
            ("https://sts.example.no#x", InvalidUrl::Parts),
        ] {
            assert_eq!(trusted_url(url), Err(error), "{url}");
        }
    }
}
