//! The files of TLS, and the one configuration that they make together.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use herald_auth::WatchedFile;
use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use x509_cert::der::Decode as _;

use super::{H2, HTTP_11, Loaded, TlsSettings};

/// How large a file of certificates or a key may be: a bundle with all public issuers is a fifth of it.
pub const TLS_FILE_BYTES_MAX: usize = 1024 * 1024;

/// Why TLS cannot be served. Texts name files, and never what is in them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is in a file is not what should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate has another key.
    #[error("{} is not the key of the certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        certificate: PathBuf,
    },
    /// The TLS library refuses what it was told.
    #[error("could not set up TLS")]
    Setup(#[source] rustls::Error),
}

impl TlsError {
    fn content(path: &Path, why: &str) -> Self {
        Self::Content { path: path.to_owned(), why: why.to_owned() }
    }

    /// With its source, on one line.
    pub(super) fn chain(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// The files, and what was read from them last.
pub(super) struct Files {
    certificate: Watched,
    key: Watched,
    client_ca: Option<Watched>,
    provider: Arc<CryptoProvider>,
}

struct Watched {
    file: WatchedFile,
    bytes: Vec<u8>,
}

impl Watched {
    fn new(path: &Path) -> Self {
        Self { file: WatchedFile::new(path, TLS_FILE_BYTES_MAX), bytes: Vec::new() }
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    async fn read(&mut self) -> Result<bool, TlsError> {
        match self.file.changed().await {
            Ok(None) => Ok(false),
            Ok(Some(bytes)) => {
                self.bytes = bytes.to_vec();
                Ok(true)
            }
            Err(source) => Err(TlsError::Read { path: self.path().to_owned(), source }),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read = CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        let all = read.map_err(|error| TlsError::content(self.path(), pem_text(&error)))?;
        if all.is_empty() {
            return Err(TlsError::content(self.path(), "there is no certificate in it"));
        }
        Ok(all)
    }
}

/// Not the library's own text, which may quote the line that it could not read.
fn pem_text(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it ends in the middle of a PEM section",
        pem::Error::NoItemsFound => "there is nothing of the kind in it",
        _ => "it is not PEM",
    }
}

impl Files {
    pub(super) fn new(settings: &TlsSettings) -> Self {
        Self {
            certificate: Watched::new(&settings.certificate),
            key: Watched::new(&settings.key),
            client_ca: settings.client_ca.as_deref().map(Watched::new),
            provider: Arc::new(ring::default_provider()),
        }
    }

    /// Reads those that have changed; returns whether any has.
    pub(super) async fn read(&mut self) -> Result<bool, TlsError> {
        let mut has_changed = self.certificate.read().await?;
        has_changed |= self.key.read().await?;
        if let Some(client_ca) = &mut self.client_ca {
            has_changed |= client_ca.read().await?;
        }
        Ok(has_changed)
    }

    /// What was read, understood.
    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        let chain = self.certificate.certificates()?;
        let expires = self.expires(&chain[0])?;
        let key = self.certified_key(chain)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match self.client_verifier()? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![H2.to_vec(), HTTP_11.to_vec()];
        if self.client_ca.is_some() {
            // A certificate is looked at in each handshake, and not remembered from an earlier one.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            // The reconnects of a restart come from more clients than a cache has places: they bring their state along.
            config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
        }
        Ok(Loaded { config, expires })
    }

    fn expires(&self, leaf: &CertificateDer<'_>) -> Result<Timestamp, TlsError> {
        let wrong = |why: &str| TlsError::content(self.certificate.path(), why);
        let leaf = x509_cert::Certificate::from_der(leaf)
            .map_err(|_| wrong("its first certificate is not one of X.509"))?;
        let not_after = leaf.tbs_certificate().validity().not_after.to_unix_duration();
        i64::try_from(not_after.as_secs())
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .ok_or_else(|| wrong("its first certificate has no time of expiry"))
    }

    fn certified_key(&self, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, TlsError> {
        let path = self.key.path();
        let key = PrivateKeyDer::from_pem_slice(&self.key.bytes).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::content(path, "there is no private key in it"),
            error => TlsError::content(path, pem_text(&error)),
        })?;
        let key = self.provider.key_provider.load_private_key(key).map_err(|_| {
            TlsError::content(path, "its key is of no kind that can be used, or broken")
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::OtherKey {
                key: path.to_owned(),
                certificate: self.certificate.path().to_owned(),
            }),
            Err(_) => {
                let why = "its first certificate is not one of X.509";
                Err(TlsError::content(self.certificate.path(), why))
            }
        }
    }

    fn client_verifier(
        &self,
    ) -> Result<Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>, TlsError> {
        let Some(file) = &self.client_ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in file.certificates()? {
            let added = roots.add(certificate);
            added.map_err(|_| TlsError::content(file.path(), "a certificate in it is broken"))?;
        }
        let roots = Arc::new(roots);
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            // Whoever only reads need not have one; who appends is asked by the route.
            .allow_unauthenticated()
            .build()
            .map(Some)
            .map_err(|error| TlsError::content(file.path(), &error.to_string()))
    }
}
