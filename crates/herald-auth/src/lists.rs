//! Who has which HER-ids: one JSON object with a list for each name, kept as it was read last.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use herald_types::{HerId, HerIdSet};
use metrics::counter;
use serde::{Deserialize, Deserializer, de};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use crate::source::{Source, SourceError};

/// Readings of a document that changed it, or failed, by document and outcome.
pub const DOCUMENT_READS: &str = "herald_auth_document_reads_total";

/// What a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The HER-ids of each organisation.
    Organisations,
    /// For whom each client may append; `"all"` stands for everybody.
    Publishers,
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Organisations => "organisations",
            Self::Publishers => "publishers",
        }
    }
}

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    All,
    These(HerIdSet),
}

/// A document's lists.
pub(crate) struct Lists {
    subject: Subject,
    known: ArcSwapOption<HashMap<String, Listed>>,
    // Tells of the changes those who must look again at what they granted.
    changes: watch::Sender<()>,
    // Counts them, for those who ask before each page of each stream: the channel would take a lock that all share.
    version: AtomicU64,
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

impl Lists {
    /// Nothing has been read yet, so that nobody has anything.
    pub(crate) fn new(subject: Subject) -> Self {
        Self {
            subject,
            known: ArcSwapOption::empty(),
            changes: watch::Sender::new(()),
            version: AtomicU64::new(0),
        }
    }

    /// What `name` has; `None` for one that is not known.
    pub(crate) fn get(&self, name: &str) -> Option<Listed> {
        self.known.load().as_ref()?.get(name).cloned()
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load().is_some()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Another number after each change.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Takes `document` from now on. If it says what the last one said, nothing has changed.
    ///
    /// # Errors
    /// [`InvalidDocument`] says what is wrong; the last good one stays in force.
    pub(crate) fn replace(&self, document: &[u8]) -> Result<(), InvalidDocument> {
        let read = serde_json::from_slice::<Document>(document).map_err(|error| {
            InvalidDocument::Form { line: error.line(), column: error.column() }
        })?;
        let known = read.0.ok_or(InvalidDocument::Twice)?;
        let takes_all = self.subject == Subject::Publishers;
        if !takes_all && known.values().any(|listed| *listed == Listed::All) {
            return Err(InvalidDocument::All);
        }
        // Who looks again at what they granted has nothing to find.
        if self.known.load().as_deref() == Some(&known) {
            return Ok(());
        }
        self.known.store(Some(Arc::new(known)));
        // Behind the store: whoever sees the number sees the document.
        self.version.fetch_add(1, Ordering::Release);
        self.changes.send_replace(());
        Ok(())
    }

    /// Reads `source` now.
    ///
    /// # Errors
    /// What is wrong with it; the last good document stays in force.
    pub(crate) async fn read(&self, source: &mut dyn Source) -> Result<(), ReadDocumentError> {
        let (subject, name) = (self.subject.name(), source.name());
        let outcome = match source.changed().await {
            Ok(None) => return Ok(()),
            Ok(Some(document)) => self.replace(&document).map_err(|error| {
                ReadDocumentError::Invalid { subject, name: name.clone(), source: error }
            }),
            Err(error) => {
                Err(ReadDocumentError::Source { subject, name: name.clone(), source: error })
            }
        };
        let label = if outcome.is_ok() { "changed" } else { "failed" };
        counter!(DOCUMENT_READS, "document" => subject, "outcome" => label).increment(1);
        if outcome.is_ok() {
            let count = self.known.load().as_ref().map_or(0, |known| known.len());
            info!(source = name, count, "{subject} read");
        }
        outcome
    }

    /// Reads `source` every `interval`, for ever; a failure is logged once for each spell.
    pub(crate) async fn keep_fresh(&self, source: &mut dyn Source, interval: Duration) {
        let mut last_failure = None;
        loop {
            match self.read(source).await {
                Ok(()) => last_failure = None,
                Err(error) => {
                    let failure = with_causes(&error);
                    if last_failure.as_ref() != Some(&failure) {
                        let kept = self.is_known();
                        let subject = self.subject.name();
                        warn!(
                            error = &error as &dyn std::error::Error,
                            kept, "could not read the {subject}"
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
