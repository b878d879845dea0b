//! The whole chain with nothing from outside: the issuer, the server that looks at tokens, and the client that gets them.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{fs, path::PathBuf, time::Duration};

use herald_auth::PrivateKey;
use herald_client::{
    Client, Error, Event, HelseId, Status,
    types::{Draft, HerId, NotificationType, Offset, PageLimit},
};
use herald_issuer::{Client as Registered, Issuer, IssuerSettings};
use uuid::Uuid;

use crate::support::{cli::run, server::Server};

const KEY: &str = include_str!("../../../herald-auth/tests/keys/p256.jwk.json");
const ORGANISATION: &str = "310000000";
const BOTH: &str = "nhn:msh/api nhn:msh/notifications-publish";
const DRAFT: &str = "append --type NewMessage --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0";

struct Chain {
    issuer: Issuer,
    server: Server,
    directory: tempfile::TempDir,
}

impl Chain {
    /// A journal system that may read and append for 7 and 8, in an organisation that has 9 as well.
    async fn start(lifetime: Duration, flags: &[&str]) -> Self {
        let key: PrivateKey = KEY.parse().unwrap();
        let journal = Registered::new("journal", key.public().clone())
            .with_scope(HelseId::READ_SCOPE)
            .with_scope(HelseId::PUBLISH_SCOPE)
            .with_claim("helseid://claims/client/claims/orgnr_parent", ORGANISATION)
            .with_claim("nhn:msh/client/claims/herid", "7-8");
        let settings = IssuerSettings { lifetime, ..IssuerSettings::new(vec![journal]) };
        let issuer = Issuer::start(settings).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let organisations = directory.path().join("organisations.json");
        fs::write(&organisations, format!(r#"{{"{ORGANISATION}": [7, 8, 9]}}"#)).unwrap();
        let organisations = organisations.to_str().unwrap();
        let auth = ["--auth", "helseid", "--issuer", issuer.url()];
        let auth = [&auth[..], &["--organisations", organisations], flags].concat();
        let server = Server::start(&directory.path().join("data"), &auth).await;
        Self { issuer, server, directory }
    }

    fn client(&self, scope: &str) -> Client {
        let helseid = HelseId::new(self.issuer.url(), "journal", KEY).unwrap().scope(scope);
        let builder = Client::builder(&self.server.url(), "test");
        builder.credentials(helseid).build().unwrap()
    }

    fn key_file(&self) -> PathBuf {
        let path = self.directory.path().join("key.json");
        fs::write(&path, KEY).unwrap();
        path
    }
}

fn her_id(number: u32) -> HerId {
    HerId::new(number).unwrap()
}

fn draft() -> Draft {
    Draft::new(NotificationType::NewMessage, Uuid::from_u128(7), her_id(7))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_append_poll_and_stream_with_tokens_and_only_what_is_granted() {
    let chain = Chain::start(Duration::from_secs(600), &[]).await;
    let (url, key) = (chain.server.url(), chain.key_file());
    let command = |line: &str, more: &[&str]| {
        let who = ["--url", &url, "--helseid-issuer", chain.issuer.url()];
        let key = ["--helseid-client-id", "journal", "--helseid-key-file", key.to_str().unwrap()];
        let words: Vec<_> =
            line.split(' ').chain(who).chain(key).chain(more.iter().copied()).collect();
        run(&words)
    };
    let appended = command(DRAFT, &["--her-id", "7"]);
    assert_eq!((appended.code, appended.lines().len()), (0, 1), "{}", appended.stderr);
    let polled = command("poll --offset 0", &["--her-id", "7", "--her-id", "8"]);
    assert_eq!((polled.code, polled.lines().len()), (0, 1), "{}", polled.stderr);
    let streamed = command("stream --offset 0 --max 1", &["--her-id", "7"]);
    assert_eq!((streamed.code, &streamed.stdout), (0, &polled.stdout), "{}", streamed.stderr);

    let other = command("poll --offset 0", &["--her-id", "7", "--her-id", "9"]);
    assert_eq!((other.code, other.stdout.as_str()), (1, ""));
    assert!(other.last_word().contains("403 Forbidden"), "{}", other.stderr);
    let reader = command(DRAFT, &["--her-id", "7", "--helseid-scope", HelseId::READ_SCOPE]);
    assert!(reader.code == 1 && reader.last_word().contains("403 Forbidden"), "{}", reader.stderr);
    let unknown = command("poll --offset 0", &["--her-id", "7", "--helseid-scope", "other"]);
    assert!(
        unknown.code == 1 && unknown.last_word().contains("invalid_scope"),
        "{}",
        unknown.stderr
    );

    let bare = run(&["poll", "--offset", "0", "--her-id", "7", "--url", &url]);
    assert!(bare.code == 1 && bare.last_word().contains("401 Unauthorized"), "{}", bare.stderr);
}

/// Tokens of two seconds: each ends the streams that it opened, and the client comes back with another.
#[tokio::test(flavor = "multi_thread")]
async fn streams_outlive_their_tokens_without_gap_or_repeat() {
    const CONNECTIONS: usize = 3;
    let chain = Chain::start(Duration::from_secs(2), &["--keys-pause", "1s"]).await;
    let client = chain.client(BOTH);
    let cursor = herald_client::Cursor::new([her_id(7), her_id(8)], Offset::ZERO).unwrap();
    let mut notifications = client.notifications(cursor);
    let (mut connections, mut appended, mut received) = (0, Vec::new(), Vec::new());
    while connections < CONNECTIONS || received.len() < appended.len() {
        // One more for each that came, until the last token is in use.
        if received.len() == appended.len() {
            let answers = client.append([draft()]).await.unwrap().answers;
            appended.push(answers[0].raw().parse::<serde_json::Value>().unwrap()["offset"].clone());
        }
        match notifications.next().await.unwrap() {
            Event::Notification(notification) => {
                received.push(serde_json::Value::from(notification.offset().get()));
            }
            Event::Status(Status::Connected { .. }) => {
                connections += 1;
                // Whoever comes back meets another nonce, and the server once another key.
                chain.issuer.renew_nonces().unwrap();
                if connections == 1 {
                    chain.issuer.rotate().unwrap();
                }
            }
            Event::Status(Status::Waiting { error: Error::Ended, .. }) | Event::Moved => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, appended);
}

/// The server looks for a new key only so often, and refuses what is signed with it until then.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_keys_that_the_server_does_not_know_yet() {
    let chain = Chain::start(Duration::from_secs(2), &["--keys-pause", "8s"]).await;
    let client = chain.client(BOTH);
    let cursor = herald_client::Cursor::new([her_id(7)], Offset::ZERO).unwrap();
    let mut notifications = client.notifications(cursor);
    let (mut connections, mut refusals) = (0, 0);
    while connections < 2 {
        match notifications.next().await.unwrap() {
            Event::Status(Status::Connected { .. }) => {
                connections += 1;
                // The first key that it does not know is looked for at once.
                chain.issuer.rotate().unwrap();
                if connections == 1 {
                    let other = chain.client(BOTH);
                    other.poll(&[her_id(7)], Offset::ZERO, PageLimit::MAX).await.unwrap();
                    chain.issuer.rotate().unwrap();
                }
            }
            Event::Status(Status::Waiting { error: Error::Refused(refusal), .. }) => {
                assert_eq!(refusal.challenge_code(), Some("invalid_token"), "{refusal}");
                refusals += 1;
            }
            Event::Status(Status::Waiting { error: Error::Ended, .. }) | Event::Moved => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refusals > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_out_an_issuer_that_is_away_while_its_token_is_good() {
    let mut chain = Chain::start(Duration::from_secs(600), &[]).await;
    let client = chain.client(BOTH);
    client.append([draft()]).await.unwrap();
    let settings = IssuerSettings::new(Vec::new());
    let elsewhere = Issuer::start(settings).await.unwrap();
    std::mem::replace(&mut chain.issuer, elsewhere).stop().await;
    let page = client.poll(&[her_id(7)], Offset::ZERO, PageLimit::MAX).await.unwrap();
    assert_eq!(page.notifications.len(), 1);
}
