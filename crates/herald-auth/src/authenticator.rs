//! Who calls: the token and the proof of one call, checked in one order.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    address::Address,
    dpop::{Call, Proof, ProofRules},
    jwks::IssuerKeys,
    refused::{Check, Refused},
    replay::{Replays, Unusable},
    token::{Token, TokenRules},
};

/// How many proofs are remembered at most, unless told otherwise: 38,000 calls a second, in some 40 MB.
pub const REPLAYS_MAX: usize = 500_000;
/// How long a call may take between its check and the use of its proof. Nothing is waited for in between.
const CHECKED_TO_USED_MAX: Duration = Duration::from_secs(1);

/// What tokens and proofs must keep.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a token must keep.
    pub token: TokenRules,
    /// What a proof must keep.
    pub proof: ProofRules,
    /// How many used proofs are remembered at most.
    pub replays_max: usize,
}

/// Checks calls.
#[derive(Debug)]
pub struct Authenticator {
    keys: IssuerKeys,
    rules: Rules,
    replays: Replays,
}

/// What a call brings. The headers are taken only if there is exactly one of each.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The value of `DPoP`.
    pub proof: Option<&'a [u8]>,
    /// The call's method.
    pub method: &'a str,
    /// The call's address as the caller sees it, if that is known.
    pub address: Option<&'a Address>,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Who calls, but for the proof's being new: [`Authenticator::use_up`] says that.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The token.
    pub token: Token,
    proof: Proof,
    /// When its wait for a new key ended, if it had to wait: its proof was taken by the time of then.
    waited_until: Option<Instant>,
}

/// Whose token a call has; that the call is theirs has still to be proven.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimant {
    /// The token.
    pub token: Token,
    now: Timestamp,
    waited_until: Option<Instant>,
}

/// A call that is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A check failed.
    Refused(Refused),
    /// The issuer's keys have never been had.
    NoKeys,
    /// There is no room to remember another proof.
    ReplaysFull,
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Authenticator {
    /// Checks tokens with `keys`.
    #[must_use]
    pub fn new(keys: IssuerKeys, rules: Rules) -> Self {
        let replays = Replays::new(remembered_for(&rules.proof), rules.replays_max);
        Self { keys, rules, replays }
    }

    /// Who makes this call: its token, and its proof.
    ///
    /// # Errors
    /// As [`Authenticator::claimant`] and [`Authenticator::prove`].
    pub async fn check(&self, presented: Presented<'_>, now: Timestamp) -> Result<Caller, Denied> {
        let claimant = self.claimant(presented, now).await?;
        self.prove(claimant, presented)
    }

    /// Whose token this call has. Waits for the network only when the token names a key that is not known.
    ///
    /// # Errors
    /// [`Denied`] names the first check that failed.
    pub async fn claimant(
        &self,
        presented: Presented<'_>,
        mut now: Timestamp,
    ) -> Result<Claimant, Denied> {
        let token_text = token_of(presented.authorization)?;
        let keys = self.keys.current().ok_or(Denied::NoKeys)?;
        let rules = &self.rules.token;
        let mut waited_until = None;
        let token = match Token::check(token_text, &keys, rules, now) {
            Err(refused) if refused.check == Check::TokenKey => {
                let asked = Instant::now();
                let newer = self.keys.newer(&keys).await.ok_or(refused)?;
                // A token or a proof may have become too old meanwhile.
                let came = Instant::now();
                now = now.checked_add(came - asked).unwrap_or(Timestamp::MAX);
                waited_until = Some(came);
                Token::check(token_text, &newer, rules, now)?
            }
            checked => checked?,
        };
        Ok(Claimant { token, now, waited_until })
    }

    /// That the call is its claimant's, by its proof; whether that is new is not known here.
    ///
    /// # Errors
    /// [`Denied`] names the first check that failed.
    pub fn prove(&self, claimant: Claimant, presented: Presented<'_>) -> Result<Caller, Denied> {
        let Claimant { token, now, waited_until } = claimant;
        let token_text = token_of(presented.authorization)?;
        let proof_text = presented.proof.and_then(|proof| std::str::from_utf8(proof).ok());
        let proof_text =
            proof_text.ok_or_else(|| Check::ProofForm.refused("there must be one header DPoP"))?;
        let address = presented.address.ok_or_else(|| {
            Check::ProofAddress.refused("the call does not say to which host it was sent")
        })?;
        let call = Call {
            method: presented.method,
            address,
            token: Some((token_text, &token.thumbprint)),
        };
        let proof = Proof::check(proof_text, call, &self.rules.proof, now)?;
        Ok(Caller { token, proof, waited_until })
    }

    /// That the proof of `caller` was not used before; it is not used up. Whoever counts the calls of a client asks first: a
    /// recorded call that is sent again should cost its client nothing.
    ///
    /// # Errors
    /// [`Denied`] when it was used before.
    pub fn is_new(&self, caller: &Caller, now: Instant) -> Result<(), Denied> {
        let Proof { thumbprint, id, .. } = &caller.proof;
        if self.replays.is_used(thumbprint, id, now) { Err(self.used().into()) } else { Ok(()) }
    }

    /// Uses up the proof of `caller`, who was checked just now; `now` may be the moment at which that began. It comes last,
    /// and behind whatever limits how often a client may call, so that no client fills the memory of proofs for all.
    ///
    /// # Errors
    /// [`Denied`] when it was used before, or cannot be remembered.
    pub fn use_up(&self, caller: &Caller, now: Instant) -> Result<(), Denied> {
        let Proof { thumbprint, id, .. } = &caller.proof;
        // Otherwise it would be forgotten while it is still taken.
        let now = caller.waited_until.map_or(now, |waited_until| now.max(waited_until));
        self.replays.use_up(thumbprint, id, now).map_err(|unusable| match unusable {
            Unusable::Used => self.used().into(),
            Unusable::Full => Denied::ReplaysFull,
        })
    }

    fn used(&self) -> Refused {
        let window = remembered_for(&self.rules.proof).as_secs();
        Check::ProofReplay.refused(format!("its jti was used within the last {window} s"))
    }

    /// How many proofs are remembered now.
    #[must_use]
    pub fn replays(&self, now: Instant) -> usize {
        self.replays.count(now)
    }

    /// The algorithms that a proof may have, for `WWW-Authenticate`.
    #[must_use]
    pub fn proof_algorithms(&self) -> String {
        let names: Vec<_> = self.rules.proof.algorithms.iter().map(|one| one.name()).collect();
        names.join(" ")
    }
}

/// For as long as a proof is taken, and for as long as a call needs that was checked in the last moment of that. Should the
/// wall clock be set back by more, a proof may be taken twice.
fn remembered_for(rules: &ProofRules) -> Duration {
    rules.accepted_for() + CHECKED_TO_USED_MAX
}

/// The token of `Authorization: DPoP <token>`. The scheme's name has no case (RFC 9110, section 11.1).
fn token_of(authorization: Option<&[u8]>) -> Result<&str, Refused> {
    let refused = |text| Check::Scheme.refused(text);
    let value = authorization.ok_or_else(|| refused("there must be one header Authorization"))?;
    let value = std::str::from_utf8(value).map_err(|_| refused("it must be visible ASCII"))?;
    let (scheme, token) =
        value.split_once(' ').ok_or_else(|| refused("it must be DPoP, a space and a token"))?;
    if !scheme.eq_ignore_ascii_case("DPoP") {
        return Err(refused("its scheme must be DPoP; a Bearer token is not taken here"));
    }
    Ok(token.trim_start_matches(' '))
}
