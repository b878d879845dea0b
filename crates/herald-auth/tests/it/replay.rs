//! A proof counts once.

use std::time::Duration;

use herald_auth::{
    Address, Authenticator, Caller, Check, Denied, IssuerKeys, KeysSettings, Presented, ProofOf,
    ProofRules, Prover, Rules,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    issuer::{DISCOVERY, KEYS, discovery},
    site::{Answer, Site},
    support::{Parties, key_set_text, now},
};

/// A server that believes an issuer, with room for `replays_max` proofs.
struct Server {
    site: Site,
    parties: Parties,
    authenticator: Authenticator,
}

impl Server {
    async fn start(replays_max: usize) -> Self {
        let (site, parties) = (Site::start().await, Parties::new());
        site.put(DISCOVERY, discovery(&site.url(""), &site.url(KEYS)));
        site.put(KEYS, Answer::json(key_set_text(&[&parties.issuer])));
        let keys = IssuerKeys::new(&site.url(""), KeysSettings::default()).unwrap();
        let fresh = keys.clone();
        tokio::spawn(async move { fresh.keep_fresh().await });
        keys.known().await;
        let token = Parties::token_rules();
        let token = herald_auth::TokenRules { issuer: site.url(""), ..token };
        let rules = Rules { token, proof: ProofRules::default(), replays_max };
        Self { site, parties, authenticator: Authenticator::new(keys, rules) }
    }

    fn token(&self, prover: &Prover, id: &str) -> String {
        let cnf = json!({"jkt": prover.thumbprint()});
        self.parties.token(&json!({"iss": self.site.url(""), "cnf": cnf, "jti": id}))
    }

    async fn check(&self, path: &str, token: &str, proof: &str, now: Timestamp) -> Caller {
        let address = Address::parse(&format!("https://api.example.no{path}")).unwrap();
        let authorization = format!("dPoP {token}");
        let presented = Presented {
            authorization: Some(authorization.as_bytes()),
            proof: Some(proof.as_bytes()),
            method: "GET",
            address: Some(&address),
        };
        self.authenticator.check(presented, now).await.unwrap()
    }
}

fn replayed(outcome: Result<(), Denied>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(Denied::Refused(refused)) if refused.check == Check::ProofReplay => true,
        Err(other) => panic!("{other:?}"),
    }
}

fn proof(prover: &Prover, path: &str, token: &str) -> String {
    let url = format!("https://api.example.no{path}");
    let of = ProofOf { method: "GET", url: &url, token: Some(token), nonce: None };
    prover.proof(of, now()).unwrap()
}

#[tokio::test]
async fn the_same_proof_twice_is_refused_for_as_long_as_it_would_be_taken() {
    let server = Server::start(10).await;
    let prover = Prover::new().unwrap();
    let token = server.token(&prover, "t1");
    let text = proof(&prover, "/notifications", &token);
    let began = Instant::now();
    let at = |seconds: f64| {
        let since = SignedDuration::try_from_secs_f64(seconds).unwrap();
        (now() + since, began + Duration::from_secs_f64(seconds + 5.0))
    };
    // The earliest moment at which it is taken, and the latest.
    for (seconds, is_replayed) in [(-5.0, false), (-5.0, true), (0.0, true), (6.999, true)] {
        let (wall, clock) = at(seconds);
        let caller = server.check("/notifications", &token, &text, wall).await;
        let outcome = server.authenticator.use_up(&caller, clock);
        assert_eq!(replayed(outcome), is_replayed, "{seconds}");
    }
}

#[tokio::test]
async fn a_proof_that_was_looked_at_in_its_last_moment_is_not_new_a_moment_later() {
    let server = Server::start(10).await;
    let prover = Prover::new().unwrap();
    let token = server.token(&prover, "t1");
    let text = proof(&prover, "/notifications", &token);
    let began = Instant::now();
    let first = now() - SignedDuration::from_secs(5);
    let last = now() + SignedDuration::from_millis(6999);
    let caller = server.check("/notifications", &token, &text, first).await;
    assert!(!replayed(server.authenticator.use_up(&caller, began)));
    let caller = server.check("/notifications", &token, &text, last).await;
    let later = began + Duration::from_millis(11_999 + 900);
    assert!(replayed(server.authenticator.use_up(&caller, later)));
    assert_eq!(server.authenticator.replays(later), 1);
    assert_eq!(server.authenticator.replays(later + Duration::from_secs(1)), 0);
}

#[tokio::test]
async fn a_name_counts_once_for_a_key_whatever_the_path_or_the_token() {
    let server = Server::start(10).await;
    let keys = [(); 2].map(|()| herald_auth::PrivateKey::generate(herald_auth::KeyKind::P256));
    let [one, other] = keys.map(Result::unwrap);
    let began = Instant::now();
    for (key, path, id, is_replayed) in [
        (&one, "/notifications", "t1", false),
        (&one, "/notifications/stream", "t1", true),
        (&one, "/notifications", "t2", true),
        (&other, "/notifications", "t1", false),
        (&other, "/notifications/stream", "t2", true),
    ] {
        let cnf = json!({"jkt": key.public().thumbprint()});
        let claims = json!({"iss": server.site.url(""), "cnf": cnf, "jti": id});
        let token = server.parties.token(&claims);
        let header =
            json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": crate::support::public_jwk(key)});
        let url = format!("https://api.example.no{path}");
        let claims = crate::support::with(Parties::proof_claims(&token), &json!({ "htu": url }));
        let (header, claims) = (header.to_string(), claims.to_string());
        let algorithm = herald_auth::Algorithm::Es256;
        let text = crate::support::signed_text(key, algorithm, &header, &claims);
        let caller = server.check(path, &token, &text, now()).await;
        let outcome = server.authenticator.use_up(&caller, began);
        assert_eq!(replayed(outcome), is_replayed, "{path} {id}");
    }
}

#[tokio::test]
async fn over_the_bound_a_new_proof_is_refused_and_an_old_one_not_forgotten() {
    let server = Server::start(2).await;
    let prover = Prover::new().unwrap();
    let token = server.token(&prover, "t1");
    let (mut callers, began) = (Vec::new(), Instant::now());
    for _ in 0..3 {
        let text = proof(&prover, "/notifications", &token);
        callers.push(server.check("/notifications", &token, &text, now()).await);
    }
    let [one, two, three] = &callers[..] else { panic!("three callers") };
    assert_eq!(server.authenticator.use_up(one, began), Ok(()));
    assert_eq!(server.authenticator.use_up(two, began), Ok(()));
    assert_eq!(server.authenticator.use_up(three, began), Err(Denied::ReplaysFull));
    assert!(replayed(server.authenticator.use_up(one, began)));
    assert_eq!(server.authenticator.replays(began), 2);
}
