//! The settings of a client, and what is made of them.

#[cfg(feature = "helseid")]
use std::sync::Arc;
use std::{fmt, net::IpAddr, time::Duration};

use reqwest::{Url, header::HeaderValue, redirect::Policy};

#[cfg(feature = "tls")]
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

#[cfg(feature = "helseid")]
use crate::helseid::{self, HelseId, Session};
use crate::{CONNECT_TIMEOUT, Client, SOURCE_SYSTEM_CHARS_MAX, SettingsError, TransportError};

/// Settings of a [`Client`] that has more of them than an address and a name.
#[derive(Clone)]
#[must_use = "`build` makes the client"]
pub struct ClientBuilder {
    url: String,
    source_system: String,
    #[cfg(feature = "tls")]
    trusted: Option<Vec<u8>>,
    #[cfg(feature = "tls")]
    identity: Option<(Vec<u8>, Vec<u8>)>,
    #[cfg(feature = "helseid")]
    credentials: Option<HelseId>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither a key nor a password in an address is anybody's business.
        f.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(crate) fn new(url: &str, source_system: &str) -> Self {
        Self {
            url: url.to_owned(),
            source_system: source_system.to_owned(),
            #[cfg(feature = "tls")]
            trusted: None,
            #[cfg(feature = "tls")]
            identity: None,
            #[cfg(feature = "helseid")]
            credentials: None,
        }
    }

    /// Signs in with these, and puts a token and a proof on each call. The server's address must then be `https://…`, unless it
    /// is on this machine: who can read a call can read what it asks for.
    #[cfg(feature = "helseid")]
    pub fn credentials(mut self, credentials: HelseId) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Trusts the CA certificates of `pem`, one or more, besides the system's; may be called again for more. Both the server and
    /// the issuer of `credentials` may then have a certificate of theirs.
    #[cfg(feature = "tls")]
    pub fn trust(mut self, pem: &[u8]) -> Self {
        let trusted = self.trusted.get_or_insert_default();
        trusted.extend_from_slice(pem);
        // A file may end without the end of its last line.
        trusted.push(b'\n');
        self
    }

    /// Shows the server that asks for it a certificate, with those that lead to its issuer behind it, and signs with its key.
    /// The issuer of `credentials` is shown it, too, if it asks.
    #[cfg(feature = "tls")]
    pub fn identity(mut self, certificate_pem: &[u8], key_pem: &[u8]) -> Self {
        self.identity = Some((certificate_pem.to_vec(), key_pem.to_vec()));
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong with the settings.
    pub fn build(self) -> Result<Client, SettingsError> {
        let base = parse_base(&self.url)?;
        let source_system = parse_source_system(&self.source_system)?;
        let http = self.http(&base)?;
        #[cfg(feature = "helseid")]
        let session = self.session(&base, &http)?;
        Ok(Client {
            http,
            base,
            source_system,
            #[cfg(feature = "helseid")]
            session,
        })
    }

    #[cfg(feature = "helseid")]
    fn session(
        &self,
        base: &Url,
        http: &reqwest::Client,
    ) -> Result<Option<Arc<Session>>, SettingsError> {
        let Some(helseid) = &self.credentials else { return Ok(None) };
        let wrong = |why: &str| {
            let url = base.host_str().unwrap_or_default().to_owned();
            Err(SettingsError::Url { url, why: why.to_owned() })
        };
        if base.scheme() != "https" && !is_loopback(base) {
            return wrong(
                "with credentials it must begin with https:// unless it is on this machine",
            );
        }
        if helseid::has_user(base) {
            return wrong("besides other credentials it must have no user");
        }
        // What differs between ways is the proxy and the trust; reading the system's certificates twice takes time.
        let way = |url: &Url| (url.scheme() == "https", is_loopback(url));
        let issuer = &helseid.issuer;
        let http = if way(base) == way(issuer) { http.clone() } else { self.http(issuer)? };
        Ok(Some(Arc::new(Session::new(helseid, http)?)))
    }

    /// What speaks HTTP to `server`.
    fn http(&self, server: &Url) -> Result<reqwest::Client, SettingsError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            .tcp_keepalive(Duration::from_secs(15))
            .http1_only();
        let builder = with_compression(builder);
        // A proxy of the environment is for the way out of this machine.
        let builder = if is_loopback(server) { builder.no_proxy() } else { builder };
        #[cfg(feature = "tls")]
        let builder = self.with_tls(builder, server)?;
        builder.build().map_err(http)
    }

    /// The process may have chosen a provider already; then that one is used. Reading the system's certificates takes tens of
    /// milliseconds, so a client without TLS does without.
    #[cfg(feature = "tls")]
    fn with_tls(
        &self,
        builder: reqwest::ClientBuilder,
        server: &Url,
    ) -> Result<reqwest::ClientBuilder, SettingsError> {
        if CryptoProvider::get_default().is_none() {
            // Losing the race against another thread means that there is one now.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let trusted = self.read_trusted()?;
        let builder = match self.read_identity()? {
            Some(identity) => builder.identity(identity),
            None => builder,
        };
        Ok(if server.scheme() == "https" {
            builder.tls_certs_merge(trusted)
        } else {
            builder.tls_certs_only([])
        })
    }

    /// Looked at here, since the HTTP library says no more than that something is wrong.
    #[cfg(feature = "tls")]
    fn read_trusted(&self) -> Result<Vec<reqwest::Certificate>, SettingsError> {
        let Some(pem) = &self.trusted else { return Ok(Vec::new()) };
        let wrong = |why: String| SettingsError::Trust { why };
        let certificates = read_certificates(pem).map_err(wrong)?;
        let mut roots = RootCertStore::empty();
        let read = certificates.into_iter().map(|certificate| {
            roots.add(certificate.clone()).map_err(|error| wrong(error.to_string()))?;
            reqwest::Certificate::from_der(&certificate).map_err(http)
        });
        read.collect()
    }

    #[cfg(feature = "tls")]
    fn read_identity(&self) -> Result<Option<reqwest::Identity>, SettingsError> {
        let Some((certificates, key)) = &self.identity else { return Ok(None) };
        let wrong = |why: String| SettingsError::Identity { why };
        let chain = read_certificates(certificates).map_err(wrong)?;
        let read = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| wrong(format!("no private key can be read: {error}")))?;
        let provider = CryptoProvider::get_default().expect("one was installed above");
        // That the key is the certificate's is noticed here and not by the server.
        CertifiedKey::from_der(chain, read, provider).map_err(|error| wrong(error.to_string()))?;
        let pem = [certificates, &b"\n"[..], key].concat();
        reqwest::Identity::from_pem(&pem).map(Some).map_err(http)
    }
}

#[cfg(feature = "tls")]
fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| format!("it is not PEM: {error}"))?;
    if certificates.is_empty() { Err("it has no certificate".to_owned()) } else { Ok(certificates) }
}

fn http(error: reqwest::Error) -> SettingsError {
    SettingsError::Http(TransportError::new(error))
}

fn parse_base(url: &str) -> Result<Url, SettingsError> {
    let wrong = |why: &str| SettingsError::Url { url: url.to_owned(), why: why.to_owned() };
    let base = url.parse::<Url>().map_err(|error| wrong(&error.to_string()))?;
    match base.scheme() {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(wrong("this build has no TLS")),
        _ => return Err(wrong("it must begin with http:// or https://")),
    }
    if base.query().is_some() || base.fragment().is_some() {
        return Err(wrong("it must have no query and no fragment"));
    }
    Ok(base)
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

fn parse_source_system(text: &str) -> Result<HeaderValue, SettingsError> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > SOURCE_SYSTEM_CHARS_MAX {
        return Err(SettingsError::SourceSystem);
    }
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| SettingsError::SourceSystem)
}

/// Only what this crate's feature says: another user of the HTTP library may have turned on more.
fn with_compression(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    let builder = builder.no_brotli().no_deflate().no_zstd();
    #[cfg(feature = "compression")]
    return builder.gzip(true);
    #[cfg(not(feature = "compression"))]
    builder.no_gzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_none_are_refused() {
        for url in ["", "127.0.0.1:8080", "ftp://h", "http://", "http://h/?a=b", "http://h/#x"] {
            assert!(Client::new(url, "test").is_err(), "{url:?}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        for (url, loopback) in [
            ("http://localhost:8080", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:8080/x", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn a_source_system_has_1_to_512_characters_and_is_not_blank() {
        let make = |text: &str| Client::new("http://127.0.0.1", text).is_ok();
        assert!(make("x") && make("Journal, v2.4") && make(&"å".repeat(512)));
        assert!(!make("") && !make(" \t") && !make(&"x".repeat(513)) && !make("a\nb"));
    }

    #[cfg(feature = "tls")]
    mod tls {
        use rcgen::{CertifiedKey, generate_simple_self_signed};

        use super::*;

        fn made() -> (String, String) {
            let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let CertifiedKey { cert, signing_key } = made;
            (cert.pem(), signing_key.serialize_pem())
        }

        fn builder() -> ClientBuilder {
            Client::builder("https://localhost", "test")
        }

        #[test]
        fn what_is_trusted_may_be_several_certificates_in_several_pieces() {
            let ((one, _), (two, _), (three, _)) = (made(), made(), made());
            let both = format!("{one}{}", two.trim_end());
            builder().trust(both.as_bytes()).trust(three.as_bytes()).build().unwrap();
        }

        #[test]
        fn what_is_no_certificate_is_refused_and_not_trusted_silently() {
            let (cert, key) = made();
            let cut = &cert[..cert.len() / 2];
            let body = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            for pem in ["", "text", &key, cut, body] {
                let error = builder().trust(pem.as_bytes()).build().unwrap_err();
                assert!(matches!(error, SettingsError::Trust { .. }), "{pem}: {error}");
            }
        }

        #[test]
        fn a_key_must_be_the_certificates() {
            let ((cert, key), (_, other)) = (made(), made());
            let build = |cert: &str, key: &str| {
                builder().identity(cert.as_bytes(), key.as_bytes()).build().map(drop)
            };
            build(&cert, &key).unwrap();
            for (cert, key) in [(&cert, &other), (&key, &key), (&cert, &cert)] {
                let error = build(cert, key).unwrap_err();
                assert!(matches!(error, SettingsError::Identity { .. }), "{error}");
                assert!(!error.to_string().contains(&other[40..80]), "{error}");
            }
        }

        #[test]
        fn a_key_is_not_told() {
            let (cert, key) = made();
            let told = format!("{:?}", builder().identity(cert.as_bytes(), key.as_bytes()));
            assert_eq!(told, "ClientBuilder { .. }");
        }
    }
}
