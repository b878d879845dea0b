//! Who asks: an assertion that the client has signed (RFC 7523).

use std::time::Duration;

use herald_auth::{ASSERTION_LIFETIME, Algorithm, unverified};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    clients::{Client, Clients},
    form::Form,
    refusal::Refusal,
};

/// How far a client's clock may be from ours.
pub const ASSERTION_SKEW: Duration = Duration::from_secs(5);
/// How many characters the `jti` of an assertion may have, 1 at least.
pub const ASSERTION_ID_CHARS_MAX: usize = 512;

/// The only type of assertion that there is here.
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An assertion that has been checked, but for its being new.
#[derive(Debug)]
pub(crate) struct Assertion<'a> {
    pub(crate) client: &'a Client,
    /// Its own name, which no other assertion of the client has.
    pub(crate) id: String,
    /// Until when it would be accepted, in seconds.
    pub(crate) until: i64,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    jti: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, expected: &[&str]) -> bool {
        // HelseID's own base URL is written with and without the slash.
        let is_expected = |name: &String| expected.contains(&name.trim_end_matches('/'));
        match self {
            Self::One(name) => is_expected(name),
            Self::Many(names) => names.iter().any(is_expected),
        }
    }
}

impl<'a> Assertion<'a> {
    /// Checks the assertion in `form`, which must be for one of `audiences`.
    pub(crate) fn check(
        form: &Form,
        clients: &'a Clients,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let kind = form.optional("client_assertion_type")?;
        let text = form.optional("client_assertion")?;
        let (Some(kind), Some(text)) = (kind, text) else {
            return Err(Refusal::client(
                "client_assertion and client_assertion_type are needed: clients are known by private_key_jwt only",
            ));
        };
        if kind != TYPE {
            return Err(Refusal::client(format!("client_assertion_type must be {TYPE}")));
        }
        let malformed = |error| refused(format!("{error}"));
        let claims: Claims = unverified(text).map_err(malformed)?;
        let client = client_of(&claims, form.optional("client_id")?, clients)?;
        // From here on they are the client's own words.
        let claims: Claims = client.keys.verify_by_any(text, &Algorithm::ALL).map_err(|error| {
            refused(format!("{error}; it must be signed with a key of {}", client.id))
        })?;
        if !claims.aud.as_ref().is_some_and(|audience| audience.names(audiences)) {
            return Err(refused(format!("its aud must be {}", audiences.join(" or "))));
        }
        let until = check_times(&claims, now)?;
        let id = claims.jti.filter(|id| (1..=ASSERTION_ID_CHARS_MAX).contains(&id.chars().count()));
        let id = id.ok_or_else(|| {
            refused(format!("it must have a jti of 1 to {ASSERTION_ID_CHARS_MAX} characters"))
        })?;
        Ok(Self { client, id, until })
    }
}

fn refused(what: impl AsRef<str>) -> Refusal {
    Refusal::client(format!("the client assertion is not accepted: {}", what.as_ref()))
}

/// Whose assertion it says it is.
fn client_of<'a>(
    claims: &Claims,
    beside: Option<&str>,
    clients: &'a Clients,
) -> Result<&'a Client, Refusal> {
    let (Some(iss), Some(sub)) = (&claims.iss, &claims.sub) else {
        return Err(refused("it must have iss and sub, both of them the client_id"));
    };
    if iss != sub {
        return Err(refused("its iss and sub must be the same: the client_id"));
    }
    if beside.is_some_and(|beside| beside != iss) {
        return Err(refused("client_id in the form is another than its iss"));
    }
    clients.by_id(iss).ok_or_else(|| {
        let shown: String = iss.chars().take(crate::CLIENT_ID_CHARS_MAX).collect();
        refused(format!("there is no client {shown}"))
    })
}

/// Returns until when it would be accepted.
fn check_times(claims: &Claims, now: Timestamp) -> Result<i64, Refusal> {
    let skew = ASSERTION_SKEW.as_secs_f64();
    let (lifetime, lifetime_s) = (ASSERTION_LIFETIME.as_secs_f64(), ASSERTION_LIFETIME.as_secs());
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 million years")]
    let ahead = |time: f64| time - now.as_second() as f64;
    let exp = claims.exp.map(ahead).filter(|exp| exp.is_finite());
    let exp = exp.ok_or_else(|| refused("it must have an exp"))?;
    if exp < -skew {
        return Err(refused(format!("it has expired {} s ago", -exp)));
    }
    if exp > lifetime + skew {
        return Err(refused(format!(
            "its exp is {exp} s ahead; it may be at most {lifetime_s} s ahead"
        )));
    }
    for (name, time) in [("nbf", claims.nbf), ("iat", claims.iat)] {
        let ahead = time.map(ahead).filter(|ahead| *ahead > skew);
        if let Some(ahead) = ahead {
            return Err(refused(format!("its {name} is {ahead} s in the future")));
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "a minute at most")]
    let rest = (exp + skew).ceil() as i64;
    Ok(now.as_second().saturating_add(rest))
}
