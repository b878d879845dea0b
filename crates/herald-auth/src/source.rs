//! Where a document comes from that is looked at again every few seconds: a file, or a registry.

use std::{path::PathBuf, pin::Pin};

use reqwest::{Url, header::HeaderValue};

use crate::{
    fetch::{FetchError, Fetched, Fetcher, InvalidUrl, trusted_url},
    watched::WatchedFile,
};

/// How large a document may be: all organisations of Norway have room in it.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where the document comes from.
pub trait Source: Send + 'static {
    /// The document if it is another than the last one that was read.
    fn changed(&mut self) -> Changed<'_>;

    /// What it is called in a log line.
    fn name(&self) -> String;
}

/// A document on its way.
pub type Changed<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, SourceError>> + Send + 'a>>;

/// Why a source has no document now.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("could not read it")]
    File(#[from] std::io::Error),
    /// The registry does not answer as it should.
    #[error("could not fetch it")]
    Registry(#[from] FetchError),
}

/// A file.
#[derive(Debug)]
pub struct DocumentFile(WatchedFile);

impl DocumentFile {
    /// The file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(WatchedFile::new(path, DOCUMENT_BYTES_MAX))
    }
}

impl Source for DocumentFile {
    fn changed(&mut self) -> Changed<'_> {
        Box::pin(async { Ok(self.0.changed().await?.map(<[u8]>::to_vec)) })
    }

    fn name(&self) -> String {
        self.0.path().display().to_string()
    }
}

/// A registry: the same document behind an address. What it last answered is kept, and asked for by its tag.
#[derive(Debug)]
pub struct Registry {
    url: Url,
    fetcher: Fetcher,
    tag: Option<HeaderValue>,
    last: Vec<u8>,
}

/// A registry that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRegistry {
    /// Its address.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The system lets nobody be asked.
    #[error("no HTTP client")]
    Http(#[source] reqwest::Error),
}

impl Registry {
    /// The registry at `url`.
    ///
    /// # Errors
    /// [`InvalidRegistry`] for an address that is not trusted.
    pub fn new(url: &str) -> Result<Self, InvalidRegistry> {
        let url = trusted_url(url)?;
        let fetcher = Fetcher::new(&url).map_err(InvalidRegistry::Http)?;
        Ok(Self { url, fetcher, tag: None, last: Vec::new() })
    }
}

impl Source for Registry {
    fn changed(&mut self) -> Changed<'_> {
        Box::pin(async {
            let url = self.url.clone();
            match self.fetcher.get(url, self.tag.as_ref(), DOCUMENT_BYTES_MAX).await? {
                Fetched::Unchanged => Ok(None),
                Fetched::Changed { body, tag } => {
                    self.tag = tag;
                    if self.last == body {
                        return Ok(None);
                    }
                    self.last.clone_from(&body);
                    Ok(Some(body))
                }
            }
        })
    }

    fn name(&self) -> String {
        self.url.to_string()
    }
}
