//! Who is let in, and what for: with a token, or everybody.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use herald_auth::{
    Address, Authenticator, Caller, Check, Denied, Holder, Organisations, Presented, Publishers,
};
use herald_feed::Permit;
use herald_types::{Grant, NotGranted, Receivers};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use jiff::Timestamp;
use metrics::{Counter, counter};
use tokio::time::Instant;

use crate::{limits::Clients, metrics::AUTH_REFUSED, problem::Error, server::Peer};

const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Whom the API lets in.
#[derive(Debug)]
pub enum Admission {
    /// Everybody, to what is granted here: without authentication the server stays on loopback.
    Everybody(Grant),
    /// Whoever has a token.
    Tokens(Box<TokenAdmission>),
}

/// How tokens are looked at.
#[derive(Debug)]
pub struct TokenAdmission {
    /// Checks tokens and proofs.
    pub authenticator: Authenticator,
    /// Which HER-ids an organisation has.
    pub organisations: Organisations,
    /// For whom each client may append; without it, for everybody.
    pub publishers: Option<Publishers>,
    /// The scope for reading.
    pub scope: String,
    /// The scope for appending.
    pub publish_scope: String,
    /// The address that proofs name, before the path; what the call says otherwise.
    pub public_url: Option<Address>,
    /// Whether a refusal says what was found and expected.
    pub explains: bool,
    /// Counts refusals by check.
    pub refusals: Refusals,
}

/// Counts refusals by check. Handles made once: making one costs a lookup.
#[derive(Debug)]
pub struct Refusals([Counter; Check::ALL.len()]);

impl Default for Refusals {
    /// Install the metrics recorder first: the handles are made here.
    fn default() -> Self {
        Self(Check::ALL.map(|check| counter!(AUTH_REFUSED, "check" => check.label())))
    }
}

/// What a call is for. Each has a scope of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Polls and streams.
    Read,
    /// Appends.
    Append,
}

/// A call that is let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// What it may see, or append for.
    pub(crate) grant: Grant,
    /// Who makes it, where that is known.
    pub(crate) client: Option<Client>,
}

/// Who makes a call.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) holder: Holder,
    /// When its token expires.
    pub(crate) expires: Instant,
}

/// What of a request says who makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: Peer,
}

impl<'a> Asking<'a> {
    pub(crate) fn of<B>(request: &'a http::Request<B>, peer: Peer) -> Self {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        Self { method, uri, headers, peer }
    }
}

impl Admission {
    /// Lets somebody in for `purpose`.
    pub(crate) async fn admit(
        &self,
        purpose: Purpose,
        asking: Asking<'_>,
        clients: &Clients,
    ) -> Result<Admitted, Error> {
        match self {
            Self::Everybody(grant) => Ok(Admitted { grant: grant.clone(), client: None }),
            // In a box: most of it is for a token with a new key, and a poll without tokens pays for none of it.
            Self::Tokens(tokens) => Box::pin(tokens.admit(purpose, asking, clients)).await,
        }
    }

    /// Whether a stream of `receivers` may go on that the holder of a token has opened.
    pub(crate) fn permit(&self, holder: Holder, receivers: Receivers) -> Permit {
        match self {
            Self::Everybody(_) => Box::new(|| true),
            Self::Tokens(tokens) => {
                let organisations = tokens.organisations.clone();
                // The version at which it held last: it is asked before each page.
                let held_at = AtomicU64::new(u64::MAX);
                Box::new(move || {
                    // Before the grant is looked at, so that a change meanwhile is looked at the next time.
                    let version = organisations.version();
                    if held_at.load(Ordering::Relaxed) == version {
                        return true;
                    }
                    let holds = organisations.grant(&holder).still_covers(&receivers);
                    if holds {
                        held_at.store(version, Ordering::Relaxed);
                    }
                    holds
                })
            }
        }
    }

    /// What is to be said of HER-ids that a reader was not granted: whoever may know is told what is wrong with the token.
    pub(crate) fn refusal(&self, not_granted: NotGranted, client: Option<&Client>) -> Error {
        let (Self::Tokens(tokens), Some(client)) = (self, client) else {
            return not_granted.into();
        };
        match tokens.organisations.doubt(&client.holder) {
            Some(doubt) => Error::NothingGranted { not_granted, doubt, explains: tokens.explains },
            None => not_granted.into(),
        }
    }

    /// How many used proofs are remembered now; `None` without tokens.
    pub(crate) fn replays(&self) -> Option<usize> {
        match self {
            Self::Everybody(_) => None,
            Self::Tokens(tokens) => Some(tokens.authenticator.replays(Instant::now())),
        }
    }

    /// What grants depend on, and may change.
    pub(crate) fn organisations(&self) -> Option<&Organisations> {
        match self {
            Self::Everybody(_) => None,
            Self::Tokens(tokens) => Some(&tokens.organisations),
        }
    }
}

impl TokenAdmission {
    async fn admit(
        &self,
        purpose: Purpose,
        asking: Asking<'_>,
        clients: &Clients,
    ) -> Result<Admitted, Error> {
        let scope = match purpose {
            Purpose::Read => &self.scope,
            Purpose::Append => &self.publish_scope,
        };
        let client = self.client(asking, clients, scope).await?;
        // Whoever is told that nothing is granted may give up for good, so it is not told before that is known.
        let grant = match (purpose, &self.publishers) {
            (Purpose::Read, _) if self.organisations.is_known() => {
                self.organisations.grant(&client.holder)
            }
            (Purpose::Append, None) => Grant::everything(),
            (Purpose::Append, Some(publishers)) if publishers.is_known() => {
                publishers.grant(&client.id)
            }
            (Purpose::Read | Purpose::Append, _) => return Err(Error::NoDocuments),
        };
        Ok(Admitted { grant, client: Some(client) })
    }

    async fn client(
        &self,
        asking: Asking<'_>,
        clients: &Clients,
        scope: &str,
    ) -> Result<Client, Error> {
        let (now, instant) = (Timestamp::now(), Instant::now());
        let address = self.address(asking);
        let presented = Presented {
            authorization: only(asking.headers, &header::AUTHORIZATION),
            proof: only(asking.headers, &DPOP),
            method: asking.method.as_str(),
            address: address.as_ref(),
        };
        let denied = |denied| self.denied(denied);
        let claimant = self.authenticator.claimant(presented, now).await.map_err(denied)?;
        // A client over its limit does not make the server check proofs, the dearest part.
        clients.check(&claimant.token.client_id)?;
        let caller = self.authenticator.prove(claimant, presented).map_err(denied)?;
        // Counted only behind a new proof: whoever has recorded a call could use up its client's limit otherwise.
        self.authenticator.is_new(&caller, instant).map_err(denied)?;
        clients.admit(&caller.token.client_id)?;
        self.authenticator.use_up(&caller, instant).map_err(denied)?;
        let Caller { token, .. } = caller;
        if !token.has_scope(scope) {
            let algorithms = self.authenticator.proof_algorithms();
            return Err(Error::InsufficientScope {
                scope: scope.to_owned(),
                challenge: format!(
                    r#"DPoP error="insufficient_scope", scope="{scope}", algs="{algorithms}""#
                ),
            });
        }
        // One that expires within its skew has expired.
        let left = Duration::try_from(token.expires.duration_since(now)).unwrap_or_default();
        // Streams' ends are whole milliseconds, and none of them comes before its token's.
        let tick = if left.is_zero() { left } else { Duration::from_millis(1) };
        let expires = instant + left.min(FAR_AWAY) + tick;
        Ok(Client { id: token.client_id, holder: token.holder, expires })
    }

    /// The address that a proof must name: what is public, or what the caller has asked for. Forwarding headers are not read,
    /// since anybody can send them.
    fn address(&self, asking: Asking<'_>) -> Option<Address> {
        let path = asking.uri.path();
        if let Some(public_url) = &self.public_url {
            return Some(public_url.with(path));
        }
        let authority = match asking.uri.authority() {
            Some(authority) => authority.as_str(),
            None => std::str::from_utf8(only(asking.headers, &header::HOST)?).ok()?,
        };
        if authority.contains('/') {
            // It would be read as a part of the path.
            return None;
        }
        let scheme = if asking.peer.is_tls { "https" } else { "http" };
        Some(Address::parse(&format!("{scheme}://{authority}"))?.with(path))
    }

    fn denied(&self, denied: Denied) -> Error {
        match denied {
            Denied::Refused(refused) => {
                self.refusals.0[refused.check as usize].increment(1);
                let (error, text) = (refused.check.error(), refused.check.sentence());
                let algorithms = self.authenticator.proof_algorithms();
                let challenge = format!(
                    r#"DPoP error="{error}", error_description="{text}", algs="{algorithms}""#
                );
                Error::Unauthenticated { refused, challenge, explains: self.explains }
            }
            Denied::NoKeys => Error::NoKeys,
            Denied::ReplaysFull => Error::ReplaysFull,
        }
    }
}

/// When a token ends that never does: further than any stream lives, and not further than the clock goes.
const FAR_AWAY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The value of a header that is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.next().filter(|_| values.next().is_none())
}
