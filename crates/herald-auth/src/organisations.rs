//! Which HER-ids an organisation has, and so what a token is worth.

use std::{fmt, sync::Arc, time::Duration};

use herald_types::Grant;
use tokio::sync::watch;

use crate::{
    lists::{InvalidDocument, Listed, Lists, ReadDocumentError, Subject},
    source::Source,
    token::{Claimed, Holder},
};

/// The HER-ids of each organisation, by its number. Clones are the same.
#[derive(Clone)]
pub struct Organisations(Arc<Lists>);

impl fmt::Debug for Organisations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Organisations")
    }
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
        Self(Arc::new(Lists::new(Subject::Organisations)))
    }

    /// What whoever holds a token may see now: what its organisation has, cut down to what its claim says.
    #[must_use]
    pub fn grant(&self, holder: &Holder) -> Grant {
        let listed = holder.organisation.as_deref().and_then(|number| self.0.get(number));
        let her_ids = match listed {
            Some(Listed::These(her_ids)) => her_ids,
            // Nobody has all: a document that says so is refused.
            Some(Listed::All) | None => Default::default(),
        };
        match &holder.claimed {
            Claimed::All => Grant::of(her_ids),
            Claimed::These(claimed) => Grant::of(her_ids).within(claimed.clone()),
        }
    }

    /// Whether the document has been read.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.is_known()
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes()
    }

    /// Another number after each change: what was granted at the same number, read before, is granted still.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// Takes `document` from now on. If it says what the last one said, nothing has changed.
    ///
    /// # Errors
    /// [`InvalidDocument`] says what is wrong; the last good one stays in force.
    pub fn replace(&self, document: &[u8]) -> Result<(), InvalidDocument> {
        self.0.replace(document)
    }

    /// Reads `source` now.
    ///
    /// # Errors
    /// What is wrong with it; the last good document stays in force.
    pub async fn read(&self, source: &mut dyn Source) -> Result<(), ReadDocumentError> {
        self.0.read(source).await
    }

    /// Reads `source` every `interval`, for ever; a failure is logged once for each spell.
    pub async fn keep_fresh(&self, source: &mut dyn Source, interval: Duration) {
        self.0.keep_fresh(source, interval).await;
    }
}
