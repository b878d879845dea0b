//! One token for all calls, and one renewal for all who wait.
//!
//! ```text
//!  asked                          renewed early       used no more   expires
//!    ├────────────── the token is used ──┼──── still used ────┼────────┤
//!                                        └ by a task of its own         └ TOKEN_USE_MARGIN before
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{sync::oneshot, time::Instant};

use super::{SignInError, admission::Admission};
use crate::retry::Backoff;

/// A token is renewed when a fifth of its lifetime is left, or so much if that is less; up to half of it later at random, so
/// that clients that began together do not ask together.
pub const TOKEN_RENEWAL_MARGIN: Duration = Duration::from_secs(60);
/// A token is not used for so long before it expires, or for the last tenth of its lifetime if that is less: it takes time to
/// arrive. Calls then wait for the new one.
pub const TOKEN_USE_MARGIN: Duration = Duration::from_secs(5);
/// The longest lifetime that counts.
pub const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The lifetime of a token whose issuer does not say.
pub const TOKEN_LIFETIME_ASSUMED: Duration = Duration::from_secs(60);

/// Where tokens come from: an issuer, or in tests a script.
pub(super) trait Issue: Send + Sync + 'static {
    fn issue(&self) -> BoxFuture<'_, Result<Issued, SignInError>>;
    /// A number drawn evenly from 0 up to 1.
    fn random(&self) -> f64;
}

/// A token as it was given. It has no `Debug`.
pub(super) struct Issued {
    pub(super) text: String,
    /// How long it is valid, counted from when it was asked for.
    pub(super) lifetime: Duration,
    pub(super) asked_at: Instant,
}

/// A token in use.
pub(super) struct Token {
    pub(super) text: String,
    renew_at: Instant,
    use_until: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    fn new(issued: Issued, random: f64) -> Self {
        let lifetime = issued.lifetime.min(TOKEN_LIFETIME_MAX);
        let renewal_margin = (lifetime / 5).min(TOKEN_RENEWAL_MARGIN).mul_f64(1.0 - random / 2.0);
        let use_margin = (lifetime / 10).min(TOKEN_USE_MARGIN);
        let at = |margin: Duration| issued.asked_at + lifetime.saturating_sub(margin);
        Self { renew_at: at(renewal_margin), use_until: at(use_margin), text: issued.text }
    }
}

/// The token of a client, shared by its clones.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    issuer: Box<dyn Issue>,
    /// A mutex, held for a moment and never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// The renewal that is under way. A task does it, so that it goes on whoever stops waiting.
    renewal: Option<Renewal>,
    backoff: Backoff,
    /// How the last renewal failed, and until when nobody asks again.
    failed: Option<(SignInError, Instant)>,
    admission: Admission,
}

type Outcome = Result<Arc<Token>, SignInError>;
type Renewal = Shared<oneshot::Receiver<Outcome>>;

/// What a refusal of a token leads to.
pub(super) struct Refused {
    /// It may be taken later.
    pub(super) may_pass: bool,
    /// The next call has another.
    pub(super) is_replaced: bool,
}

enum Found {
    Outcome(Outcome),
    Renewal(Renewal),
}

impl Tokens {
    pub(super) fn new(issuer: impl Issue) -> Self {
        Self(Arc::new(Inner { issuer: Box::new(issuer), state: Mutex::default() }))
    }

    /// A token to use now. Waits only while there is none.
    pub(super) async fn token(&self) -> Outcome {
        loop {
            let renewal = match self.find(Instant::now()) {
                Found::Outcome(outcome) => return outcome,
                Found::Renewal(renewal) => renewal,
            };
            if let Ok(outcome) = renewal.await {
                return outcome;
            }
            // The runtime on which it ran is gone, and it with it.
            let is_lost = |renewal: &mut Renewal| matches!(renewal.peek(), Some(Err(_)));
            self.0.state().renewal.take_if(is_lost);
        }
    }

    /// Says that a call has succeeded.
    pub(super) fn let_in(&self) {
        self.0.state().admission.let_in();
    }

    /// Says that a call has failed, and not for its token.
    pub(super) fn interrupted(&self) {
        self.0.state().admission.interrupted();
    }

    /// Says that a server did not take this token; the next call waits for another, unless that was tried just now.
    pub(super) fn refuse(&self, refused: &Arc<Token>) -> Refused {
        let (random, now) = (self.0.issuer.random(), Instant::now());
        let mut state = self.0.state();
        let may_pass = state.admission.refused(now);
        let is_newest = state.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused));
        if is_newest && state.admission.replaces(random, now) {
            state.token = None;
        }
        let is_replaced = !state.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused));
        Refused { may_pass, is_replaced }
    }

    fn find(&self, now: Instant) -> Found {
        let mut state = self.0.state();
        let token = state.token.clone().filter(|token| now < token.use_until);
        if let Some(token) = &token
            && (now < token.renew_at
                || state.renewal.is_some()
                || state.failed.as_ref().is_some_and(|(_, until)| now < *until))
        {
            return Found::Outcome(Ok(Arc::clone(token)));
        }
        if let Some(renewal) = &state.renewal {
            return Found::Renewal(renewal.clone());
        }
        if let Some((error, until)) = &state.failed
            && now < *until
        {
            // Whoever comes back after that long finds that somebody may ask again. What does not pass by itself is no reason to
            // come back, but who does must not ask more often for it.
            let is_retryable = error.is_retryable();
            let error = if is_retryable { error.after(*until - now) } else { error.clone() };
            return Found::Outcome(Err(error));
        }
        let (done, renewal) = oneshot::channel();
        let renewal = renewal.shared();
        state.renewal = Some(renewal.clone());
        drop(state);
        tokio::spawn(Inner::renew(Arc::clone(&self.0), done));
        token.map_or(Found::Renewal(renewal), |token| Found::Outcome(Ok(token)))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(self: Arc<Self>, done: oneshot::Sender<Outcome>) {
        let issued = self.issuer.issue().await;
        let outcome = self.keep(issued, Instant::now());
        // Nobody may be waiting.
        let _ = done.send(outcome);
    }

    fn keep(&self, issued: Result<Issued, SignInError>, now: Instant) -> Outcome {
        let random = self.issuer.random();
        let mut state = self.state();
        state.renewal = None;
        match issued {
            Ok(issued) => {
                let lifetime_s = issued.lifetime.as_secs();
                let token = Arc::new(Token::new(issued, random));
                (state.backoff, state.failed) = (Backoff::new(), None);
                state.token = Some(Arc::clone(&token));
                drop(state);
                tracing::debug!(lifetime_s, "signed in");
                Ok(token)
            }
            Err(error) => {
                let wait = state.backoff.wait(random, error.retry_after());
                state.failed = Some((error.clone(), now + wait));
                let is_early = state.token.as_ref().is_some_and(|token| now < token.use_until);
                drop(state);
                if is_early {
                    // Otherwise whoever waits says so.
                    tracing::warn!(
                        wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                        error = &error as &dyn std::error::Error,
                        "the token could not be renewed, the old one is still good"
                    );
                }
                Err(if error.is_retryable() { error.after(wait) } else { error })
            }
        }
    }
}

#[cfg(test)]
mod tests;
