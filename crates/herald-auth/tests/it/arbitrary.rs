//! What holds whatever the text is.

use herald_auth::{Address, KeySet, Organisations};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::Parties;

/// JSON of any shape, with the names that mean something among others.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        "[a-z]{0,3}",
        Just("iss".to_owned()),
        Just("aud".to_owned()),
        Just("exp".to_owned()),
        Just("cnf".to_owned()),
        Just("jkt".to_owned()),
        Just("scope".to_owned()),
        Just("jwk".to_owned()),
        Just("kty".to_owned()),
        Just("keys".to_owned()),
        Just(herald_auth::HER_ID_CLAIM.to_owned()),
        Just("jti".to_owned()),
        Just("htu".to_owned()),
        Just("iat".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[0-9-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(name.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn one_changed_byte_of_a_token_or_a_proof_refuses_it(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let parties = Parties::new();
        let token = parties.token(&json!({}));
        let proof = parties.proof(&token, &json!({}), &json!({}));
        prop_assert!(parties.check_token(&token).is_ok());
        prop_assert!(parties.check_proof(&proof, &token).is_ok());
        let changed = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            *at.get_mut(&mut bytes) = byte;
            String::from_utf8(bytes).ok().filter(|changed| changed != text)
        };
        if let Some(changed) = changed(&token) {
            prop_assert!(parties.check_token(&changed).is_err());
            // Nor does the proof go with it.
            prop_assert!(parties.check_proof(&proof, &changed).is_err());
        }
        if let Some(changed) = changed(&proof) {
            prop_assert!(parties.check_proof(&changed, &token).is_err());
        }
    }

    #[test]
    fn no_text_makes_anything_panic(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let parties = Parties::new();
        prop_assert!(parties.check_token(&text).is_err());
        prop_assert!(parties.check_proof(&text, "token").is_err());
        let _ = KeySet::parse(&bytes);
        let _ = KeySet::parse(text.as_bytes());
        let _ = Organisations::new().replace(&bytes);
        let _ = text.parse::<herald_auth::PrivateKey>();
        let _ = Address::parse(&text);
    }

    #[test]
    fn an_address_has_one_form_and_that_is_an_address(
        text in "[hH]ttps?://[a-zA-Z0-9.:%@\\[\\]-]{1,12}(:[0-9]{0,6})?(/[!-~]{0,12})?",
    ) {
        if let Some(address) = Address::parse(&text) {
            prop_assert_eq!(Address::parse(&address.to_string()), Some(address));
        }
    }

    #[test]
    fn signed_claims_of_any_shape_never_panic(changes in any_json(), whole in any_json()) {
        let parties = Parties::new();
        let _ = parties.check_token(&parties.token_text(&whole.to_string()));
        let _ = KeySet::parse(whole.to_string().as_bytes());
        let _ = Organisations::new().replace(whole.to_string().as_bytes());
        let object = json!({ "cnf": whole, "aud": changes, herald_auth::HER_ID_CLAIM: whole });
        let _ = parties.check_token(&parties.token(&object));
        let header = json!({ "jwk": changes });
        let _ = parties.check_proof(&parties.proof("token", &header, &object), "token");
        if changes.is_object() {
            let _ = parties.check_token(&parties.token(&changes));
            let _ = parties.check_proof(&parties.proof("token", &changes, &changes), "token");
        }
    }
}
