//! For whom each client may append, where that is limited.

use std::{fmt, sync::Arc, time::Duration};

use herald_types::Grant;

use crate::{
    lists::{InvalidDocument, Listed, Lists, ReadDocumentError, Subject},
    source::Source,
};

/// The receivers for which each client may append, by its name. A client that is not there may append for nobody. Clones
/// are the same.
#[derive(Clone)]
pub struct Publishers(Arc<Lists>);

impl fmt::Debug for Publishers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publishers")
    }
}

impl Default for Publishers {
    fn default() -> Self {
        Self::new()
    }
}

impl Publishers {
    /// No client is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Lists::new(Subject::Publishers)))
    }

    /// For whom `client_id` may append now.
    #[must_use]
    pub fn grant(&self, client_id: &str) -> Grant {
        match self.0.get(client_id) {
            Some(Listed::All) => Grant::everything(),
            Some(Listed::These(her_ids)) => Grant::of(her_ids),
            None => Grant::of(Default::default()),
        }
    }

    /// Takes `document` from now on.
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

#[cfg(test)]
mod tests {
    use herald_types::HerId;

    use super::*;

    #[test]
    fn a_client_appends_for_whom_it_is_listed_and_one_that_is_not_for_nobody() {
        let publishers = Publishers::new();
        let may = |client: &str, number| publishers.grant(client).check(HerId::new(number)).is_ok();
        assert!(!may("some", 1));
        publishers.replace(br#"{"service": "all", "some": [1, 2], "none": []}"#).unwrap();
        let allowed = ["service", "some", "none", "other"]
            .map(|client| (1..4).filter(|number| may(client, *number)).collect::<Vec<_>>());
        assert_eq!(allowed, [vec![1, 2, 3], vec![1, 2], vec![], vec![]]);
        for document in [r#"{"some": "All"}"#, r#"{"some": "1"}"#, r#"{"some": [0]}"#, "[]"] {
            assert!(publishers.replace(document.as_bytes()).is_err(), "{document}");
        }
        assert!(may("some", 2));
    }
}
