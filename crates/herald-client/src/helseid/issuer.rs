//! The issuer: where its token endpoint is, and what it answers (OpenID Connect Discovery; RFC 6749, section 4.4).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use herald_auth::{PrivateKey, ProofOf, Prover, Unsignable, assertion};
use jiff::Timestamp;
use reqwest::{
    Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    HelseId, NONCE_RETRIES_MAX, SignInError, SignInFailure, TOKEN_LIFETIME_ASSUMED,
    TOKEN_LIFETIME_MAX,
    nonce::Nonce,
    session::{PROOF, secret},
    tokens::{Issue, Issued},
};
use crate::{
    Error, SettingsError, TransportError,
    body::read_body,
    builder::is_loopback,
    challenge::{clock_ahead, tamed},
    notification::read_object,
    retry,
};

/// How long each request to the issuer may take, its body included.
pub const SIGN_IN_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer of the issuer; a token has at most a quarter of it.
pub const ISSUER_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long it is taken for known where the token endpoint is; and on, while the issuer does not say otherwise.
pub const DISCOVERY_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// The most bytes of a token: it goes into the head of each request.
const TOKEN_BYTES_MAX: usize = ISSUER_ANSWER_BYTES_MAX / 4;

/// An issuer, asked as one client.
pub(crate) struct Issuer {
    name: Arc<str>,
    url: Url,
    client_id: String,
    key: Arc<PrivateKey>,
    scope: String,
    prover: Arc<Prover>,
    http: reqwest::Client,
    nonce: Nonce,
    /// Where its endpoint is. A mutex, held for a moment; there is one renewal at a time.
    place: Mutex<Option<Place>>,
}

/// What discovery found.
#[derive(Clone)]
struct Place {
    /// The issuer as it writes itself, which is what an assertion must name.
    issuer: String,
    token_endpoint: Url,
    found_at: Instant,
}

/// What went wrong, and after how long to ask again.
struct Failed(SignInFailure, Option<Duration>);

impl From<SignInFailure> for Failed {
    fn from(failure: SignInFailure) -> Self {
        Self(failure, None)
    }
}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        SignInFailure::Transport(TransportError::new(error)).into()
    }
}

impl From<Unsignable> for Failed {
    fn from(error: Unsignable) -> Self {
        SignInFailure::Unsigned { why: error.to_string() }.into()
    }
}

impl Issue for Issuer {
    fn issue(&self) -> BoxFuture<'_, Result<Issued, SignInError>> {
        let issued = self.ask().map(|outcome| {
            outcome.map_err(|Failed(failure, retry_after)| {
                SignInError::new(Arc::clone(&self.name), retry_after, failure)
            })
        });
        issued.boxed()
    }

    fn random(&self) -> f64 {
        rand::random()
    }
}

impl Issuer {
    pub(crate) fn new(
        helseid: &HelseId,
        prover: Arc<Prover>,
        http: reqwest::Client,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            name: helseid.issuer.as_str().trim_end_matches('/').into(),
            url: helseid.issuer.clone(),
            client_id: helseid.client_id.clone(),
            key: Arc::clone(&helseid.key),
            scope: helseid.read_scope()?,
            prover,
            http,
            nonce: Nonce::default(),
            place: Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    async fn ask(&self) -> Result<Issued, Failed> {
        let place = self.find().await?;
        let outcome = self.ask_at(&place).await;
        if let Err(Failed(failure, _)) = &outcome
            && !matches!(failure, SignInFailure::Refused { error: Some(_), .. })
        {
            // That was not the token endpoint talking. It may be elsewhere by now.
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        outcome
    }

    async fn find(&self) -> Result<Place, Failed> {
        let known = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(place) = &known
            && place.found_at.elapsed() < DISCOVERY_AGE_MAX
        {
            return Ok(place.clone());
        }
        let place = match (self.discover().await, known) {
            (Ok(place), _) => place,
            // An issuer that cannot say where its endpoint is may have it where it was.
            (Err(Failed(SignInFailure::Transport(_), _)), Some(known)) => known,
            (Err(Failed(SignInFailure::Refused { status, .. }, _)), Some(known))
                if crate::error::is_retryable(status) =>
            {
                known
            }
            (Err(failed), _) => return Err(failed),
        };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        Ok(place)
    }

    async fn discover(&self) -> Result<Place, Failed> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            token_endpoint: String,
        }
        const WHAT: &str = "the issuer's discovery document";
        let mut url = self.url.clone();
        let path = url.path().trim_end_matches('/');
        url.set_path(&format!("{path}/.well-known/openid-configuration"));
        let asked = url.to_string();
        let request = self.http.get(url).header(ACCEPT, "application/json");
        let answer = request.timeout(SIGN_IN_TIMEOUT).send().await?;
        if answer.status() != StatusCode::OK {
            let Failed(mut failure, retry_after) = refused(answer).await;
            if let SignInFailure::Refused { discovery, .. } = &mut failure {
                *discovery = Some(asked);
            }
            return Err(Failed(failure, retry_after));
        }
        let body = read(WHAT, answer).await?;
        let read = read_object::<Document>(&body);
        let document = read.map_err(|error| unusable(WHAT, tamed(&error.to_string())))?;
        let issuer = document.issuer.parse::<Url>().ok();
        let is_it = issuer.is_some_and(|it| trimmed(&it) == trimmed(&self.url));
        if !is_it {
            let (found, ours) = (tamed(&document.issuer), trimmed(&self.url));
            let why = format!(
                "it is of another issuer, {found:?}, and not of {ours:?}: use the address that it \
                 says, if that is the issuer you mean"
            );
            return Err(unusable(WHAT, why).into());
        }
        // What is told to it there must not be heard by others.
        let endpoint = document.token_endpoint.parse::<Url>().ok();
        let endpoint = endpoint.filter(|it| {
            it.scheme() == self.url.scheme() && (it.scheme() == "https" || is_loopback(it))
        });
        let token_endpoint = endpoint.ok_or_else(|| {
            let why = format!("its token_endpoint, {:?}", tamed(&document.token_endpoint));
            unusable(WHAT, format!("{why}, is neither https nor, like the issuer, on this machine"))
        })?;
        Ok(Place { issuer: document.issuer, token_endpoint, found_at: Instant::now() })
    }

    async fn ask_at(&self, place: &Place) -> Result<Issued, Failed> {
        let mut nonce = self.nonce.newest();
        let mut retries = 0;
        loop {
            let asked_at = Instant::now();
            let answer = self.request(place, nonce.as_deref(), Timestamp::now())?.send().await?;
            let asked_for = self.nonce.keep(answer.headers());
            if answer.status() == StatusCode::OK {
                return read_token(answer, asked_at).await;
            }
            let failed = refused(answer).await;
            let asks = matches!(&failed.0, SignInFailure::Refused { error: Some(error), .. } if error == "use_dpop_nonce");
            if !asks || asked_for.is_none() || retries == NONCE_RETRIES_MAX {
                return Err(failed);
            }
            retries += 1;
            nonce = asked_for;
        }
    }

    fn request(
        &self,
        place: &Place,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> Result<reqwest::RequestBuilder, Failed> {
        let url = place.token_endpoint.as_str();
        let proof = self.prover.proof(ProofOf { method: "POST", url, token: None, nonce }, now)?;
        let assertion = assertion(&self.key, &self.client_id, &place.issuer, now)?;
        let form = form(&[
            ("grant_type", "client_credentials"),
            ("scope", &self.scope),
            ("client_id", &self.client_id),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ]);
        let request = self
            .http
            .post(place.token_endpoint.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(PROOF, secret(&proof));
        Ok(request.timeout(SIGN_IN_TIMEOUT).body(form))
    }
}

/// A form, by the one encoder of such things that is here anyway: the one for queries.
fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("form:").expect("an address");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

fn trimmed(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn unusable(what: &'static str, why: impl Into<String>) -> SignInFailure {
    SignInFailure::Unusable { what, why: why.into() }
}

async fn read(what: &'static str, answer: Response) -> Result<Bytes, Failed> {
    read_body(answer, ISSUER_ANSWER_BYTES_MAX).await.map_err(|error| match error {
        Error::Transport(error) => SignInFailure::Transport(error).into(),
        _ => unusable(what, format!("it has more than {ISSUER_ANSWER_BYTES_MAX} bytes")).into(),
    })
}

async fn read_token(answer: Response, asked_at: Instant) -> Result<Issued, Failed> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
        token_type: String,
        #[serde(default)]
        expires_in: Option<f64>,
    }
    const WHAT: &str = "the issuer's answer";
    let body = read(WHAT, answer).await?;
    // What the parser says of an answer may quote it.
    let read = read_object::<Answer>(&body);
    let answer = read.map_err(|_| unusable(WHAT, "it is no JSON object with a token in it"))?;
    if !answer.token_type.eq_ignore_ascii_case("dpop") {
        let why = format!("its token is of type {:?} and not DPoP", tamed(&answer.token_type));
        return Err(unusable(WHAT, why).into());
    }
    let text = answer.access_token;
    if !(1..=TOKEN_BYTES_MAX).contains(&text.len()) || !text.bytes().all(|it| it.is_ascii_graphic())
    {
        let why = format!("its token has not 1 to {TOKEN_BYTES_MAX} visible ASCII characters");
        return Err(unusable(WHAT, why).into());
    }
    let lifetime = answer.expires_in.map_or(TOKEN_LIFETIME_ASSUMED, |seconds| {
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(TOKEN_LIFETIME_MAX)
    });
    Ok(Issued { text, lifetime, asked_at })
}

/// What an answer without success says (RFC 6749, section 5.2).
async fn refused(answer: Response) -> Failed {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Refusal {
        error: Option<String>,
        error_description: Option<String>,
    }
    let status = answer.status();
    let clock_ahead_seconds = clock_ahead(answer.headers(), SystemTime::now());
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| retry::retry_after(text, SystemTime::now()));
    let body = read("the issuer's answer", answer).await.ok();
    let refusal: Refusal = body.and_then(|body| read_object(&body).ok()).unwrap_or_default();
    let told = |text: Option<String>| text.map(|text| tamed(&text)).filter(|text| !text.is_empty());
    let failure = SignInFailure::Refused {
        status,
        error: told(refusal.error),
        description: told(refusal.error_description),
        clock_ahead_seconds,
        discovery: None,
    };
    Failed(failure, retry_after)
}
