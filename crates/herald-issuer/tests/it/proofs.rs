//! What binds a token to a key.

use std::time::Duration;

use herald_auth::ProofOf;
use jiff::Timestamp;

use crate::support::{Caller, Laptop};

async fn ask(caller: &Caller, proofs: &[String]) -> crate::support::Answered {
    caller.post(caller.form(&caller.assertion(), ""), proofs).await
}

#[tokio::test]
async fn without_a_nonce_that_is_known_a_client_is_told_one() {
    let Laptop { issuer, caller } = Laptop::start().await;
    for nonce in [None, Some(""), Some("made up")] {
        let answered = ask(&caller, &[caller.proof(nonce)]).await;
        answered.assert_refused("use_dpop_nonce", "DPoP-Nonce");
        assert_eq!(answered.headers["cache-control"], "no-store");
        ask(&caller, &[caller.proof(answered.nonce())]).await.token();
    }
    let nonce = caller.nonce().await;
    ask(&caller, &[caller.proof(Some(&nonce))]).await.token();
    issuer.renew_nonces().unwrap();
    let answered = ask(&caller, &[caller.proof(Some(&nonce))]).await;
    answered.assert_refused("use_dpop_nonce", "");
    ask(&caller, &[caller.proof(answered.nonce())]).await.token();
}

#[tokio::test]
async fn a_nonce_of_the_period_before_is_taken_and_another_handed_out() {
    let Laptop { issuer: _issuer, caller } = Laptop::start_with(|settings| {
        settings.nonce_period = Duration::from_secs(1);
    })
    .await;
    // Sooner or later a period ends between the two; how long that takes does not matter.
    let next = loop {
        let nonce = caller.nonce().await;
        let answered = ask(&caller, &[caller.proof(Some(&nonce))]).await;
        if let (200, Some(next)) = (answered.status.as_u16(), answered.nonce()) {
            assert_ne!(next, nonce);
            break next.to_owned();
        }
    };
    let answered = ask(&caller, &[caller.proof(Some(&next))]).await;
    assert!(answered.status == 200 || answered.body["error"] == "use_dpop_nonce");
}

#[tokio::test]
async fn there_must_be_one_proof_for_this_request() {
    let Laptop { issuer: _issuer, caller } = Laptop::start().await;
    let now = Timestamp::now();
    let (nonce, url) = (caller.nonce().await, caller.endpoint());
    let proof = |method, url: &str, now| {
        let of = ProofOf { method, url, token: None, nonce: Some(&nonce) };
        caller.prover.proof(of, now).unwrap()
    };
    let good = || proof("POST", &url, now);
    let one = "one header DPoP";
    for (proofs, description) in [
        (vec![], one),
        (vec![good(), good()], one),
        (vec!["x".to_owned()], "three parts"),
        (vec![caller.assertion()], "typ"),
        (vec![proof("GET", &url, now)], "htm"),
        (vec![proof("POST", &caller.url, now)], "htu"),
        (vec![proof("POST", &url.replace("127.0.0.1", "localhost"), now)], "htu"),
        (vec![proof("POST", &url, now - Duration::from_secs(3600))], "iat"),
        (vec![proof("POST", &url, now + Duration::from_secs(3600))], "iat"),
    ] {
        let answered = ask(&caller, &proofs).await;
        answered.assert_refused("invalid_dpop_proof", description);
    }
    let proof = caller.proof(Some(&nonce));
    ask(&caller, std::slice::from_ref(&proof)).await.token();
    let again = ask(&caller, &[proof]).await;
    again.assert_refused("invalid_dpop_proof", "jti was used before");
}
