//! What the targets for tokens, proofs and claims share: one key, one moment, and JSON as another parser reads it.

use std::{collections::HashMap, sync::LazyLock};

use herald_auth::{Algorithm, KeySet, PrivateKey, encode};
use jiff::Timestamp;
use serde_json::{Value, value::RawValue};

/// The second at which everything is checked.
pub(crate) const NOW: i64 = 1_780_000_000;
/// A key that everybody may know: it signs what the fuzzer wants to have signed.
pub(crate) static KEY: LazyLock<PrivateKey> = LazyLock::new(|| {
    let pem = include_str!("../../crates/herald-auth/tests/keys/p256.pkcs8.pem");
    pem.parse().expect("a private key")
});
pub(crate) static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::of(KEY.public().clone()));

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a second of 2026")
}

/// These very texts as a signed object.
pub(crate) fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = KEY.sign(Algorithm::Es256, message.as_bytes()).expect("a key on P-256");
    format!("{message}.{}", encode(&signature))
}

/// The first line is a header, the rest claims; one line alone is claims.
pub(crate) fn header_and_claims<'a>(input: &'a str, usual: &'a str) -> (&'a str, &'a str) {
    input.split_once('\n').unwrap_or((usual, input))
}

/// What was accepted is an object, and its header names the only algorithm that can have signed it.
pub(crate) fn accepted(header: &str, claims: &str) -> (Value, Value) {
    let (header, claims) = (object(header), object(claims));
    assert_eq!(header["alg"], "ES256");
    assert!(header.get("crit").is_none(), "{header}");
    (header, claims)
}

/// The members of an object that was accepted, but for those that are no value to another parser (nested too deep, half a
/// surrogate, a number without a number): what is not read may be anything that has JSON's form.
fn object(text: &str) -> Value {
    let members: HashMap<String, Box<RawValue>> =
        serde_json::from_str(text).expect("an object was accepted");
    let values = members.into_iter().filter_map(|(name, text)| {
        let text = text.get();
        let value = serde_json::from_str(text).ok();
        let value = value.or_else(|| text.starts_with('{').then(|| object(text)));
        value.map(|value| (name, value))
    });
    Value::Object(values.collect())
}
