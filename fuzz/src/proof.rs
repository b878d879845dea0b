use std::sync::LazyLock;

use herald_auth::{Address, Call, Check, Proof, ProofRules};
use serde_json::Value;
use url::Url;

use crate::auth::{KEY, NOW, accepted, header_and_claims, now, signed};

const ADDRESS: &str = "https://api.example.no/notifications";
const TOKEN: &str = "a.b.c";
/// The SHA-256 of [`TOKEN`].
const TOKEN_HASH: &str = "hF4wRIgJ4ryJWOsCW_x5UjXROwd6U9DDq70jhRcNybg";

static HEADER: LazyLock<String> = LazyLock::new(|| {
    format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{}}}"#, KEY.public().to_jwk())
});

/// The input as a proof; and as claims, behind a line with a header if there is one, that the client has signed. `KEY` in
/// the header stands for the client's key.
///
/// A proof that is accepted is for this very call, as a plain reading of its JSON, and another reader of URLs, see it.
///
/// # Panics
/// If that does not hold.
pub fn proof(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let address = Address::parse(ADDRESS).expect("an address");
    let thumbprint = KEY.public().thumbprint();
    let check = |text: &str| {
        let call = Call { method: "GET", address: &address, token: Some((TOKEN, &thumbprint)) };
        Proof::check(text, call, &ProofRules::default(), now())
    };
    if check(input).is_ok() {
        assert_eq!(input.matches('.').count(), 2);
    }
    let (header, claims) = header_and_claims(input, &HEADER);
    let header = header.replace("KEY", &KEY.public().to_jwk());
    match check(&signed(&header, claims)) {
        Ok(proof) => assert_says(&proof, &accepted(&header, claims)),
        // Whoever has the key has signed it.
        Err(refused) => assert_ne!(refused.check, Check::ProofSignature),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a second of 2026")]
fn assert_says(proof: &Proof, (header, claims): &(Value, Value)) {
    assert_eq!(header["typ"], "dpop+jwt");
    for secret in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert!(header["jwk"].get(secret).is_none(), "{header}");
    }
    assert_eq!(proof.thumbprint, KEY.public().thumbprint());
    assert_eq!(claims["ath"], TOKEN_HASH);
    assert_eq!(claims["jti"], proof.id);
    assert!((1..=512).contains(&proof.id.chars().count()));
    assert_eq!(claims["htm"], "GET");
    let htu = Url::parse(claims["htu"].as_str().expect("a URL")).expect("a URL");
    assert_eq!(htu.as_str(), ADDRESS);
    let ahead = claims["iat"].as_f64().expect("a time") - NOW as f64;
    assert!((-6.0..=5.0).contains(&ahead), "{claims}");
    assert_eq!(claims["nonce"].as_str(), proof.nonce.as_deref());
}
