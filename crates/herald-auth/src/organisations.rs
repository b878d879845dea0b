//! Which HER-ids an organisation has: one document, from a file or from a registry, looked at again every few seconds.

use std::{collections::HashMap, fmt, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use herald_types::{Grant, HerId, HerIdSet};
use metrics::counter;
use reqwest::{Url, header::HeaderValue};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::{
    fetch::{FetchError, Fetched, Fetcher, InvalidUrl, trusted_url},
    token::{Claimed, Holder},
    watched::WatchedFile,
};

/// Readings of the organisations that changed them, or failed.
pub const ORGANISATION_READS: &str = "herald_auth_organisation_reads_total";
/// How large the document may be: all of Norway has room in it.
pub const ORGANISATIONS_BYTES_MAX: usize = 64 * 1024 * 1024;

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
pub struct OrganisationsFile(WatchedFile);

impl OrganisationsFile {
    /// The file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(WatchedFile::new(path, ORGANISATIONS_BYTES_MAX))
    }
}

impl Source for OrganisationsFile {
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
            match self.fetcher.get(url, self.tag.as_ref(), ORGANISATIONS_BYTES_MAX).await? {
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

/// What the document says. Clones are the same.
#[derive(Clone)]
pub struct Organisations(Arc<Inner>);

struct Inner {
    her_ids: ArcSwapOption<HashMap<String, HerIdSet>>,
    // Counts the changes, for those who must look again at what they granted.
    changes: watch::Sender<u64>,
}

impl fmt::Debug for Organisations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Organisations")
    }
}

/// A document that is not what it should be. It says where, and repeats nothing: the file may be the wrong one, and a
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrganisations {
    /// It is something else.
    #[error(
        "it must be a JSON object with an array of HER-ids for each organisation number: it is not at line {line}, column {column}"
    )]
    Form {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// One of two answers would have to be guessed.
    #[error("an organisation is there twice")]
    Twice,
}

impl Default for Organisations {
    fn default() -> Self {
        Self::new()
    }
}

impl Organisations {
    /// No organisation is known yet, so that nothing is granted.
    #[must_use]
    pub fn new() -> Self {
        let (her_ids, changes) = (ArcSwapOption::empty(), watch::Sender::new(0));
        Self(Arc::new(Inner { her_ids, changes }))
    }

    /// What whoever holds a token may see now: what its organisation has, cut down to what its claim says.
    #[must_use]
    pub fn grant(&self, holder: &Holder) -> Grant {
        let known = self.0.her_ids.load();
        let organisation = holder.organisation.as_deref();
        let her_ids = organisation.and_then(|number| known.as_ref()?.get(number).cloned());
        let grant = Grant::of(her_ids.unwrap_or_default());
        match &holder.claimed {
            Claimed::All => grant,
            Claimed::These(claimed) => grant.within(claimed.clone()),
        }
    }

    /// Whether the document has been read.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.her_ids.load().is_some()
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Takes `document` from now on. If it says what the last one said, nothing has changed.
    ///
    /// # Errors
    /// [`InvalidOrganisations`] says what is wrong; the last good one stays in force.
    pub fn replace(&self, document: &[u8]) -> Result<(), InvalidOrganisations> {
        let read = serde_json::from_slice::<Document>(document).map_err(|error| {
            InvalidOrganisations::Form { line: error.line(), column: error.column() }
        })?;
        let known = read.0.ok_or(InvalidOrganisations::Twice)?;
        // Who looks again at what they granted has nothing to find.
        if self.0.her_ids.load().as_deref() == Some(&known) {
            return Ok(());
        }
        self.0.her_ids.store(Some(Arc::new(known)));
        self.0.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Reads `source` now.
    ///
    /// # Errors
    /// What is wrong with it; the last good document stays in force.
    pub async fn read(&self, source: &mut dyn Source) -> Result<(), ReadOrganisationsError> {
        let name = source.name();
        let document = source.changed().await;
        let document =
            document.map_err(|error| ReadOrganisationsError::Source(name.clone(), error));
        let outcome = match document {
            Ok(None) => return Ok(()),
            Ok(Some(document)) => self
                .replace(&document)
                .map_err(|error| ReadOrganisationsError::Invalid(name.clone(), error)),
            Err(error) => Err(error),
        };
        let label = if outcome.is_ok() { "changed" } else { "failed" };
        counter!(ORGANISATION_READS, "outcome" => label).increment(1);
        if outcome.is_ok() {
            let count = self.0.her_ids.load().as_ref().map_or(0, |known| known.len());
            info!(source = name, organisations = count, "organisations read");
        }
        outcome
    }

    /// Reads `source` every `interval`, for ever; a failure is logged once for each spell.
    pub async fn keep_fresh(&self, source: &mut dyn Source, interval: Duration) {
        let mut last_failure = None;
        loop {
            match self.read(source).await {
                Ok(()) => last_failure = None,
                Err(error) => {
                    let failure = with_causes(&error);
                    if last_failure.as_ref() != Some(&failure) {
                        let kept = self.is_known();
                        warn!(
                            error = &error as &dyn std::error::Error,
                            kept, "could not read the organisations"
                        );
                    }
                    last_failure = Some(failure);
                }
            }
            sleep(interval).await;
        }
    }
}

/// An error's text and those of its causes: two failures of one source differ only there.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Why the organisations could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadOrganisationsError {
    /// There is no document.
    #[error("organisations: {0}")]
    Source(String, #[source] SourceError),
    /// It is not what it should be.
    #[error("organisations: {0}")]
    Invalid(String, #[source] InvalidOrganisations),
}

/// The document; `None` when a number is there twice.
struct Document(Option<HashMap<String, HerIdSet>>);

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Document, A::Error> {
                let (mut known, mut twice) = (HashMap::new(), false);
                while let Some((number, her_ids)) = map.next_entry::<String, Vec<HerId>>()? {
                    twice |= known.insert(number, her_ids.into_iter().collect()).is_some();
                }
                Ok(Document((!twice).then_some(known)))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
