//! For whom each client may append, where that is limited.

use herald_types::{Grant, HerIdSet};

use crate::lists::{Listed, Lists, Subject};

/// That a document says for whom each client may append, by the client's name.
#[derive(Debug)]
pub enum OfPublishers {}

/// The receivers for which each client may append.
pub type Publishers = Lists<OfPublishers>;

impl Subject for OfPublishers {
    const NAME: &'static str = "publishers";
    const TAKES_ALL: bool = true;
}

impl Publishers {
    /// For whom `client_id` may append now. A client that is not known may append for nobody.
    #[must_use]
    pub fn grant(&self, client_id: &str) -> Grant {
        match self.get(client_id) {
            Some(Listed::All) => Grant::everything(),
            Some(Listed::These(her_ids)) => Grant::of(her_ids),
            None => Grant::of(HerIdSet::default()),
        }
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
