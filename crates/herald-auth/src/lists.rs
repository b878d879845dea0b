//! Who has which HER-ids: one JSON object with a list for each name, kept as it was read last.

use std::{
    collections::HashMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use herald_types::{HerId, HerIdSet, with_causes};
use metrics::{counter, gauge};
use serde::{Deserialize, Deserializer, de};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::source::{Source, SourceError};

/// Readings of a document that changed it, or failed, by document and outcome.
pub const DOCUMENT_READS: &str = "herald_auth_document_reads_total";
/// 1 when what is in force is what stands at its source, by document.
pub const DOCUMENT_CURRENT: &str = "herald_auth_document_current";
/// A larger document is read on a thread of its own: that takes milliseconds, and calls should not wait for it.
const READ_INLINE_BYTES_MAX: usize = 1024 * 1024;

/// What a document is about.
pub trait Subject: Send + Sync + 'static {
    /// As a log line, a metric and an error name it.
    const NAME: &'static str;
    /// Whether `"all"` may stand for everybody.
    const TAKES_ALL: bool;
}

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    All,
    These(HerIdSet),
}

/// A document's lists, as they were read last. Clones are the same.
pub struct Lists<S>(Arc<Inner>, PhantomData<S>);

struct Inner {
    known: ArcSwapOption<HashMap<String, Listed>>,
    // Tells of the changes those who must look again at what they granted.
    changes: watch::Sender<()>,
    // Counts them, for those who ask before each page of each stream: the channel would take a lock that all share.
    version: AtomicU64,
    // Whether what was read last was not taken.
    is_refused: AtomicBool,
}

/// A document that is not what it should be. It says where, and repeats nothing: the file may be the wrong one, and a
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocument {
    /// It is something else.
    #[error(
        "it must be a JSON object with an array of HER-ids for each name: it is not at line {line}, column {column}"
    )]
    Form {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// One of two answers would have to be guessed.
    #[error("a name is there twice")]
    Twice,
    /// An organisation has the HER-ids that it has, and not all.
    #[error("only an array of HER-ids may stand for an organisation")]
    All,
}

impl<S> Clone for Lists<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<S: Subject> fmt::Debug for Lists<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::NAME)
    }
}

impl<S: Subject> Default for Lists<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Subject> Lists<S> {
    /// Nothing has been read yet, so that nobody has anything.
    #[must_use]
    pub fn new() -> Self {
        let (known, changes) = (ArcSwapOption::empty(), watch::Sender::new(()));
        Self(
            Arc::new(Inner {
                known,
                changes,
                version: AtomicU64::new(0),
                is_refused: AtomicBool::new(false),
            }),
            PhantomData,
        )
    }

    /// What `name` has; `None` for one that is not known.
    pub(crate) fn get(&self, name: &str) -> Option<Listed> {
        self.0.known.load().as_ref()?.get(name).cloned()
    }

    /// Whether the document has been read.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.known.load().is_some()
    }

    /// Ready when the document has been read.
    pub async fn known(&self) {
        let mut changes = self.changes();
        // The sender lives as long as this does.
        while !self.is_known() && changes.changed().await.is_ok() {}
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Another number after each change: what was granted at the same number, read before, is granted still.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Takes `document` from now on. If it says what the last one said, nothing has changed.
    ///
    /// # Errors
    /// [`InvalidDocument`] says what is wrong; the last good one stays in force.
    pub fn replace(&self, document: &[u8]) -> Result<(), InvalidDocument> {
        let read = serde_json::from_slice::<Document>(document).map_err(|error| {
            InvalidDocument::Form { line: error.line(), column: error.column() }
        })?;
        let known = read.0.ok_or(InvalidDocument::Twice)?;
        if !S::TAKES_ALL && known.values().any(|listed| *listed == Listed::All) {
            return Err(InvalidDocument::All);
        }
        // Who looks again at what they granted has nothing to find.
        if self.0.known.load().as_deref() == Some(&known) {
            return Ok(());
        }
        self.0.known.store(Some(Arc::new(known)));
        // Behind the store: whoever sees the number sees the document.
        self.0.version.fetch_add(1, Ordering::Release);
        self.0.changes.send_replace(());
        Ok(())
    }

    /// Reads `source` now.
    ///
    /// # Errors
    /// What is wrong with it; the last good document stays in force.
    pub async fn read(&self, source: &mut dyn Source) -> Result<(), ReadDocumentError> {
        let (subject, name) = (S::NAME, source.name());
        let current = |is_current: bool| {
            gauge!(DOCUMENT_CURRENT, "document" => subject).set(f64::from(u8::from(is_current)));
        };
        let outcome = match source.changed().await {
            Ok(None) => {
                // What was refused is still there.
                current(!self.0.is_refused.load(Ordering::Relaxed));
                return Ok(());
            }
            Ok(Some(document)) => {
                let outcome = self.take(document).await;
                self.0.is_refused.store(outcome.is_err(), Ordering::Relaxed);
                outcome.map_err(|source| ReadDocumentError::Invalid {
                    subject,
                    name: name.clone(),
                    source,
                })
            }
            Err(source) => Err(ReadDocumentError::Source { subject, name: name.clone(), source }),
        };
        current(outcome.is_ok());
        let label = if outcome.is_ok() { "changed" } else { "failed" };
        counter!(DOCUMENT_READS, "document" => subject, "outcome" => label).increment(1);
        if outcome.is_ok() {
            let count = self.0.known.load().as_ref().map_or(0, |known| known.len());
            info!(source = name, count, "{subject} read");
        }
        outcome
    }

    async fn take(&self, document: Vec<u8>) -> Result<(), InvalidDocument> {
        if document.len() <= READ_INLINE_BYTES_MAX {
            return self.replace(&document);
        }
        let lists = self.clone();
        let read = tokio::task::spawn_blocking(move || lists.replace(&document)).await;
        read.expect("reading does not panic")
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
                        let subject = S::NAME;
                        warn!(error = failure, kept, "could not read the {subject}");
                    }
                    last_failure = Some(failure);
                }
            }
            sleep(interval).await;
        }
    }
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadDocumentError {
    /// There is no document.
    #[error("{subject}: {name}")]
    Source {
        /// What it should be about.
        subject: &'static str,
        /// Where it should be.
        name: String,
        /// What is wrong there.
        source: SourceError,
    },
    /// It is not what it should be.
    #[error("{subject}: {name}")]
    Invalid {
        /// What it should be about.
        subject: &'static str,
        /// Where it is.
        name: String,
        /// What is wrong with it.
        source: InvalidDocument,
    },
}

/// The lists; `None` when a name is there twice.
struct Document(Option<HashMap<String, Listed>>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let (mut known, mut twice) = (HashMap::new(), false);
                while let Some((name, listed)) = map.next_entry::<String, Listed>()? {
                    twice |= known.insert(name, listed).is_some();
                }
                Ok(Document((!twice).then_some(known)))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of HER-ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listed, E> {
                if text == "all" {
                    Ok(Listed::All)
                } else {
                    Err(E::custom("neither array nor all"))
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Listed, A::Error> {
                let mut her_ids = Vec::new();
                while let Some(her_id) = seq.next_element::<HerId>()? {
                    her_ids.push(her_id);
                }
                Ok(Listed::These(her_ids.into_iter().collect()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
