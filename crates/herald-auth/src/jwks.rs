//! An issuer's published keys: fetched, kept through its outages, and fetched again for a key that is not known.

use std::{
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use herald_types::with_causes;
use metrics::counter;
use reqwest::Url;
use serde::Deserialize;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    fetch::{FETCH_TIMEOUT, FetchError, Fetched, Fetcher, InvalidUrl, trusted_url},
    key_set::{InvalidKeySet, KeySet},
    object,
    token::without_slash,
};

/// Fetches of an issuer's keys, by outcome.
pub const KEY_FETCHES: &str = "herald_auth_key_fetches_total";

/// Where an issuer says where its keys are (RFC 8414; OpenID Connect Discovery).
const DISCOVERY_PATH: &str = ".well-known/openid-configuration";
/// How large the two documents may be.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// How much of another issuer's name is logged.
const FOUND_CHARS_MAX: usize = 200;
/// How soon the keys are asked for again when they could not be had, doubled up to the other.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub struct KeysSettings {
    /// How often without a reason, so that a key that was withdrawn is not believed for ever.
    pub refresh_interval: Duration,
    /// How soon again, at the earliest, for a key that is not known.
    pub refresh_pause: Duration,
}

impl Default for KeysSettings {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(10 * 60),
            refresh_pause: Duration::from_secs(60),
        }
    }
}

/// The keys of one issuer. Clones are the same.
#[derive(Clone, Debug)]
pub struct IssuerKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // As it is written in the settings, without a slash at its end: what the issuer calls itself is compared with that.
    issuer: String,
    discovery: Url,
    fetcher: Fetcher,
    settings: KeysSettings,
    // Read for every call, so that no call waits for one that fetches.
    keys: ArcSwapOption<KeySet>,
    known: watch::Sender<bool>,
    // How the last fetch failed: a failure is logged once for as long as it lasts. A plain mutex, held for a comparison.
    failure: StdMutex<Option<String>>,
    // When the keys were asked for last because one was not known: the fetches of the clock do not count, or a key that is new
    // soon after one of them would have to wait. Whoever fetches holds it, so that many who miss a key make one fetch.
    asked: Arc<Mutex<Option<Instant>>>,
}

/// Why there are no newer keys.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error("it took more than {} s", FETCH_TIMEOUT.as_secs())]
    Slow,
    #[error("could not fetch {url}")]
    Fetch { url: Url, source: FetchError },
    #[error("{url} is no discovery document")]
    Discovery { url: Url },
    #[error("{url} says that the issuer is {found:?}")]
    Issuer { url: Url, found: String },
    #[error("the jwks_uri of {url} is not used")]
    KeysUrl { url: Url, source: InvalidUrl },
    #[error("{url} is no key set")]
    Keys { url: Url, source: InvalidKeySet },
    #[error("{url} has no key that could verify a token")]
    NoKey { url: Url },
}

/// An issuer that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIssuer {
    /// Its address.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The system lets nobody be asked.
    #[error("no HTTP client")]
    Http(#[source] reqwest::Error),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl IssuerKeys {
    /// The keys of the issuer at `issuer`, none yet: [`IssuerKeys::keep_fresh`] fetches them.
    ///
    /// # Errors
    /// [`InvalidIssuer`] for an address that is not trusted.
    pub fn new(issuer: &str, settings: KeysSettings) -> Result<Self, InvalidIssuer> {
        let url = trusted_url(issuer)?;
        let fetcher = Fetcher::new(&url).map_err(InvalidIssuer::Http)?;
        let discovery = format!("{}/{DISCOVERY_PATH}", url.as_str().trim_end_matches('/'));
        let discovery = discovery.parse().map_err(|_| InvalidUrl::Form)?;
        let issuer = without_slash(issuer).to_owned();
        Ok(Self(Arc::new(Inner {
            issuer,
            discovery,
            fetcher,
            settings,
            keys: ArcSwapOption::empty(),
            known: watch::Sender::new(false),
            failure: StdMutex::default(),
            asked: Arc::default(),
        })))
    }

    /// The keys as they were fetched last; `None` before the first time.
    #[must_use]
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.0.keys.load_full()
    }

    /// Ready when there are keys.
    pub async fn known(&self) {
        let mut known = self.0.known.subscribe();
        // The sender lives as long as this does.
        let _ = known.wait_for(|known| *known).await;
    }

    /// Fetches the keys, and again every now and then, for ever.
    pub async fn keep_fresh(&self) {
        let mut pause = FAILED_PAUSE;
        loop {
            let fetching = self.0.asked.lock().await;
            let is_fetched = self.refresh().await;
            drop(fetching);
            let interval = self.0.settings.refresh_interval;
            if is_fetched {
                pause = FAILED_PAUSE;
                sleep(interval).await;
            } else {
                sleep(pause.min(interval)).await;
                pause = (pause * 2).min(FAILED_PAUSE_MAX);
            }
        }
    }

    /// Newer keys than `seen`, which lack one: fetched now, unless that was tried a moment ago. Takes no longer than
    /// [`FETCH_TIMEOUT`].
    pub async fn newer(&self, seen: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let newer = || self.current().filter(|keys| !Arc::ptr_eq(keys, seen));
        let fetching = async {
            let mut asked = Arc::clone(&self.0.asked).lock_owned().await;
            // Somebody else may have fetched them while this waited.
            let was_asked =
                asked.is_some_and(|asked| asked.elapsed() < self.0.settings.refresh_pause);
            if was_asked || newer().is_some() {
                return;
            }
            // In a task of its own: a caller that goes away ends neither the fetch that the others wait for, nor uses up
            // their minute with nothing.
            let keys = self.clone();
            let fetching = tokio::spawn(async move {
                keys.refresh().await;
                // Behind the fetch, or those who waited for a slow one would each make another.
                *asked = Some(Instant::now());
            });
            // It fails when the runtime stops; then there is nothing newer.
            let _ = fetching.await;
        };
        // One that is under way when this comes is waited for as well, and no longer than for one's own.
        let _ = timeout(FETCH_TIMEOUT, fetching).await;
        newer()
    }

    /// Whether they were had.
    async fn refresh(&self) -> bool {
        let fetched = timeout(FETCH_TIMEOUT, self.fetch()).await;
        match fetched.unwrap_or(Err(RefreshError::Slow)) {
            Ok(keys) => {
                counter!(KEY_FETCHES, "outcome" => "fetched").increment(1);
                let is_first = self.0.keys.swap(Some(Arc::new(keys))).is_none();
                let is_back = self.failed_with(None);
                if is_first || is_back {
                    info!(issuer = %self.0.issuer, "keys known");
                }
                self.0.known.send_replace(true);
                true
            }
            Err(error) => {
                counter!(KEY_FETCHES, "outcome" => "failed").increment(1);
                let kept = self.current().is_some();
                let failure = with_causes(&error);
                if self.failed_with(Some(&failure)) {
                    warn!(error = failure, kept, "could not fetch the issuer's keys");
                }
                false
            }
        }
    }

    /// Notes how the last fetch failed, or that it did not; whether that is another outcome than the one before.
    fn failed_with(&self, failure: Option<&str>) -> bool {
        let mut last = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = last.as_deref() != failure;
        *last = failure.map(str::to_owned);
        is_new
    }

    async fn fetch(&self) -> Result<KeySet, RefreshError> {
        let url = self.0.discovery.clone();
        let body = self.get(&url).await?;
        let discovery: Discovery =
            object::from_slice(&body).map_err(|_| RefreshError::Discovery { url: url.clone() })?;
        if without_slash(&discovery.issuer) != self.0.issuer {
            let found = discovery.issuer.chars().take(FOUND_CHARS_MAX).collect();
            return Err(RefreshError::Issuer { url, found });
        }
        let url = match trusted_keys_url(&discovery.jwks_uri) {
            Ok(keys_url) => keys_url,
            Err(source) => return Err(RefreshError::KeysUrl { url, source }),
        };
        let body = self.get(&url).await?;
        let keys = KeySet::parse(&body)
            .map_err(|source| RefreshError::Keys { url: url.clone(), source })?;
        // An issuer without a key is a mistake on the way here more often than a wish.
        if keys.is_empty() { Err(RefreshError::NoKey { url }) } else { Ok(keys) }
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, RefreshError> {
        match self.0.fetcher.get(url.clone(), None, DOCUMENT_BYTES_MAX).await {
            Ok(Fetched::Changed { body, .. }) => Ok(body),
            Ok(Fetched::Unchanged) => unreachable!("no tag was sent"),
            Err(source) => Err(RefreshError::Fetch { url: url.clone(), source }),
        }
    }
}

/// Where keys may be: unlike an issuer's own address, that may have a query.
fn trusted_keys_url(text: &str) -> Result<Url, InvalidUrl> {
    let plain = text.split('?').next().unwrap_or_default();
    trusted_url(plain)?;
    Url::parse(text).map_err(|_| InvalidUrl::Form)
}
