//! No token, proof, assertion or key comes out anywhere but on the wire.

use std::{
    error::Error as _,
    io,
    sync::{Arc, Mutex},
};

use herald_client::{Client, types::PageLimit};
use tracing_subscriber::{
    filter::LevelFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::{Issuer, KEY, answer, refusal, token, write};
use crate::{
    her_ids, offset,
    script::{Script, connected, event, page},
};

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Told {
    fn add(&self, text: &str) {
        self.0.lock().unwrap().extend_from_slice(text.as_bytes());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Everything that logs, in this library and below it, at `trace`; and every `Debug` and `Display` that there is.
#[tokio::test]
async fn nothing_secret_is_told_by_any_log_debug_or_error() {
    let told = Told::default();
    let writer = told.clone();
    let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    tracing_subscriber::registry().with(LevelFilter::TRACE).with(layer).init();

    // A token as issuers make them, an issuer that quotes what it was sent, one that fails, a stream, refusals.
    let secret = format!("eyJ{}", "s3cret".repeat(40));
    let token_text = secret.clone();
    let issuer = Issuer::start(move |asked| match asked.number {
        0 => answer("503 Service Unavailable", "", ""),
        1 => refusal("400 Bad Request", "DPoP-Nonce: n1\r\n", "use_dpop_nonce", ""),
        2 | 4 => token(&token_text, 600, ""),
        3 => token(&token_text, 0, ""),
        _ => {
            let quoted = format!("bad assertion {}", asked.field("client_assertion"));
            refusal("401 Unauthorized", "", "invalid_client", &quoted)
        }
    });
    let server = Script::start(|number, _, stream| match number {
        0 => write(stream, page("200 OK", "", &[])),
        1 => write(stream, answer("401 Unauthorized", "", "")),
        2 => write(stream, connected("") + &event(6)),
        _ => write(stream, answer("401 Unauthorized", "", "")),
    });
    let client = issuer.client(&server);
    let receivers = her_ids(7..=7);
    let poll = || client.poll(&receivers, offset(5), PageLimit::MAX);
    told.add(&format!("{:?}", poll().await));
    let mut notifications = client.notifications(crate::cursor(7..=7, 5));
    let error = loop {
        told.add(&format!("{notifications:?}"));
        match notifications.next().await {
            Ok(event) => told.add(&format!("{event:?}")),
            Err(error) => break error,
        }
    };
    told.add(&format!("{error} {error:?} {:?}", error.source().map(ToString::to_string)));
    let error = poll().await.unwrap_err();
    told.add(&format!("{error} {error:?} {:?}", error.source().map(ToString::to_string)));
    let helseid = issuer.helseid();
    let builder = Client::builder(&server.url, "test").credentials(helseid.clone());
    told.add(&format!("{helseid:?} {builder:?} {client:?}"));

    let told = told.text();
    assert!(told.contains("signed in") && told.contains("invalid_client"), "it was listened to");
    assert!(told.contains("TRACE"), "and to those below");
    let mut secrets = vec![secret, "s3crets3cret".to_owned(), "eyJ".to_owned()];
    secrets.push(KEY.split("\"d\": \"").nth(1).unwrap()[..20].to_owned());
    for asked in issuer.asked.lock().unwrap().iter() {
        secrets.push(asked.field("client_assertion").to_owned());
        secrets.push(asked.field("client_assertion").rsplit('.').next().unwrap().to_owned());
    }
    for request in server.requests().iter().chain(&issuer.script.requests()) {
        let proof = request.header("dpop");
        secrets.extend(proof.map(|proof| proof.rsplit('.').next().unwrap().to_owned()));
    }
    assert!(secrets.len() > 15, "{}", secrets.len());
    for secret in secrets {
        assert!(!told.contains(&secret), "{secret} in {}", around(&told, &secret));
    }
}

fn around<'a>(told: &'a str, secret: &str) -> &'a str {
    let at = told.find(secret).unwrap_or_default();
    let from = told[..at].rfind('\n').map_or(0, |at| at + 1);
    &told[from..at]
}
