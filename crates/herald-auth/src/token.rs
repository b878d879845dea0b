//! An access token: what it must say, and what it then is worth.

use std::{fmt, time::Duration};

use herald_types::{HerId, HerIdSet};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::{
    algorithm::Algorithm,
    jws::Jws,
    key_set::{KeySet, Unverified},
    object,
    refused::{Check, Refused},
};

/// The claim that narrows an organisation's HER-ids. Source: docs/protocol.md, access.
pub const HER_ID_CLAIM: &str = "nhn:msh/client/claims/herid";
/// The claim with the number of the organisation that has delegated its rights.
pub const ORGANISATION_CLAIM: &str = "helseid://claims/client/claims/orgnr_parent";
/// How many characters a client's name may have: it is a key of tables.
pub const CLIENT_ID_CHARS_MAX: usize = 200;

/// What a token must keep.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// What its `iss` must be, to the letter but for one slash at the end.
    pub issuer: String,
    /// What its `aud` must be or contain.
    pub audience: String,
    /// The algorithms that may sign it.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from ours.
    pub skew: Duration,
}

/// A token that has been checked.
#[derive(Clone, PartialEq)]
pub struct Token {
    /// The client that it was issued to; the thumbprint of its key where the token does not say.
    pub client_id: String,
    /// The thumbprint of the key that it is bound to.
    pub thumbprint: String,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// Whose HER-ids it is about.
    pub holder: Holder,
    /// When it expires.
    pub expires: Timestamp,
}

/// Whose HER-ids a token is about, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The number of the organisation that has delegated its rights.
    pub organisation: Option<String>,
    /// Which of its HER-ids.
    pub claimed: Claimed,
}

/// What a token says of HER-ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// All that its organisation has: the claim is `0`.
    All,
    /// Those of them that it names. None if the claim is missing or malformed.
    These(HerIdSet),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    aud: Vec<String>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "words")]
    scope: Vec<String>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "object::optional")]
    cnf: Option<Confirmation>,
    // As they are: a malformed one grants nothing, and does not make the token invalid.
    #[serde(default, rename = "nhn:msh/client/claims/herid")]
    her_id: Option<Value>,
    #[serde(default, rename = "helseid://claims/client/claims/orgnr_parent")]
    organisation: Option<Value>,
}

#[derive(Deserialize)]
struct Confirmation {
    #[serde(default)]
    jkt: Option<String>,
}

impl Token {
    /// Checks `text`, in the order of docs/protocol.md.
    ///
    /// # Errors
    /// [`Refused`] names the first check that failed. [`Check::TokenKey`] may mean that `keys` are out of date.
    pub fn check(
        text: &str,
        keys: &KeySet,
        rules: &TokenRules,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        let jws = Jws::parse(text).map_err(|error| Check::TokenForm.refused(error))?;
        let claims: Claims = keys.claims(&jws, &rules.algorithms).map_err(refused)?;
        if claims.iss.as_deref().map(without_slash) != Some(without_slash(&rules.issuer)) {
            return Err(Check::TokenIssuer.refused(format!("its iss must be {}", rules.issuer)));
        }
        if !claims.aud.contains(&rules.audience) {
            let explanation = format!("its aud must be or contain {}", rules.audience);
            return Err(Check::TokenAudience.refused(explanation));
        }
        let expires = check_lifetime(&claims, rules.skew, now)?;
        let thumbprint = claims.cnf.and_then(|confirmation| confirmation.jkt);
        let thumbprint = thumbprint
            .ok_or_else(|| Check::TokenBinding.refused("it must have a cnf with a jkt"))?;
        let client_id = claims.client_id.filter(|id| !id.is_empty());
        let client_id = client_id.unwrap_or_else(|| thumbprint.clone());
        if client_id.chars().count() > CLIENT_ID_CHARS_MAX {
            let explanation =
                format!("its client_id has more than {CLIENT_ID_CHARS_MAX} characters");
            return Err(Check::TokenForm.refused(explanation));
        }
        let organisation = claims.organisation.as_ref().and_then(Value::as_str).map(str::to_owned);
        let claimed = Claimed::read(claims.her_id.as_ref());
        Ok(Self {
            client_id,
            thumbprint,
            scopes: claims.scope,
            holder: Holder { organisation, claimed },
            expires,
        })
    }

    /// Whether the token is good for `scope`.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|word| word == scope)
    }
}

impl Claimed {
    /// `"0"`, or `"100-200"`: whole numbers with a hyphen between each, and nothing else.
    fn read(claim: Option<&Value>) -> Self {
        let none = || Self::These(HerIdSet::default());
        let Some(text) = claim.and_then(Value::as_str) else { return none() };
        if text == "0" {
            return Self::All;
        }
        let her_ids: Result<HerIdSet, _> = text.split('-').map(str::parse::<HerId>).collect();
        her_ids.map_or_else(|_| none(), Self::These)
    }
}

fn refused(error: Unverified) -> Refused {
    match error {
        Unverified::Algorithm => Check::TokenAlgorithm.refused(error),
        Unverified::Malformed(_) => Check::TokenForm.refused(error),
        Unverified::UnknownKey => Check::TokenKey.refused(error),
        Unverified::Signature => Check::TokenSignature.refused(error),
    }
}

/// When it expires, if it is valid now.
fn check_lifetime(claims: &Claims, skew: Duration, now: Timestamp) -> Result<Timestamp, Refused> {
    let exp = claims.exp.ok_or_else(|| Check::TokenLifetime.refused("it must have an exp"))?;
    let (now_seconds, skew) = (now.as_duration().as_secs_f64(), skew.as_secs_f64());
    if now_seconds >= exp + skew {
        let ago = now_seconds - exp;
        return Err(Check::TokenLifetime.refused(format!("it expired {ago:.0} s ago")));
    }
    if let Some(nbf) = claims.nbf
        && nbf - skew > now_seconds
    {
        let ahead = nbf - now_seconds;
        return Err(Check::TokenLifetime.refused(format!("it is valid in {ahead:.0} s")));
    }
    let exp = jiff::SignedDuration::try_from_secs_f64(exp).ok();
    Ok(exp.and_then(|exp| Timestamp::from_duration(exp).ok()).unwrap_or(Timestamp::MAX))
}

/// Whether an issuer's name ends in a slash, no two places agree.
pub(crate) fn without_slash(issuer: &str) -> &str {
    issuer.strip_suffix('/').unwrap_or(issuer)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer).map_err(de::Error::custom)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

/// An array of words, or one text with spaces between them; a text with spaces in an array is no word, and not two.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = match OneOrMany::deserialize(deserializer).map_err(de::Error::custom)? {
        OneOrMany::One(text) => text.split(' ').map(str::to_owned).collect(),
        OneOrMany::Many(words) => words,
    };
    Ok(words.into_iter().filter(|word| !word.is_empty() && !word.contains(' ')).collect())
}
