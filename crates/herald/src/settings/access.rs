//! Who may read what: everybody, or whoever has a token.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use herald_auth::{Address, Algorithm};

use super::{Key, kinds, sources::Sources};

/// With more, a proof that was stolen is good for long, and used ones fill the memory.
const CLOCK_SKEW: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
const PROOF_AGE_MAX: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
/// Some 80 bytes each.
const REPLAYS_MAX: RangeInclusive<usize> = 1000..=100_000_000;
/// A key that was withdrawn is believed for so long.
const KEYS_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);
const KEYS_PAUSE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Who may read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// Everybody, everything.
    None,
    /// Whoever has a token, what it is worth.
    HelseId(Box<HelseIdSettings>),
}

/// What tokens are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HelseIdSettings {
    /// Whose tokens are taken.
    pub issuer: String,
    /// What they must be for.
    pub audience: String,
    /// The scope that reading needs.
    pub scope: String,
    /// The scope that appending needs.
    pub publish_scope: String,
    /// Where the organisations' HER-ids are.
    pub organisations: Document,
    /// Where it is said for whom each client may append; for all, otherwise.
    pub publishers: Option<Document>,
    /// The address that proofs name.
    pub public_url: Option<Address>,
    /// The algorithms of tokens.
    pub token_algorithms: Vec<Algorithm>,
    /// The algorithms of proofs.
    pub proof_algorithms: Vec<Algorithm>,
    /// How far other clocks may be from ours.
    pub clock_skew: Duration,
    /// How old a proof may be.
    pub proof_age_max: Duration,
    /// How many used proofs are remembered.
    pub replays_max: usize,
    /// How often the issuer's keys are fetched.
    pub keys_interval: Duration,
    /// How soon again for a key that is not known.
    pub keys_pause: Duration,
    /// Whether refusals are explained.
    pub explains: bool,
}

/// Something to read now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// From a file.
    File(PathBuf),
    /// From an address.
    Url(String),
}

impl Auth {
    pub(super) fn read(sources: &mut Sources) -> Self {
        let is_helseid = sources.value(Key::Auth, kinds::auth);
        let issuer = sources.value(Key::Issuer, kinds::or("none", kinds::trusted_url));
        let organisations = sources.value(Key::Organisations, kinds::or("none", kinds::document));
        let settings = HelseIdSettings {
            issuer: issuer.clone().unwrap_or_default(),
            audience: sources.value(Key::Audience, kinds::word),
            scope: sources.value(Key::Scope, kinds::word),
            publish_scope: sources.value(Key::PublishScope, kinds::word),
            organisations: organisations.clone().unwrap_or(Document::File(PathBuf::new())),
            publishers: sources.value(Key::Publishers, kinds::or("none", kinds::document)),
            public_url: sources.value(Key::PublicUrl, kinds::or("none", kinds::public_url)),
            token_algorithms: sources.value(Key::TokenAlgorithms, kinds::algorithms),
            proof_algorithms: sources.value(Key::ProofAlgorithms, kinds::algorithms),
            clock_skew: sources.value(Key::ClockSkew, kinds::duration(CLOCK_SKEW)),
            proof_age_max: sources.value(Key::ProofAgeMax, kinds::duration(PROOF_AGE_MAX)),
            replays_max: sources.value(Key::ReplaysMax, kinds::count(REPLAYS_MAX)),
            keys_interval: sources.value(Key::KeysInterval, kinds::duration(KEYS_INTERVAL)),
            keys_pause: sources.value(Key::KeysPause, kinds::duration(KEYS_PAUSE)),
            explains: sources.value(Key::AuthExplain, kinds::boolean),
        };
        if !is_helseid {
            // Whoever set them believes that tokens are looked at.
            for (key, is_set) in [
                (Key::Issuer, issuer.is_some()),
                (Key::Organisations, organisations.is_some()),
                (Key::Publishers, settings.publishers.is_some()),
            ] {
                sources.check(&[Key::Auth, key], !is_set, || {
                    format!("{}: is set, and --auth is none: give --auth helseid", key.name())
                });
            }
            return Self::None;
        }
        sources.check(&[Key::Auth, Key::Issuer], issuer.is_some(), || {
            "issuer: --auth helseid needs the address of the token issuer".to_owned()
        });
        sources.check(&[Key::Auth, Key::Organisations], organisations.is_some(), || {
            "organisations: --auth helseid needs a file or a registry that says which HER-ids an organisation has"
                .to_owned()
        });
        Self::HelseId(Box::new(settings))
    }
}
