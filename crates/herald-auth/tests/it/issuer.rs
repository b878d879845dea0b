//! An issuer's keys over real sockets: found, kept, renewed, and asked for no more often than is agreed.

use std::{sync::Arc, time::Duration};

use herald_auth::{
    Address, Authenticator, Caller, Check, Denied, FETCH_TIMEOUT, IssuerKeys, KeyKind, KeySet,
    KeysSettings, Presented, PrivateKey, ProofOf, ProofRules, Prover, REPLAYS_MAX, Rules,
    TokenRules,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    time::{Instant, advance},
};

use crate::{
    site::{Answer, Site, hold_clock, until},
    support::{ADDRESS, Parties, key_set_text, now, with},
};

pub(crate) const DISCOVERY: &str = "/.well-known/openid-configuration";
pub(crate) const KEYS: &str = "/keys";
const MINUTE: Duration = Duration::from_secs(60);

/// An issuer on a socket of its own, and a server that believes it.
struct Issuer {
    site: Site,
    keys: IssuerKeys,
    authenticator: Arc<Authenticator>,
    prover: Prover,
    parties: Parties,
}

impl Issuer {
    /// Keys are published, and nobody has asked for them.
    async fn start(settings: KeysSettings) -> Self {
        let (site, parties) = (Site::start().await, Parties::new());
        site.put(DISCOVERY, discovery(&site.url(""), &site.url(KEYS)));
        site.put(KEYS, Answer::json(key_set_text(&[&parties.issuer])));
        let keys = IssuerKeys::new(&site.url(""), settings).unwrap();
        let rules = Rules {
            token: TokenRules { issuer: site.url(""), ..Parties::token_rules() },
            proof: ProofRules::default(),
            replays_max: REPLAYS_MAX,
        };
        let authenticator = Arc::new(Authenticator::new(keys.clone(), rules));
        Self { site, keys, authenticator, prover: Prover::new().unwrap(), parties }
    }

    /// The same, and the server knows the keys and keeps them fresh.
    async fn known() -> Self {
        Self::known_with(KeysSettings::default()).await
    }

    async fn known_with(settings: KeysSettings) -> Self {
        let issuer = Self::start(settings).await;
        let keys = issuer.keys.clone();
        tokio::spawn(async move { keys.keep_fresh().await });
        issuer.keys.known().await;
        issuer
    }

    /// A token signed by `key`.
    fn token(&self, key: &PrivateKey, changes: &Value) -> String {
        let own = json!({"iss": self.site.url(""), "cnf": {"jkt": self.prover.thumbprint()}});
        let claims = with(with(self.parties.claims(), &own), changes).to_string();
        let header = json!({"alg": "ES256", "kid": key.kid()}).to_string();
        crate::support::signed_text(key, herald_auth::Algorithm::Es256, &header, &claims)
    }

    async fn call(&self, token: &str, now: Timestamp) -> Result<Caller, Denied> {
        let of = ProofOf { method: "GET", url: ADDRESS, token: Some(token), nonce: None };
        let proof = self.prover.proof(of, now).unwrap();
        self.call_with(token, &proof, now).await
    }

    async fn call_with(&self, token: &str, proof: &str, now: Timestamp) -> Result<Caller, Denied> {
        let address = Address::parse(ADDRESS).unwrap();
        let authorization = format!("DPoP {token}");
        let presented = Presented {
            authorization: Some(authorization.as_bytes()),
            proof: Some(proof.as_bytes()),
            method: "GET",
            address: Some(&address),
        };
        self.authenticator.check(presented, now).await
    }

    /// What becomes of a call with a token that `key` has signed.
    async fn outcome(&self, key: &PrivateKey) -> Option<Check> {
        refusal(self.call(&self.token(key, &json!({})), now()).await)
    }
}

pub(crate) fn discovery(issuer: &str, keys: &str) -> Answer {
    Answer::json(json!({"issuer": issuer, "jwks_uri": keys}).to_string())
}

fn refusal(outcome: Result<Caller, Denied>) -> Option<Check> {
    match outcome {
        Ok(_) => None,
        Err(Denied::Refused(refused)) => Some(refused.check),
        Err(other) => panic!("{other:?}"),
    }
}

/// A document with spaces behind it.
fn padded(text: &str, len: usize) -> String {
    format!("{text}{}", " ".repeat(len - text.len()))
}

fn new_key(kid: &str) -> PrivateKey {
    PrivateKey::generate(KeyKind::P256).unwrap().named(kid)
}

#[tokio::test(start_paused = true)]
async fn before_the_keys_are_known_nobody_is_let_in_and_then_those_who_wait_wake() {
    let _clock = hold_clock();
    let issuer = Issuer::start(KeysSettings::default()).await;
    issuer.site.put(DISCOVERY, Answer::status(503));
    let keys = issuer.keys.clone();
    tokio::spawn(async move { keys.keep_fresh().await });
    issuer.site.asked(DISCOVERY, 1).await;
    let token = issuer.token(&issuer.parties.issuer, &json!({}));
    assert_eq!(issuer.call(&token, now()).await.unwrap_err(), Denied::NoKeys);
    issuer.site.put(DISCOVERY, discovery(&issuer.site.url("/"), &issuer.site.url(KEYS)));
    let keys = issuer.keys.clone();
    let waiting = tokio::spawn(async move { keys.known().await });
    // It is tried again without anybody asking. The second goes by bit by bit, since it may not have begun.
    until(|| true).await;
    while issuer.site.count(KEYS) == 0 {
        advance(Duration::from_millis(100)).await;
    }
    waiting.await.unwrap();
    assert!(issuer.call(&token, now()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_known_is_asked_for_once_by_all_and_again_after_a_minute() {
    let _clock = hold_clock();
    let issuer = Issuer::known().await;
    let unknown = new_key("unknown");
    // Right after the start as well: only what was asked because a key was not known counts for the minute.
    assert_eq!(issuer.outcome(&unknown).await, Some(Check::TokenKey));
    assert_eq!(issuer.site.count(KEYS), 2);
    let issuer = Arc::new(issuer);
    let mut fetches = 2;
    for pause in [MINUTE, Duration::from_secs(59), Duration::from_secs(1)] {
        advance(pause).await;
        fetches += usize::from(pause != Duration::from_secs(59));
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (issuer, token) = (issuer.clone(), issuer.token(&unknown, &json!({})));
                tokio::spawn(async move { issuer.call(&token, now()).await })
            })
            .collect();
        for call in calls {
            assert_eq!(refusal(call.await.unwrap()), Some(Check::TokenKey));
        }
        assert_eq!(issuer.site.count(KEYS), fetches, "{pause:?}");
        assert_eq!(issuer.outcome(&issuer.parties.issuer).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_when_a_token_names_it() {
    let _clock = hold_clock();
    let issuer = Issuer::known().await;
    let new = new_key("k2");
    issuer.site.put(KEYS, Answer::json(key_set_text(&[&issuer.parties.issuer, &new])));
    advance(MINUTE).await;
    assert_eq!(issuer.outcome(&new).await, None);
    assert_eq!(issuer.outcome(&issuer.parties.issuer).await, None);
    assert_eq!(issuer.site.count(KEYS), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_end_the_fetch_that_all_wait_for() {
    let _clock = hold_clock();
    let issuer = Arc::new(Issuer::known().await);
    let new = new_key("k2");
    let permits = Arc::new(Semaphore::new(0));
    let keys = Answer::json(key_set_text(&[&new]));
    issuer.site.put(KEYS, Answer::When(permits.clone(), Box::new(keys)));
    advance(MINUTE).await;
    let (leaving, token) = (issuer.clone(), issuer.token(&new, &json!({})));
    let leaving = tokio::spawn(async move { leaving.call(&token, now()).await });
    issuer.site.asked(KEYS, 2).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    permits.add_permits(1);
    assert_eq!(issuer.outcome(&new).await, None);
    assert_eq!(issuer.site.count(KEYS), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_issuer_holds_a_caller_no_longer_than_one_fetch_may_take() {
    let _clock = hold_clock();
    let issuer = Arc::new(Issuer::known().await);
    let permits = Arc::new(Semaphore::new(0));
    let slow = discovery(&issuer.site.url(""), &issuer.site.url(KEYS));
    issuer.site.put(DISCOVERY, Answer::When(permits.clone(), Box::new(slow)));
    issuer.site.put(KEYS, Answer::Silent);
    advance(MINUTE).await;
    let (calling, token) = (issuer.clone(), issuer.token(&new_key("k2"), &json!({})));
    let calling = tokio::spawn(async move { calling.call(&token, now()).await });
    issuer.site.asked(DISCOVERY, 2).await;
    advance(FETCH_TIMEOUT - Duration::from_secs(1)).await;
    permits.add_permits(1);
    issuer.site.asked(KEYS, 2).await;
    advance(Duration::from_secs(1)).await;
    assert_eq!(refusal(calling.await.unwrap()), Some(Check::TokenKey));
    // And the keys that are known stay in force meanwhile and after.
    assert_eq!(issuer.outcome(&issuer.parties.issuer).await, None);
}

#[tokio::test(start_paused = true)]
async fn time_goes_on_for_a_call_that_waits_for_a_key() {
    let _clock = hold_clock();
    let issuer = Arc::new(Issuer::known().await);
    let new = new_key("k2");
    let permits = Arc::new(Semaphore::new(0));
    let keys = Answer::json(key_set_text(&[&new]));
    issuer.site.put(KEYS, Answer::When(permits.clone(), Box::new(keys)));
    advance(MINUTE).await;
    let expires = now().as_second() + 2 - 5;
    let (calling, token) = (issuer.clone(), issuer.token(&new, &json!({ "exp": expires })));
    let calling = tokio::spawn(async move { calling.call(&token, now()).await });
    issuer.site.asked(KEYS, 2).await;
    advance(Duration::from_secs(3)).await;
    permits.add_permits(1);
    assert_eq!(refusal(calling.await.unwrap()), Some(Check::TokenLifetime));
}

#[tokio::test(start_paused = true)]
async fn a_proof_of_a_call_that_waited_for_a_key_is_remembered_from_the_end_of_the_wait() {
    let _clock = hold_clock();
    let issuer = Arc::new(Issuer::known().await);
    let new = new_key("k2");
    let permits = Arc::new(Semaphore::new(0));
    let keys = Answer::json(key_set_text(&[&new]));
    issuer.site.put(KEYS, Answer::When(permits.clone(), Box::new(keys)));
    advance(MINUTE).await;
    let arrived = Instant::now();
    let token = issuer.token(&new, &json!({}));
    let at = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
    // After a wait of 4 seconds the client's clock is the 5 seconds ahead that are allowed.
    let of = ProofOf { method: "GET", url: ADDRESS, token: Some(&token), nonce: None };
    let proof = issuer.prover.proof(of, at(9)).unwrap();
    let (calling, text) = (issuer.clone(), (token.clone(), proof.clone()));
    let calling =
        tokio::spawn(async move { calling.call_with(&text.0, &text.1, now()).await.unwrap() });
    issuer.site.asked(KEYS, 2).await;
    advance(Duration::from_secs(4)).await;
    permits.add_permits(1);
    let caller = calling.await.unwrap();
    issuer.authenticator.use_up(&caller, arrived).unwrap();
    advance(Duration::from_secs(11)).await;
    let caller = issuer.call_with(&token, &proof, at(15)).await.unwrap();
    let replayed = issuer.authenticator.use_up(&caller, Instant::now());
    assert!(matches!(replayed, Err(Denied::Refused(_))), "{replayed:?}");
}

#[tokio::test(start_paused = true)]
async fn known_keys_outlive_an_outage_of_the_issuer() {
    let _clock = hold_clock();
    let day = Duration::from_secs(24 * 60 * 60);
    // Nothing is fetched but what this test asks for.
    let issuer =
        Issuer::known_with(KeysSettings { refresh_interval: day, ..KeysSettings::default() }).await;
    let good = key_set_text(&[&issuer.parties.issuer]);
    let odd_keys = json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "k1"}]}).to_string();
    let mut asked = 1;
    for (path, answer) in [
        (DISCOVERY, Answer::status(500)),
        (DISCOVERY, Answer::status(304)),
        (DISCOVERY, Answer::json("<html>")),
        (DISCOVERY, Answer::json(r#"["issuer","jwks_uri"]"#)),
        (DISCOVERY, Answer::json(r#"{"issuer":"x"}"#)),
        (DISCOVERY, discovery("https://other.example", &issuer.site.url(KEYS))),
        (DISCOVERY, discovery(&issuer.site.url("/x"), &issuer.site.url(KEYS))),
        (DISCOVERY, discovery(&issuer.site.url(""), "http://192.0.2.1/keys")),
        (DISCOVERY, discovery(&issuer.site.url(""), "http://localhost.example/keys")),
        (DISCOVERY, discovery(&issuer.site.url(""), "file:///etc/passwd")),
        (DISCOVERY, discovery(&issuer.site.url(""), "/keys")),
        (
            DISCOVERY,
            Answer::Is(302, format!("location: {}\r\n", issuer.site.url("/there")), vec![]),
        ),
        (KEYS, Answer::Is(307, format!("location: {}\r\n", issuer.site.url("/there")), vec![])),
        (KEYS, Answer::status(404)),
        (KEYS, Answer::json("")),
        (KEYS, Answer::json(r#"{"keys":[]}"#)),
        (KEYS, Answer::json(odd_keys)),
        (KEYS, Answer::json("[[]]")),
        (KEYS, Answer::Endless),
        (KEYS, Answer::json(padded(&good, 1024 * 1024 + 1))),
    ] {
        issuer.site.put(DISCOVERY, discovery(&issuer.site.url(""), &issuer.site.url(KEYS)));
        issuer.site.put(KEYS, Answer::json(good.clone()));
        issuer.site.put(path, answer);
        issuer.site.put("/there", Answer::json(key_set_text(&[&new_key("there")])));
        let seen = issuer.keys.current().unwrap();
        advance(MINUTE).await;
        assert!(issuer.keys.newer(&seen).await.is_none());
        asked += 1;
        assert_eq!(issuer.site.count(DISCOVERY), asked);
        assert_eq!(issuer.outcome(&issuer.parties.issuer).await, None);
    }
    assert_eq!(issuer.site.count("/there"), 0);
    // The largest document that is taken.
    issuer.site.put(KEYS, Answer::json(padded(&good, 1024 * 1024)));
    advance(MINUTE).await;
    assert!(issuer.keys.newer(&issuer.keys.current().unwrap()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_withdrawn_is_not_believed_after_the_next_refresh() {
    let _clock = hold_clock();
    let issuer = Issuer::known().await;
    let new = new_key("k2");
    issuer.site.put(KEYS, Answer::json(key_set_text(&[&new])));
    let before = issuer.keys.current().unwrap();
    advance(KeysSettings::default().refresh_interval - Duration::from_secs(1)).await;
    assert_eq!(issuer.outcome(&issuer.parties.issuer).await, None);
    advance(Duration::from_secs(1)).await;
    until(|| !Arc::ptr_eq(&before, &issuer.keys.current().unwrap())).await;
    assert_eq!(issuer.outcome(&issuer.parties.issuer).await, Some(Check::TokenKey));
    assert_eq!(issuer.outcome(&new).await, None);
}

#[tokio::test]
async fn the_issuer_is_compared_as_it_is_written_in_the_settings() {
    let site = Site::start().await;
    let port = site.url("").rsplit_once(':').unwrap().1.to_owned();
    let issuer = format!("http://LOCALHOST:{port}");
    site.put(DISCOVERY, discovery(&issuer, &site.url(KEYS)));
    site.put(KEYS, Answer::json(key_set_text(&[&new_key("k1")])));
    let keys = IssuerKeys::new(&issuer, KeysSettings::default()).unwrap();
    let fresh = keys.clone();
    tokio::spawn(async move { fresh.keep_fresh().await });
    keys.known().await;
}

#[tokio::test]
async fn only_the_scheme_dpop_is_taken_in_any_case_and_a_proof_must_be_there() {
    let issuer = Issuer::known().await;
    let token = issuer.token(&issuer.parties.issuer, &json!({}));
    let of = ProofOf { method: "GET", url: ADDRESS, token: Some(&token), nonce: None };
    let proof = issuer.prover.proof(of, now()).unwrap();
    let address = Address::parse(ADDRESS).unwrap();
    let good = format!("DPoP {token}");
    let check = async |authorization: Option<&[u8]>, proof, address| {
        let presented = Presented { authorization, proof, method: "GET", address };
        refusal(issuer.authenticator.check(presented, now()).await)
    };
    let proof = Some(proof.as_bytes());
    for scheme in ["DPoP ", "dpop ", "DPOP ", "DPoP   "] {
        let value = format!("{scheme}{token}");
        let outcome = check(Some(value.as_bytes()), proof, Some(&address)).await;
        assert_eq!(outcome, None, "{scheme}");
    }
    for scheme in ["Bearer ", "bearer ", "Basic ", "", " ", " DPoP ", "DPoP\t", "DPoP", "DPoP, "] {
        let value = format!("{scheme}{token}");
        let outcome = check(Some(value.as_bytes()), proof, Some(&address)).await;
        assert_eq!(outcome, Some(Check::Scheme), "{scheme:?}");
    }
    for value in ["DPoP ", "DPoP  ", "DPoP x", &format!("{good}, {good}"), &format!("{good} ")] {
        let outcome = check(Some(value.as_bytes()), proof, Some(&address)).await;
        assert_eq!(outcome, Some(Check::TokenForm), "{value:.20}");
    }
    assert_eq!(check(None, proof, Some(&address)).await, Some(Check::Scheme));
    assert_eq!(check(Some(b"DPoP \xFF"), proof, Some(&address)).await, Some(Check::Scheme));
    let good = Some(good.as_bytes());
    assert_eq!(check(good, None, Some(&address)).await, Some(Check::ProofForm));
    assert_eq!(check(good, Some(b"\xFF"), Some(&address)).await, Some(Check::ProofForm));
    assert_eq!(check(good, proof, None).await, Some(Check::ProofAddress));
}

#[test]
fn an_issuer_is_an_https_url_or_on_loopback() {
    let outcome = |url: &str| IssuerKeys::new(url, KeysSettings::default()).map(drop);
    for url in [
        "https://sts.example.no",
        "http://127.0.0.1:1/",
        "https://sts.example.no/x/",
        " https://a ",
    ] {
        assert!(outcome(url).is_ok(), "{url}");
    }
    for url in
        ["http://sts.example.no", "sts.example.no", "", "https://", "https://a?b", "https://u@a"]
    {
        assert!(outcome(url).is_err(), "{url}");
    }
}

#[tokio::test]
async fn an_issuer_with_a_path_is_asked_below_it() {
    let site = Site::start().await;
    site.put(
        "/base/.well-known/openid-configuration",
        discovery(&site.url("/base"), &site.url("/keys?v=1")),
    );
    site.put("/keys?v=1", Answer::json(key_set_text(&[&new_key("k1")])));
    let keys = IssuerKeys::new(&site.url("/base/"), KeysSettings::default()).unwrap();
    let fresh = keys.clone();
    tokio::spawn(async move { fresh.keep_fresh().await });
    keys.known().await;
    assert!(!KeySet::is_empty(&keys.current().unwrap()));
}
