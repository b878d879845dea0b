//! `herald dev issuer`: what it makes, what it says, and how it ends.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{fs, path::Path};

use herald_auth::{Algorithm, KeySet, PrivateKey, ProofOf, Prover, assertion};
use jiff::Timestamp;
use serde_json::Value;

use crate::support::{
    cli::{Running, run},
    http::client,
};

/// An issuer with files of its own.
struct Issuer {
    running: Running,
    /// Its base URL.
    url: String,
    /// All that it has printed, which is all that it prints.
    greeting: String,
}

fn start(flags: &[&str]) -> Issuer {
    let mut running =
        Running::start(&[&["dev", "issuer", "--listen", "127.0.0.1:0"], flags].concat());
    let mut greeting = String::new();
    while !greeting.ends_with("Ctrl-C ends it.\n") {
        greeting.push_str(&running.line().expect("it says where it is"));
        greeting.push('\n');
    }
    let url = greeting.lines().next().unwrap().strip_prefix("The issuer is ").unwrap().to_owned();
    Issuer { running, url, greeting }
}

fn start_in(dir: &Path) -> Issuer {
    start(&["--dir", dir.to_str().unwrap()])
}

async fn get(url: &str) -> Value {
    let answer = client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// A token for the client whose key is in `key_file`, with all that was sent for it, and what it says.
async fn token(url: &str, key_file: &Path) -> (Vec<String>, Value) {
    let configuration = get(&format!("{url}/.well-known/openid-configuration")).await;
    let endpoint = configuration["token_endpoint"].as_str().unwrap();
    let key: PrivateKey = fs::read_to_string(key_file).unwrap().parse().unwrap();
    let prover = Prover::new().unwrap();
    let (mut nonce, mut secrets) = (None::<String>, Vec::new());
    let body: Value = loop {
        let of = ProofOf { method: "POST", url: endpoint, token: None, nonce: nonce.as_deref() };
        let proof = prover.proof(of, Timestamp::now()).unwrap();
        let assertion = assertion(&key, "laptop", url, Timestamp::now()).unwrap();
        secrets.extend([proof.clone(), assertion.clone()]);
        let form = format!(
            "grant_type=client_credentials&client_assertion={assertion}&client_assertion_type=\
             urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        );
        let post = client().post(endpoint).header("dpop", proof).body(form);
        let post = post.header("content-type", "application/x-www-form-urlencoded");
        let answer = post.send().await.unwrap();
        let next = answer.headers().get("dpop-nonce").map(|nonce| nonce.to_str().unwrap().into());
        let body = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        if nonce.is_some() || next.is_none() {
            break body;
        }
        nonce = next;
    };
    let token = body["access_token"].as_str().unwrap_or_else(|| panic!("{body}"));
    let keys = get(configuration["jwks_uri"].as_str().unwrap()).await.to_string();
    let claims = KeySet::parse(keys.as_bytes()).unwrap().verify(token, &Algorithm::ALL).unwrap();
    secrets.insert(0, token.to_owned());
    (secrets, claims)
}

#[tokio::test]
async fn the_first_start_makes_all_that_is_needed_and_says_what_to_run() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("my issuer");
    let issuer = start_in(&dir);
    let (url, shown) = (&issuer.url, dir.display());
    let as_laptop = format!(
        "--helseid-issuer {url} --helseid-client-id laptop \\\n    --helseid-key-file '{shown}/laptop-key.json'"
    );
    for command in [
        format!(
            "  herald serve --auth helseid --issuer {url} \\\n    --organisations '{shown}/organisations.json'\n"
        ),
        format!("  herald poll --her-id 8139764 --offset 0 \\\n    {as_laptop}\n"),
        format!("  herald stream --her-id 8139764 --offset 0 \\\n    {as_laptop}"),
    ] {
        assert!(issuer.greeting.contains(&command), "{} has no {command}", issuer.greeting);
    }
    let organisations = fs::read_to_string(dir.join("organisations.json")).unwrap();
    let organisations: Value = serde_json::from_str(&organisations).unwrap();
    assert_eq!(organisations["310000000"][0], 8_139_764);

    let (sent, claims) = token(url, &dir.join("laptop-key.json")).await;
    assert_eq!(claims["aud"], "nhn:msh");
    assert_eq!(
        claims["scope"],
        serde_json::json!(["nhn:msh/api", "nhn:msh/notifications-publish"])
    );
    assert_eq!(claims["nhn:msh/client/claims/herid"], "0");
    assert_eq!(claims["helseid://claims/client/claims/orgnr_parent"], "310000000");

    // Used once more, it is refused, and that is logged as well.
    let refused = client().post(format!("{url}/connect/token")).header("dpop", &sent[1]);
    let refused = refused.header("content-type", "application/x-www-form-urlencoded");
    let form = format!("grant_type=client_credentials&client_assertion={}", sent[2]);
    assert_eq!(refused.body(form).send().await.unwrap().status(), 400);

    issuer.running.signal("TERM");
    let ended = issuer.running.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    for said in ["token issued", "token refused"] {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let secret_of = |file: &str| {
        let key: Value =
            serde_json::from_str(&fs::read_to_string(dir.join(file)).unwrap()).unwrap();
        key["d"].as_str().unwrap().to_owned()
    };
    let keys = [secret_of("laptop-key.json"), secret_of("signing-key.json")];
    // The first part of an object is not its secret, and nearly the same in all.
    let parts = sent.iter().flat_map(|object| object.split('.').skip(1));
    for secret in parts.chain(keys.iter().map(String::as_str)) {
        assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_later_start_has_the_same_keys_and_a_hang_up_changes_the_one_that_signs() {
    let home = tempfile::tempdir().unwrap();
    let key_file = home.path().join("laptop-key.json");
    let kid = |keys: Value| keys["keys"][0]["kid"].clone();
    let first = start_in(home.path());
    let keys = format!("{}/.well-known/openid-configuration/jwks", first.url);
    let before = kid(get(&keys).await);
    let (old, _) = token(&first.url, &key_file).await;
    first.running.signal("HUP");
    while kid(get(&keys).await) == before {
        tokio::task::yield_now().await;
    }
    let (_, claims) = token(&first.url, &key_file).await;
    assert_eq!(claims["client_id"], "laptop");
    let both = KeySet::parse(get(&keys).await.to_string().as_bytes()).unwrap();
    both.verify::<Value>(&old[0], &Algorithm::ALL).unwrap();
    first.running.signal("INT");
    assert_eq!(first.running.wait().code, 0);

    let second = start_in(home.path());
    let keys = format!("{}/.well-known/openid-configuration/jwks", second.url);
    assert_eq!(kid(get(&keys).await), before);
    token(&second.url, &key_file).await;
}

#[tokio::test]
async fn clients_and_keys_of_ones_own_are_used_and_nothing_is_made() {
    let home = tempfile::tempdir().unwrap();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../herald-auth/tests/keys");
    let clients = home.path().join("clients.json");
    let pem = fs::read_to_string(keys.join("p384.public.pem")).unwrap();
    let client = serde_json::json!({
        "client_id": "laptop", "key_pem": pem, "scopes": ["a"], "lifetime": "30s",
    });
    fs::write(&clients, serde_json::json!({ "clients": [client] }).to_string()).unwrap();
    let rsa = keys.join("rsa.pkcs8.pem");
    let flags = ["--clients", clients.to_str().unwrap(), "--signing-key", rsa.to_str().unwrap()];
    let issuer = start(&[&flags[..], &["--algorithm", "PS512"]].concat());
    let (_, claims) = token(&issuer.url, &keys.join("p384.pkcs8.pem")).await;
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 30);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn what_is_in_the_way_of_a_start_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("broken"), "{}").unwrap();
    for (flags, what) in [
        (["--clients", &path("missing")], "could not read the clients from"),
        (["--clients", &path("broken")], "missing field `clients`"),
        (["--signing-key", &path("missing")], "could not read a signing key from"),
        (["--signing-key", &path("broken")], "the JWK has no private part"),
        (["--dir", &path("broken")], "could not use"),
    ] {
        let dir = path("unused");
        let mut args = vec!["dev", "issuer", "--listen", "127.0.0.1:0"];
        args.extend(flags);
        if flags[0] == "--signing-key" {
            args.extend(["--dir", &dir]);
        }
        let ended = run(&args);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{flags:?}: {}", ended.stderr);
        assert!(ended.last_word().contains(what), "{flags:?}: {}", ended.stderr);
    }
    assert!(!Path::new(&path("unused")).exists());
}
