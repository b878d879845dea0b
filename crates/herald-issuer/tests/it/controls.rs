//! What a developer may do to a running issuer.

use std::time::Duration;

use herald_auth::{PrivateKey, Unverified};
use herald_issuer::{
    Issuer, IssuerSettings, KEYS_PATH, RENEW_NONCES_PATH, RETIRE_KEYS_PATH, ROTATE_PATH, StartError,
};
use serde_json::json;

use crate::support::{Caller, Laptop, registered};

#[tokio::test]
async fn after_a_rotation_the_old_key_is_published_until_it_is_retired() {
    let Laptop { issuer, caller } = Laptop::start().await;
    let (old, before) = (issuer.kid(), caller.ask().await);
    let rotated = caller.control(ROTATE_PATH).await;
    assert_eq!(rotated.body, json!({"kid": issuer.kid()}));
    let after = caller.ask().await;
    assert_ne!(issuer.kid(), old);
    let keys = caller.get(KEYS_PATH).await.body;
    let kids: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!(kids, [&json!(issuer.kid()), &json!(old)]);
    for answered in [&before, &after] {
        caller.claims(answered.token()).await.unwrap();
    }
    assert_eq!(caller.control(RETIRE_KEYS_PATH).await.status, 200);
    caller.claims(after.token()).await.unwrap();
    assert_eq!(caller.claims(before.token()).await, Err(Unverified::UnknownKey));

    issuer.rotate().unwrap();
    caller.claims(after.token()).await.unwrap();
    issuer.retire_old_keys();
    assert_eq!(caller.claims(after.token()).await, Err(Unverified::UnknownKey));
}

#[tokio::test(start_paused = true)]
async fn the_key_changes_by_itself_as_often_as_it_is_told() {
    let every = Duration::from_secs(3600);
    let Laptop { issuer, .. } = Laptop::start_with(|settings| {
        settings.rotate_every = Some(every);
    })
    .await;
    let mut kids = vec![issuer.kid()];
    for _ in 0..3 {
        tokio::time::sleep(every).await;
        while kids.contains(&issuer.kid()) {
            tokio::task::yield_now().await;
        }
        kids.push(issuer.kid());
    }
    assert_eq!(kids.len(), 4);
}

#[tokio::test]
async fn given_keys_sign_one_after_the_other_and_an_rsa_key_stays_when_it_is_the_last() {
    let rsa = || -> PrivateKey {
        include_str!("../../../herald-auth/tests/keys/rsa.pkcs8.pem").parse().unwrap()
    };
    let Laptop { issuer, caller } = Laptop::start_with(|settings| {
        settings.signing_keys = vec![rsa().named("one"), rsa().named("two")];
    })
    .await;
    assert_eq!(issuer.kid(), "one");
    issuer.rotate().unwrap();
    assert_eq!(issuer.kid(), "two");
    let refused = caller.control(ROTATE_PATH).await;
    assert_eq!((refused.status.as_u16(), &refused.body["error"]), (409, &json!("conflict")));
    assert_eq!(issuer.kid(), "two");
    caller.ask().await.token();
}

#[tokio::test]
async fn nonces_can_be_renewed_and_a_page_in_a_browser_controls_nothing() {
    let Laptop { issuer, caller } = Laptop::start().await;
    let (nonce, kid) = (caller.nonce().await, issuer.kid());
    for path in [ROTATE_PATH, RETIRE_KEYS_PATH, RENEW_NONCES_PATH] {
        let post = caller.http.post(format!("{}{path}", caller.url));
        let answer = post.header("origin", "https://example.org").send().await.unwrap();
        assert_eq!(answer.status(), 403);
        assert_eq!(caller.get(path).await.status, 405);
    }
    assert_eq!(issuer.kid(), kid);
    let form = || caller.form(&caller.assertion(), "");
    caller.post(form(), &[caller.proof(Some(&nonce))]).await.token();
    caller.control(RENEW_NONCES_PATH).await;
    let answered = caller.post(form(), &[caller.proof(Some(&nonce))]).await;
    answered.assert_refused("use_dpop_nonce", "");
}

#[tokio::test]
async fn a_stopped_issuer_frees_its_port_and_comes_back_with_the_same_key() {
    let key = || -> PrivateKey {
        include_str!("../../../herald-auth/tests/keys/p256.jwk.json").parse().unwrap()
    };
    let Laptop { issuer, caller } = Laptop::start_with(|settings| {
        settings.signing_keys = vec![key()];
    })
    .await;
    let answered = caller.ask().await;
    let address = issuer.address();
    issuer.stop().await;
    assert!(caller.http.get(&caller.url).send().await.unwrap_err().is_connect());
    let mut settings = IssuerSettings::new(vec![registered(&caller)]);
    (settings.listen, settings.signing_keys) = (address, vec![key()]);
    let issuer = Issuer::start(settings).await.unwrap();
    assert_eq!(issuer.url(), caller.url);
    caller.claims(answered.token()).await.unwrap();
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let caller = Caller::new("laptop");
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:127.0.0.1]:0"] {
        let mut settings = IssuerSettings::new(vec![registered(&caller)]);
        settings.listen = listen.parse().unwrap();
        let refused = Issuer::start(settings).await.unwrap_err();
        assert!(matches!(refused, StartError::NotLoopback(_)), "{listen}");
        assert!(refused.to_string().contains("loopback"));
    }
    let Laptop { issuer, .. } = Laptop::start().await;
    let mut settings = IssuerSettings::new(vec![]);
    settings.listen = issuer.address();
    let refused = Issuer::start(settings).await.unwrap_err();
    assert!(matches!(refused, StartError::Bind { .. }), "{refused}");
}
