//! Signing in with HelseID: who the client is, the tokens it gets for that, and what it puts on each call.
//!
//! ```text
//! call ─► Session ─► Tokens ─► Issuer ─► discovery, token endpoint
//!           │          └ one token, one renewal for all who wait
//!           └ token and a proof of its own on each request (RFC 9449)
//! ```

mod admission;
mod error;
mod issuer;
mod nonce;
mod session;
mod tokens;

use std::{fmt, sync::Arc};

use herald_auth::PrivateKey;
use reqwest::Url;

pub use self::{
    admission::TOKEN_REFUSED_MAX,
    error::{SignInError, SignInFailure},
    issuer::{DISCOVERY_AGE_MAX, ISSUER_ANSWER_BYTES_MAX, SIGN_IN_TIMEOUT},
    nonce::{NONCE_BYTES_MAX, NONCE_RETRIES_MAX},
    tokens::{TOKEN_LIFETIME_ASSUMED, TOKEN_LIFETIME_MAX, TOKEN_RENEWAL_MARGIN, TOKEN_USE_MARGIN},
};
pub(crate) use self::{issuer::Issuer, session::Session};
use crate::{SettingsError, builder::is_loopback};

/// Who a client is to HelseID, or to another issuer of tokens that works like it.
///
/// The issuer is asked for a token with client credentials: an assertion signed with the client's key says who asks (RFC
/// 7523), and the token is bound to a key that the client makes for itself (RFC 9449). Tokens are kept in memory only.
#[derive(Clone)]
#[must_use = "`ClientBuilder::credentials` takes it"]
pub struct HelseId {
    pub(crate) issuer: Url,
    pub(crate) client_id: String,
    pub(crate) key: Arc<PrivateKey>,
    scope: String,
}

impl fmt::Debug for HelseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HelseId")
            .field("issuer", &self.issuer.as_str())
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl HelseId {
    /// The scope for polls and streams, and what is asked for unless [`HelseId::scope`] says otherwise.
    pub const READ_SCOPE: &str = "nhn:msh/api";
    /// The scope for appends.
    pub const PUBLISH_SCOPE: &str = "nhn:msh/notifications-publish";

    /// Who the client is:
    ///
    /// - `issuer`: the issuer's address, below which it has `/.well-known/openid-configuration`: `https://…`, or `http://…` on
    ///   this machine.
    /// - `client_id`: the client's id at that issuer.
    /// - `key`: the client's private key, the text itself and not the name of a file: a JWK (its `kid` is sent) or PEM (PKCS#8,
    ///   PKCS#1 or SEC1, not encrypted). RSA of 2048 to 4096 bits, P-256, P-384 and P-521 will do.
    ///
    /// # Errors
    /// [`SettingsError`] says which of the three cannot be used, and why; never with the key.
    pub fn new(issuer: &str, client_id: &str, key: &str) -> Result<Self, SettingsError> {
        let issuer = parse_issuer(issuer)?;
        if client_id.trim().is_empty() || client_id.contains(char::is_control) {
            return Err(SettingsError::ClientId);
        }
        if is_encrypted(key) {
            let why = "it is encrypted and must be decrypted first (openssl pkey -in … -out …)";
            return Err(SettingsError::Key { why: why.to_owned() });
        }
        let key = key.parse::<PrivateKey>();
        let key = key.map_err(|error| SettingsError::Key { why: error.to_string() })?;
        let scope = Self::READ_SCOPE.to_owned();
        Ok(Self { issuer, client_id: client_id.to_owned(), key: Arc::new(key), scope })
    }

    /// Asks for this scope, or for several with blanks between them. One that cannot be asked for is an error of
    /// [`ClientBuilder::build`](crate::ClientBuilder::build).
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = scope.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        self
    }

    /// The scope as it goes into a request: RFC 6749, section 3.3, says what it is made of.
    pub(crate) fn read_scope(&self) -> Result<String, SettingsError> {
        let is_known = |c: char| c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
        if self.scope.is_empty() || !self.scope.chars().all(is_known) {
            return Err(SettingsError::Scope);
        }
        Ok(self.scope.clone())
    }
}

/// Whether a PEM asks for a password: in PKCS#8, or as OpenSSL wrote keys before.
fn is_encrypted(key: &str) -> bool {
    key.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || key.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

fn parse_issuer(text: &str) -> Result<Url, SettingsError> {
    let wrong = |why: &str| SettingsError::Issuer { url: text.to_owned(), why: why.to_owned() };
    let url = text.parse::<Url>().map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(wrong("this build has no TLS")),
        "http" if is_loopback(&url) => {}
        "http" => return Err(wrong("it must begin with https:// unless it is on this machine")),
        _ => return Err(wrong("it must begin with https://")),
    }
    if url.query().is_some() || url.fragment().is_some() || has_user(&url) {
        // A password is not repeated.
        return Err(SettingsError::Issuer {
            url: url.host_str().unwrap_or_default().to_owned(),
            why: "it must have no user, no query and no fragment".to_owned(),
        });
    }
    Ok(url)
}

/// Whether an address has a user or a password, which the HTTP library would send as credentials of its own.
pub(crate) fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../herald-auth/tests/keys/p256.jwk.json");

    #[test]
    fn an_issuer_is_https_or_on_this_machine() {
        let of = |issuer: &str| HelseId::new(issuer, "journal", KEY).map(drop);
        for issuer in ["http://127.0.0.1:5001", "http://localhost/issuer", "http://[::1]:5001/"] {
            of(issuer).unwrap();
        }
        assert_eq!(of("https://helseid.example").is_ok(), cfg!(feature = "tls"));
        for issuer in [
            "",
            "helseid.example",
            "ftp://127.0.0.1",
            "http://helseid.example",
            "http://10.0.0.1",
            "http://localhost.example",
            "http://127.0.0.1/?a=b",
            "http://127.0.0.1/#a",
            "http://user:hunter2@127.0.0.1/",
        ] {
            let error = of(issuer).unwrap_err();
            assert!(matches!(error, SettingsError::Issuer { .. }), "{issuer}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn keys_are_taken_as_jwk_and_as_pem_and_never_told() {
        for key in [
            KEY,
            include_str!("../../herald-auth/tests/keys/p384.sec1.pem"),
            include_str!("../../herald-auth/tests/keys/p521.pkcs8.pem"),
            include_str!("../../herald-auth/tests/keys/rsa.jwk.json"),
            include_str!("../../herald-auth/tests/keys/rsa.pkcs1.pem"),
            include_str!("../../herald-auth/tests/keys/rsa.pkcs8.pem"),
        ] {
            let told = format!("{:?}", HelseId::new("http://127.0.0.1", "journal", key).unwrap());
            let expected = "HelseId { issuer: \"http://127.0.0.1/\", client_id: \"journal\", scope: \
                            \"nhn:msh/api\", .. }";
            assert_eq!(told, expected);
        }
        for key in ["", "hunter2", "{\"kty\":\"EC\",\"d\":\"hunter2\"}", &KEY[..KEY.len() - 9]] {
            let error = HelseId::new("http://127.0.0.1", "journal", key).unwrap_err();
            assert!(matches!(error, SettingsError::Key { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_encrypted_key_is_said_to_be_encrypted() {
        let old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nhunter2";
        for key in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nhunter2\n-----END ENCRYPTED PRIVATE KEY-----",
            &format!("-----BEGIN RSA PRIVATE KEY-----\n{old}\n-----END RSA PRIVATE KEY-----\n"),
            &format!("-----BEGIN EC PRIVATE KEY-----\r\n{old}\r\n-----END EC PRIVATE KEY-----"),
        ] {
            let error = HelseId::new("http://127.0.0.1", "journal", key).unwrap_err().to_string();
            assert!(error.contains("it is encrypted and must be decrypted first"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_client_id_is_not_blank() {
        for id in ["", " ", "a\nb"] {
            let error = HelseId::new("http://127.0.0.1", id, KEY).unwrap_err();
            assert!(matches!(error, SettingsError::ClientId), "{id:?}: {error}");
        }
    }

    #[test]
    fn scopes_are_one_or_more_words() {
        let of = |scope: &str| {
            let helseid = HelseId::new("http://127.0.0.1", "journal", KEY).unwrap();
            helseid.scope(scope).read_scope()
        };
        assert_eq!(of(" nhn:msh/api \t other ").unwrap(), "nhn:msh/api other");
        for scope in ["", " ", "a\"b", "a\\b", "å", "a\u{7f}"] {
            assert!(matches!(of(scope), Err(SettingsError::Scope)), "{scope:?}");
        }
    }
}
