//! The client file.

use std::{fs, path::Path};

use herald_issuer::{CLIENT_FILE_BYTES_MAX, CLIENT_ID_CHARS_MAX, Issuer, IssuerSettings};
use serde_json::{Value, json};

use crate::support::{Caller, READ};

fn jwk(caller: &Caller) -> Value {
    serde_json::from_str(&caller.key.public().to_jwk()).unwrap()
}

fn write(path: &Path, clients: &Value) {
    fs::write(path, json!({ "clients": clients }).to_string()).unwrap();
}

fn client(caller: &Caller, more: &Value) -> Value {
    let mut client = json!({"client_id": caller.id, "keys": [jwk(caller)], "scopes": [READ]});
    client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    client
}

async fn start(path: &Path) -> Result<Issuer, String> {
    let issuer = Issuer::start(IssuerSettings::new(path.to_owned())).await;
    issuer.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })
}

#[tokio::test]
async fn a_change_counts_at_once_and_a_broken_file_leaves_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clients.json");
    let [mut one, mut two] = ["one", "two"].map(Caller::new);
    write(&path, &json!([client(&one, &json!({}))]));
    let issuer = start(&path).await.unwrap();
    for caller in [&mut one, &mut two] {
        caller.url = issuer.url().to_owned();
    }
    one.ask().await.token();
    let refused = two.post(two.form(&two.assertion(), ""), &[]).await;
    refused.assert_refused("invalid_client", "there is no client two");

    write(&path, &json!([client(&one, &json!({"claims": {"x": 1}})), client(&two, &json!({}))]));
    two.ask().await.token();
    assert_eq!(one.claims(one.ask().await.token()).await.unwrap()["x"], 1);

    for broken in ["", "{", "{}", r#"{"clients":[{"client_id":"three"}]}"#] {
        fs::write(&path, broken).unwrap();
        two.ask().await.token();
    }
    fs::write(&path, vec![b' '; CLIENT_FILE_BYTES_MAX + 1]).unwrap();
    two.ask().await.token();
    fs::remove_file(&path).unwrap();
    two.ask().await.token();

    write(&path, &json!([client(&one, &json!({}))]));
    let refused = two.post(two.form(&two.assertion(), ""), &[]).await;
    refused.assert_refused("invalid_client", "there is no client two");
    assert_eq!(one.claims(one.ask().await.token()).await.unwrap().get("x"), None);
}

#[tokio::test]
async fn a_client_has_its_keys_in_any_form_and_its_own_lifetime_and_claims() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clients.json");
    let mut caller = Caller::new("laptop");
    caller.key = include_str!("../../../herald-auth/tests/keys/p256.jwk.json").parse().unwrap();
    let pem = include_str!("../../../herald-auth/tests/keys/p256.public.pem");
    let other = jwk(&Caller::new("other"));
    for keys in [
        json!({"keys": [jwk(&caller)]}),
        json!({"keys": jwk(&caller)}),
        json!({"keys": {"keys": [other, jwk(&caller)]}}),
        json!({"keys": null, "key_pem": pem}),
        json!({"keys": [other], "key_pem": pem}),
    ] {
        write(&path, &json!([client(&caller, &keys)]));
        let issuer = start(&path).await.unwrap();
        caller.url = issuer.url().to_owned();
        caller.ask().await.token();
    }
    let more = json!({
        "lifetime": "1m30s",
        "claims": {"aud": ["a", "b"], "scope": "x y", "nbf": null, "cnf": null, "exp": 1.5, "n": {"o": []}},
    });
    write(&path, &json!([client(&caller, &more)]));
    let issuer = start(&path).await.unwrap();
    caller.url = issuer.url().to_owned();
    let answered = caller.ask().await;
    assert_eq!(answered.body["expires_in"], 90);
    let claims = caller.claims(answered.token()).await.unwrap();
    for (name, value) in more["claims"].as_object().unwrap() {
        assert_eq!(claims.get(name), Some(value).filter(|value| !value.is_null()), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_meant_does_not_start_an_issuer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clients.json");
    let caller = Caller::new("laptop");
    let own = |more: Value| client(&caller, &more);
    let private: Value = serde_json::from_str(
        &herald_auth::PrivateKey::generate_jwk(herald_auth::KeyKind::P256, "k").unwrap(),
    )
    .unwrap();
    let mut for_encryption = jwk(&caller);
    for_encryption["use"] = "enc".into();
    let long = "x".repeat(CLIENT_ID_CHARS_MAX + 1);
    for (clients, what) in [
        (json!(7), "invalid type"),
        (json!([own(json!({"scope": "x"}))]), "unknown field `scope`"),
        (json!([own(json!({"scopes": null}))]), "missing field `scopes`"),
        (json!([own(json!({"scopes": ["a b"]}))]), "client laptop: \"a b\" is no scope"),
        (json!([own(json!({"scopes": [""]}))]), "is no scope"),
        (json!([own(json!({})), own(json!({}))]), "client laptop: it is there twice"),
        (json!([own(json!({"client_id": ""}))]), "client_id must have 1 to 200"),
        (json!([own(json!({"client_id": "a b"}))]), "client_id must have 1 to 200"),
        (json!([own(json!({"client_id": long}))]), "client_id must have 1 to 200"),
        (json!([own(json!({"keys": null}))]), "neither keys nor key_pem"),
        (json!([own(json!({"keys": []}))]), "neither keys nor key_pem"),
        (json!([own(json!({"keys": "x"}))]), "keys must be an array"),
        (json!([own(json!({"keys": {"keys": 7}}))]), "must be an array of JWKs"),
        (json!([own(json!({"keys": [7]}))]), "key 1: it is no JWK"),
        (json!([own(json!({"keys": [jwk(&caller), {"kty": "oct"}]}))]), "key 2: it is of a kind"),
        (json!([own(json!({"keys": [private]}))]), "key 1: it is a private key"),
        (json!([own(json!({"keys": [for_encryption]}))]), "key 1: its use or alg"),
        (json!([own(json!({"key_pem": "x"}))]), "key_pem: it is no PEM"),
        (json!([own(json!({"lifetime": "0s"}))]), "lifetime must be"),
        (json!([own(json!({"lifetime": "1500ms"}))]), "lifetime must be"),
        (json!([own(json!({"lifetime": "24h1s"}))]), "lifetime must be"),
        (json!([own(json!({"lifetime": "-1s"}))]), "lifetime must be"),
    ] {
        write(&path, &clients);
        let error = start(&path).await.unwrap_err();
        assert!(error.contains("could not read the clients from"), "{error}");
        assert!(error.contains(what), "{error} has no {what:?}");
    }
    write(&path, &json!([own(json!({"client_id": &long[1..], "lifetime": "24h", "scopes": []}))]));
    start(&path).await.unwrap();
    let mut padded = fs::read(&path).unwrap();
    padded.resize(CLIENT_FILE_BYTES_MAX, b' ');
    fs::write(&path, &padded).unwrap();
    start(&path).await.unwrap();
    padded.push(b' ');
    fs::write(&path, &padded).unwrap();
    assert!(start(&path).await.unwrap_err().contains("larger than"));
    fs::remove_file(&path).unwrap();
    assert!(start(&path).await.unwrap_err().contains("No such file"));
}
