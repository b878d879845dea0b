//! Calls with a token: what the server may say of it, and what the client makes of that.

use futures_util::future::join_all;
use herald_client::{
    Client, Cursor, Error, Event, NONCE_RETRIES_MAX, Notifications, SettingsError, Status,
    TOKEN_REFUSED_MAX,
    types::{Draft, NotificationType, PageLimit},
};
use uuid::Uuid;

use super::{Issuer, answer, calls, pass, token, tokens_of, usual, write};
use crate::{
    her_ids, offset,
    script::{Script, connected, event, object, page, wait_for_close},
};

const EXPIRED: &str = "www-authenticate: DPoP error=\"invalid_token\", algs=\"ES256\"\r\n";

fn unauthorized(headers: &str) -> Vec<u8> {
    answer("401 Unauthorized", headers, "{\"detail\":\"The token is not accepted.\"}")
}

fn challenge(number: usize) -> Vec<u8> {
    let nonce =
        format!("www-authenticate: DPoP error=\"use_dpop_nonce\"\r\nDPoP-Nonce: n{number}\r\n");
    unauthorized(&nonce)
}

async fn poll(client: &Client) -> Result<(), Error> {
    client.poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await.map(drop)
}

async fn append(client: &Client) -> Result<(), Error> {
    let to = her_ids(7..=7)[0];
    let draft = Draft::new(NotificationType::NewMessage, Uuid::nil(), to);
    client.append([draft]).await.map(drop)
}

async fn offsets(notifications: &mut Notifications, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        match notifications.next().await.unwrap() {
            Event::Notification(notification) => offsets.push(notification.offset().get()),
            Event::Status(Status::Polling { error, .. }) => panic!("polling: {error}"),
            _ => {}
        }
    }
    offsets
}

#[tokio::test]
async fn a_hundred_calls_at_once_have_one_token_and_a_hundred_proofs() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[object(8)])));
    let client = issuer.client(&server);
    // Who began stops waiting.
    tokio::select! {
        biased;
        _ = poll(&client) => panic!("the issuer cannot have answered yet"),
        () = std::future::ready(()) => {}
    }
    let outcomes = join_all((0..100).map(|_| poll(&client))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(issuer.counts(), (1, 1));
    let mut ids: Vec<_> = calls(&server).into_iter().map(|(_, proof)| proof.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn who_was_never_let_in_is_answered_once_more_with_a_new_token_and_then_no_more() {
    for headers in [EXPIRED, "", "www-authenticate: Bearer\r\n"] {
        let issuer = Issuer::start(usual);
        let server = Script::start(move |_, _, stream| write(stream, unauthorized(headers)));
        let error = append(&issuer.client(&server)).await.unwrap_err();
        assert!(error.to_string().starts_with("the server answered 401"), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(tokens_of(&server), ["token-0", "token-1"]);
        assert_eq!(server.requests()[0].body, server.requests()[1].body);
    }
}

#[tokio::test]
async fn who_was_let_in_before_is_answered_at_once_and_then_with_the_usual_waits() {
    // A server that says nothing of its reasons means the token, too.
    for headers in [EXPIRED, "", "www-authenticate: Bearer\r\n"] {
        let issuer = Issuer::start(usual);
        let server = Script::start(move |number, request, stream| match number {
            1 => write(stream, page("200 OK", "", &[])),
            4 => write(stream, page("201 Created", "", &["{}".into()])),
            _ if request.target().starts_with("GET") || number < 6 => {
                write(stream, unauthorized(headers));
            }
            _ => write(stream, unauthorized("www-authenticate: DPoP error=invalid_dpop_proof\r\n")),
        });
        let client = issuer.client(&server);
        poll(&client).await.unwrap();
        assert_eq!(tokens_of(&server), ["token-0", "token-1"]);
        append(&client).await.unwrap();
        assert_eq!(tokens_of(&server)[2..4], ["token-1", "token-2"]);
        assert_eq!(server.requests()[2].body, server.requests()[4].body);

        let error = append(&client).await.unwrap_err();
        assert!(error.to_string().contains("invalid_dpop_proof"), "{error}");
        assert!(!error.is_retryable());

        let before = server.requests().len();
        let error = poll(&client).await.unwrap_err();
        assert!(error.to_string().starts_with("the server answered 401"), "{error}");
        assert!(error.is_retryable(), "who goes on polling may go on");
        let tries = server.requests().len() - before;
        assert!((4..=8).contains(&tries), "three times more: {tries}");
    }
}

#[tokio::test]
async fn an_append_goes_on_with_a_new_token() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|number, _, stream| match number {
        0 => write(stream, unauthorized(EXPIRED)),
        _ => write(stream, page("201 Created", "", &["{}".into()])),
    });
    append(&issuer.client(&server)).await.unwrap();
    assert_eq!(tokens_of(&server), ["token-0", "token-1"]);
}

#[tokio::test]
async fn a_proof_that_is_refused_is_final_and_the_clocks_are_compared() {
    let issuer = Issuer::start(usual);
    let headers = "www-authenticate: DPoP error=\"invalid_dpop_proof\"\r\n\
                   date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let server = Script::start(move |_, _, stream| write(stream, unauthorized(headers)));
    let error = poll(&issuer.client(&server)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("invalid_dpop_proof"), "{text}");
    let Error::Refused(refusal) = &error else { panic!("{error}") };
    assert_eq!(refusal.challenge_code(), Some("invalid_dpop_proof"));
    assert!(refusal.clock_ahead_seconds().is_some_and(|ahead| ahead > 600_000_000));
    assert!(text.contains("the clock here is ") && text.ends_with(" s ahead of the one there"));
    assert!(!error.is_retryable());
    assert_eq!((server.requests().len(), issuer.counts()), (1, (1, 1)));
}

#[tokio::test]
async fn a_nonce_that_the_server_asks_for_goes_into_proofs_and_the_newest_is_kept() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|number, _, stream| match number {
        0 => write(stream, challenge(0)),
        2 => write(stream, page("200 OK", "DPoP-Nonce: n2\r\n", &[])),
        _ => write(stream, page("200 OK", "", &[])),
    });
    let client = issuer.client(&server);
    for _ in 0..3 {
        poll(&client).await.unwrap();
    }
    let calls = calls(&server);
    assert!(calls.iter().all(|(token, _)| token == "token-0"));
    let nonces: Vec<_> = calls.iter().map(|(_, proof)| proof.nonce.as_deref()).collect();
    assert_eq!(nonces, [None, Some("n0"), Some("n0"), Some("n2")]);
    let of_issuer = issuer.asked.lock().unwrap()[0].nonce().map(str::to_owned);
    assert_eq!(of_issuer, None, "each has its own");
}

#[tokio::test]
async fn a_server_may_change_its_nonce_twice_and_no_more() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|number, _, stream| match number {
        it if it < NONCE_RETRIES_MAX as usize => write(stream, challenge(number)),
        it if it == NONCE_RETRIES_MAX as usize => write(stream, page("200 OK", "", &[])),
        _ => write(stream, challenge(number)),
    });
    let client = issuer.client(&server);
    poll(&client).await.unwrap();
    let error = poll(&client).await.unwrap_err();
    assert!(error.to_string().contains("use_dpop_nonce"), "{error}");
    assert_eq!((server.requests().len(), issuer.counts()), (6, (1, 1)));
}

#[tokio::test]
async fn a_stream_that_ends_with_its_token_comes_back_with_a_new_one_without_gap_or_repeat() {
    let issuer = Issuer::start(|asked| token(&format!("token-{}", asked.number), 0, ""));
    let server = Script::start(|number, request, stream| {
        let after = request.after();
        if number == 2 {
            return write(stream, unauthorized(EXPIRED));
        }
        write(stream, connected("") + &event(after + 1) + &event(after + 2));
        if after == 9 {
            wait_for_close(stream);
        }
    });
    let mut notifications = issuer.client(&server).notifications(crate::cursor(7..=7, 5));
    assert_eq!(offsets(&mut notifications, 6).await, [6, 7, 8, 9, 10, 11]);
    let mut tokens = tokens_of(&server);
    assert_eq!(tokens.len(), 4);
    tokens.dedup();
    assert_eq!(tokens.len(), 4, "each connection has a new one");
    let nexts: Vec<_> = server.requests().iter().map(crate::script::Request::after).collect();
    assert_eq!(nexts, [5, 7, 9, 9]);
}

#[tokio::test]
async fn a_stream_ends_for_good_when_a_new_token_is_refused_too() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|_, _, stream| write(stream, unauthorized(EXPIRED)));
    let mut notifications = issuer.client(&server).notifications(crate::cursor(7..=7, 5));
    let error = loop {
        if let Err(error) = notifications.next().await {
            break error;
        }
    };
    assert!(error.to_string().contains("401 Unauthorized: invalid_token"), "{error}");
    assert_eq!(tokens_of(&server), ["token-0", "token-1"]);
}

#[tokio::test]
async fn a_stream_goes_on_when_the_server_does_not_know_the_issuers_new_key_yet() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|number, request, stream| {
        if (1..4).contains(&number) {
            return write(stream, unauthorized(EXPIRED));
        }
        write(stream, connected("") + &event(request.after() + 1));
        if number == 4 {
            wait_for_close(stream);
        }
    });
    let mut notifications = issuer.client(&server).notifications(crate::cursor(7..=7, 5));
    let (mut offsets, mut said) = (Vec::new(), Vec::new());
    while offsets.len() < 2 {
        match notifications.next().await.unwrap() {
            Event::Notification(notification) => offsets.push(notification.offset().get()),
            Event::Status(Status::Waiting { error, .. }) => said.push(error.to_string()),
            _ => {}
        }
    }
    assert_eq!(offsets, [6, 7]);
    let told = "the server answered 401 Unauthorized: invalid_token: The token is not accepted.";
    assert_eq!(said, ["the server ended the stream", told, told]);
    assert!(issuer.counts().1 <= 4);
}

#[tokio::test]
async fn a_stream_ends_for_good_when_tokens_are_refused_for_two_minutes() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|number, _, stream| match number {
        0 => write(stream, connected("") + &event(6)),
        _ => write(stream, unauthorized(EXPIRED)),
    });
    let mut notifications = issuer.client(&server).notifications(crate::cursor(7..=7, 5));
    let mut said = 0;
    let error = loop {
        match notifications.next().await {
            Ok(Event::Status(Status::Waiting { error, .. }))
                if error.to_string().contains("401") =>
            {
                said += 1;
                // Waits are what the clock is moved over, too.
                pass(TOKEN_REFUSED_MAX).await;
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("401 Unauthorized: invalid_token"), "{error}");
    assert!(!error.is_retryable());
    assert_eq!((said, server.requests().len()), (1, 4));
}

#[tokio::test]
async fn streams_of_several_runs_have_one_token() {
    let issuer = Issuer::start(usual);
    let server = Script::start(|_, request, stream| {
        if request.query("HerIds").len() == 1500 {
            write(stream, connected("") + &event(6));
        } else {
            write(stream, connected("") + &event(7));
        }
        wait_for_close(stream);
    });
    let cursor = Cursor::new(her_ids(1..=1501), offset(5)).unwrap();
    let mut notifications = issuer.client(&server).notifications(cursor);
    let mut found = offsets(&mut notifications, 2).await;
    found.sort_unstable();
    assert_eq!((found, issuer.counts()), (vec![6, 7], (1, 1)));
}

#[test]
fn credentials_go_over_https_or_to_this_machine_and_beside_no_others() {
    let issuer = Issuer::start(usual);
    let build =
        |url: &str| Client::builder(url, "test").credentials(issuer.helseid()).build().map(drop);
    for url in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]/edi"] {
        build(url).unwrap();
    }
    assert_eq!(build("https://herald.example").is_ok(), cfg!(feature = "tls"));
    for url in ["http://herald.example", "http://10.0.0.1:8080", "http://user:hunter2@127.0.0.1"] {
        let error = build(url).unwrap_err();
        assert!(matches!(error, SettingsError::Url { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let helseid = issuer.helseid().scope(" ");
    let error = Client::builder("http://127.0.0.1", "test").credentials(helseid).build();
    assert!(matches!(error, Err(SettingsError::Scope)));
}
