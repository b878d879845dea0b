//! A proof of possession (RFC 9449): that whoever sends a token holds the key to which it is bound.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    address::Address,
    algorithm::Algorithm,
    jws::Jws,
    key::PublicKey,
    key_set::{Unverified, claims_of},
    prove::token_hash,
    refused::{Check, Refused},
};

/// How many characters the `jti` of a proof may have, 1 at least.
pub const PROOF_ID_CHARS_MAX: usize = 512;

/// What a proof must keep.
#[derive(Clone, Debug)]
pub struct ProofRules {
    /// The algorithms that may sign it.
    pub algorithms: Vec<Algorithm>,
    /// How old it may be.
    pub age_max: Duration,
    /// How far the client's clock may be from ours, either way.
    pub skew: Duration,
}

impl Default for ProofRules {
    fn default() -> Self {
        Self {
            algorithms: Algorithm::ALL.to_vec(),
            age_max: Duration::from_secs(1),
            skew: Duration::from_secs(5),
        }
    }
}

impl ProofRules {
    /// For how long the same proof could be accepted again, which is how long it must be remembered: from the earliest
    /// moment at which its time is not in the future to the latest at which it is not too old, and the rest of that second.
    #[must_use]
    pub fn accepted_for(&self) -> Duration {
        self.age_max + self.skew * 2 + Duration::from_secs(1)
    }
}

/// The call that a proof should be for.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its address, as the caller sees it.
    pub address: &'a Address,
    /// The token that came with it, and the thumbprint of the key that the token is bound to; none when a token is asked for.
    pub token: Option<(&'a str, &'a str)>,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, address) = (&self.method, &self.address);
        let mut text = f.debug_struct("Call");
        text.field("method", method).field("address", address).finish_non_exhaustive()
    }
}

/// A proof that has been checked, but for its being new.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint of the key that signed it.
    pub thumbprint: String,
    /// Its own name, which no other proof of the key has.
    pub id: String,
    /// What the server had asked to find in it.
    pub nonce: Option<String>,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof")
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    htm: Option<String>,
    #[serde(default)]
    htu: Option<String>,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    ath: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
}

impl Proof {
    /// Checks `text`, in the order of [`Check::ALL`]; whether it is new is not known here. Of its algorithm it is first
    /// looked whether it is allowed; whether it fits the key, when that is known to be the token's.
    ///
    /// # Errors
    /// [`Refused`] names the first check that failed.
    pub fn check(
        text: &str,
        call: Call<'_>,
        rules: &ProofRules,
        now: Timestamp,
    ) -> Result<Self, Refused> {
        let jws = Jws::parse(text).map_err(|error| Check::ProofForm.refused(error))?;
        if jws.header.typ.as_deref() != Some("dpop+jwt") {
            return Err(Check::ProofType.refused("its typ must be dpop+jwt"));
        }
        if jws.algorithm(&rules.algorithms).is_none() {
            return Err(refused(Unverified::Algorithm));
        }
        let jwk = jws.header.jwk.as_ref();
        let jwk = jwk.ok_or_else(|| Check::ProofKey.refused("its header must have a jwk"))?;
        let key = PublicKey::try_from(jwk).map_err(|error| Check::ProofKey.refused(error))?;
        let thumbprint = key.thumbprint();
        if let Some((_, bound_to)) = call.token
            && thumbprint != bound_to
        {
            return Err(
                Check::ProofKey.refused("its key is not the one that the token is bound to")
            );
        }
        let claims: Claims = claims_of(&jws, key, &rules.algorithms).map_err(refused)?;
        if let Some((token, _)) = call.token
            && claims.ath != Some(token_hash(token))
        {
            return Err(Check::ProofToken.refused("its ath must be the SHA-256 of the token"));
        }
        let id = claims.jti.filter(|id| (1..=PROOF_ID_CHARS_MAX).contains(&id.chars().count()));
        let id = id.ok_or_else(|| {
            Check::ProofId
                .refused(format!("it must have a jti of 1 to {PROOF_ID_CHARS_MAX} characters"))
        })?;
        if claims.htm.as_deref() != Some(call.method) {
            return Err(Check::ProofMethod.refused(format!("its htm must be {}", call.method)));
        }
        let htu = claims.htu.as_deref().and_then(Address::parse);
        if htu.as_ref() != Some(call.address) {
            return Err(Check::ProofAddress
                .refused(format!("its htu must be {}, without query and fragment", call.address)));
        }
        check_age(claims.iat, rules, now)?;
        Ok(Self { thumbprint, id, nonce: claims.nonce })
    }
}

/// In whole seconds, as most clients write them.
fn check_age(iat: Option<f64>, rules: &ProofRules, now: Timestamp) -> Result<(), Refused> {
    let iat = iat.ok_or_else(|| Check::ProofTime.refused("it must have an iat"))?;
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 million years")]
    let ahead = iat - now.as_second() as f64;
    let oldest = (rules.age_max + rules.skew).as_secs_f64();
    if (-oldest..=rules.skew.as_secs_f64()).contains(&ahead) {
        return Ok(());
    }
    Err(Check::ProofTime.refused(format!(
        "its iat is {ahead} s from the server's clock; it may be from {oldest} s before to {} s after it",
        rules.skew.as_secs_f64()
    )))
}

fn refused(error: Unverified) -> Refused {
    match error {
        Unverified::Algorithm => Check::ProofAlgorithm.refused(error),
        Unverified::Malformed(_) => Check::ProofForm.refused(error),
        Unverified::UnknownKey => Check::ProofAlgorithm.refused("its key does not fit its alg"),
        Unverified::Signature => {
            Check::ProofSignature.refused("the key in its header has not signed it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 9449, section 7.1.
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    const THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    const MADE_AT: i64 = 1_562_262_618;

    fn check(now: i64, method: &str, address: &str) -> Result<Proof, Check> {
        let address = Address::parse(address).unwrap();
        let call = Call { method, address: &address, token: Some((TOKEN, THUMBPRINT)) };
        let now = Timestamp::from_second(now).unwrap();
        Proof::check(PROOF, call, &ProofRules::default(), now).map_err(|refused| refused.check)
    }

    #[test]
    fn the_proof_of_rfc_9449_is_taken_for_its_own_call_and_time_and_no_other() {
        let address = "https://resource.example.org/protectedresource";
        assert_eq!(check(MADE_AT, "GET", address).unwrap().id, "e1j3V_bKic8-LAEB");
        for (age, taken) in [(-6, false), (-5, true), (6, true), (7, false)] {
            let outcome = check(MADE_AT + age, "GET", address);
            assert_eq!(outcome.err(), (!taken).then_some(Check::ProofTime), "{age}");
        }
        assert_eq!(check(MADE_AT, "POST", address), Err(Check::ProofMethod));
        assert_eq!(
            check(MADE_AT, "GET", "https://resource.example.org/"),
            Err(Check::ProofAddress)
        );
    }
}
