//! Who is let in, over what, and what may be asked.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use herald_rig::{
    Certificates,
    nats::{Access, PASSWORD},
    programs,
};
use nkeys::KeyPair;

use super::*;

fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts))
}

fn with_user(url: &str, user: &str) -> String {
    without_user(url).replacen("://", &format!("://{user}@"), 1)
}

#[tokio::test]
async fn a_user_or_a_token_is_let_in_and_no_other() {
    for (access, right, wrong) in [
        (Access::Password, format!("herald:{PASSWORD}"), "herald:wr0ng"),
        (Access::Token, PASSWORD.to_owned(), "wr0ng"),
    ] {
        let settings = Settings { nodes: 1, access, ..Settings::default() };
        let cluster = settings.start().await.unwrap();
        let url = cluster.url();
        assert_eq!(engine(&with_user(&url, &right)).look().await.unwrap(), None);
        for user in [Some(wrong), None] {
            let url = user.map_or_else(|| without_user(&url), |user| with_user(&url, user));
            let engine = engine(&url);
            let error = unfit(engine.look().await);
            assert!(error.contains("does not let Herald in"), "{error}");
            assert!(!error.contains("wr0ng") && !engine.address().contains("wr0ng"), "{error}");
            let outcome = engine.append(&entry(1)).await;
            assert!(
                matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
                "{outcome:?}"
            );
        }
        if access == Access::Password {
            let error = unfit(engine(&cluster.system_url()).look().await);
            assert!(error.contains("JetStream is not enabled"), "{error}");
        }
    }
}

#[tokio::test]
async fn tls_is_spoken_with_servers_whose_certificate_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let tls = Certificates::make(dir.path()).unwrap();
    let settings = Settings { nodes: 1, tls: Some(tls.clone()), ..Settings::default() };
    let cluster = settings.start().await.unwrap();
    let with_ca = |ca_file: Option<PathBuf>, url: &str| {
        engine_with(url, &EngineSettings { ca_file, credentials_file: None, retention: None })
    };
    let url = cluster.url();
    assert!(url.starts_with("tls://"), "{url}");
    let engine = with_ca(Some(tls.ca.clone()), &url);
    engine.create(&identity(1)).await.unwrap();
    engine.look().await.unwrap().unwrap();
    append_all(&engine, 1..=2).await;
    let plain = url.replacen("tls://", "nats://", 1);
    with_ca(Some(tls.ca.clone()), &plain).look().await.expect("the server asks for TLS by itself");

    let other = tempfile::tempdir().unwrap();
    let stranger = Certificates::make(other.path()).unwrap().ca;
    let error = unfit(with_ca(Some(stranger), &url).look().await);
    assert!(error.contains("can not agree on TLS"), "{error}");
    let missing = dir.path().join("missing.pem");
    let error = unfit(with_ca(Some(missing), &url).look().await);
    assert!(error.contains("missing.pem"), "{error}");
}

#[tokio::test]
async fn servers_that_can_not_be_reached_are_away() {
    for url in ["nats://127.0.0.1:1,127.0.0.1:2", "nats://no-such-host.invalid:4222"] {
        let engine = engine(url);
        let error = timeout(HANG, engine.look()).await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Away(_)), "{error}");
        let outcome = timeout(HANG, engine.append(&entry(1))).await.unwrap();
        assert!(
            matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
            "{outcome:?}"
        );
        let error = timeout(HANG, engine.follow(Position(1))).await.unwrap().map(|_| ());
        assert!(matches!(error, Err(EngineError::Away(_))), "{error:?}");
    }
}

/// A server whose users come with credentials.
struct Operated {
    server: Child,
    account: KeyPair,
    dir: tempfile::TempDir,
    url: String,
}

impl Drop for Operated {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A JWT as NATS has them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, kind: &str, mut nats: Value) -> String {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    nats["type"] = json!(kind);
    nats["version"] = json!(2);
    let claims = json!({
        "jti": Uuid::new_v4().simple().to_string(),
        "iat": 1_700_000_000,
        "iss": issuer.public_key(),
        "name": kind,
        "sub": subject.public_key(),
        "nats": nats,
    });
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signed =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    format!("{signed}.{}", BASE64.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

impl Operated {
    async fn start() -> Self {
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        });
        let dir = tempfile::tempdir().unwrap();
        let mut file = format!("operator: {}\n", jwt(&operator, &operator, "operator", json!({})));
        let system = KeyPair::new_account();
        let mut preload = String::new();
        for (key, limits) in [(&account, limits), (&system, json!({}))] {
            let text = jwt(&operator, key, "account", json!({"limits": limits}));
            writeln!(preload, "{}: {text}", key.public_key()).unwrap();
        }
        write!(
            file,
            "listen: 127.0.0.1:-1\nmax_payload: 8MB\nports_file_dir: {dir:?}\nresolver: MEMORY\n\
             system_account: {system}\nresolver_preload {{\n{preload}}}\n\
             jetstream {{ store_dir: {store:?}, sync_interval: always }}\n",
            dir = dir.path(),
            system = system.public_key(),
            store = dir.path().join("store"),
        )
        .unwrap();
        let config = dir.path().join("nats.conf");
        std::fs::write(&config, file).unwrap();
        let server = Command::new(programs::find("nats-server").unwrap())
            .arg("--config")
            .arg(config)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let url = timeout(HANG, async {
            loop {
                if let Some(url) = url_in(dir.path()) {
                    return url;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let url = url.await.unwrap();
        Self { server, account, dir, url }
    }

    /// The engine of a user with such rights.
    fn engine(&self, name: &str, rights: Value) -> Jetstream {
        let user = KeyPair::new_user();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(&self.account, &user, "user", rights),
            user.seed().unwrap(),
        );
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let settings =
            EngineSettings { ca_file: None, credentials_file: Some(file), retention: None };
        engine_with(&self.url, &settings)
    }
}

/// Where a server says that it listens.
fn url_in(dir: &Path) -> Option<String> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let ports = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "ports"))?;
    let ports: Value = serde_json::from_str(&std::fs::read_to_string(ports).ok()?).ok()?;
    Some(ports["nats"][0].as_str()?.to_owned())
}

#[tokio::test]
async fn credentials_are_let_in_and_a_missing_right_is_told_by_its_subject() {
    let mut server = Operated::start().await;
    let all = json!({"subs": -1, "data": -1, "payload": -1});
    let engine = server.engine("all.creds", all.clone());
    engine.create(&identity(1)).await.unwrap();
    engine.look().await.unwrap().unwrap();
    append_all(&engine, 1..=1).await;

    let may_not = |subject: &str| {
        let mut rights = all.clone();
        rights["pub"] = json!({"deny": [subject]});
        rights
    };
    let silent = server.engine("silent.creds", may_not("herald.batches.*"));
    let error = unfit(silent.look().await);
    assert!(
        error.contains("Permissions Violation") && error.contains("herald.batches."),
        "{error}"
    );
    let outcome = silent.append(&entry(2)).await;
    assert!(
        matches!(outcome, Err(AppendFailure::Refused(_) | AppendFailure::Away(_))),
        "{outcome:?}"
    );
    let blind = server.engine("blind.creds", may_not("$JS.API.STREAM.INFO.>"));
    let error = unfit(blind.look().await);
    assert!(error.contains("$JS.API.STREAM.INFO.HERALD"), "{error}");
    let idle = server.engine("idle.creds", may_not("$JS.API.CONSUMER.>"));
    idle.look().await.unwrap();
    let error = unfit(idle.follow(Position(1)).await.map(|_| ()));
    assert!(error.contains("$JS.API.CONSUMER.CREATE.HERALD."), "{error}");
    append_all(&idle, 2..=2).await;

    // The same file with other credentials in it counts for the next connection.
    let renewed = server.engine("renewed.creds", may_not("herald.batches.*"));
    unfit(renewed.look().await);
    drop(server.engine("renewed.creds", all));
    renewed.link.session.lock().await.take();
    renewed.look().await.unwrap().unwrap();

    let missing = EngineSettings {
        ca_file: None,
        credentials_file: Some(server.dir.path().join("missing.creds")),
        retention: None,
    };
    let error = unfit(engine_with(&server.url, &missing).look().await);
    assert!(error.contains("missing.creds"), "{error}");
    server.account = KeyPair::new_account();
    let error = unfit(server.engine("stranger.creds", json!({})).look().await);
    assert!(error.contains("does not let Herald in (the credentials of"), "{error}");
}
