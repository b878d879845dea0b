//! Tokens against a script, in paused time: every renewal is exact and none is waited for.

use std::{collections::VecDeque, future::pending};

use futures_util::future::join_all;
use reqwest::StatusCode;
use tokio::time::{sleep, timeout};

use super::*;
use crate::helseid::SignInFailure;

/// What becomes of one request: after so many milliseconds a token of so many seconds, or a failure.
enum Try {
    Gives(u64, u64),
    Fails(u64, SignInError),
    Hangs,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u64>>>);

impl Log {
    /// When each token was asked for, in milliseconds.
    fn asked(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

struct Script {
    begun: Instant,
    tries: Mutex<VecDeque<Try>>,
    log: Log,
    random: f64,
}

impl Issue for Script {
    fn issue(&self) -> BoxFuture<'_, Result<Issued, SignInError>> {
        let asked_at = Instant::now();
        let number = {
            let mut asked = self.log.0.lock().unwrap();
            asked.push(u64::try_from(self.begun.elapsed().as_millis()).unwrap());
            asked.len()
        };
        let next = self.tries.lock().unwrap().pop_front().unwrap_or(Try::Gives(0, 600));
        async move {
            match next {
                Try::Gives(millis, seconds) => {
                    pass(millis).await;
                    let lifetime = Duration::from_secs(seconds);
                    Ok(Issued { text: format!("token {number}"), lifetime, asked_at })
                }
                Try::Fails(millis, error) => {
                    pass(millis).await;
                    Err(error)
                }
                Try::Hangs => pending().await,
            }
        }
        .boxed()
    }

    fn random(&self) -> f64 {
        self.random
    }
}

fn tokens(random: f64, tries: impl IntoIterator<Item = Try>) -> (Tokens, Log) {
    let log = Log::default();
    let tries = Mutex::new(tries.into_iter().collect());
    let script = Script { begun: Instant::now(), tries, log: log.clone(), random };
    (Tokens::new(script), log)
}

fn failure(status: u16, retry_after: Option<u64>) -> SignInError {
    let failure = SignInFailure::Refused {
        status: StatusCode::from_u16(status).unwrap(),
        error: None,
        description: None,
        clock_ahead_seconds: None,
        discovery: None,
    };
    SignInError::new("issuer".into(), retry_after.map(Duration::from_secs), failure)
}

/// The token's text, which is there at once.
fn now(tokens: &Tokens) -> String {
    let outcome = tokens.token().now_or_never().expect("nothing to wait for");
    outcome.expect("a token").text.clone()
}

async fn text(tokens: &Tokens) -> String {
    tokens.token().await.expect("a token").text.clone()
}

async fn error(tokens: &Tokens) -> SignInError {
    tokens.token().await.expect_err("no token")
}

/// Lets the task that renews run until it waits for something.
async fn others() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

/// A sleep of nothing takes a millisecond.
async fn pass(millis: u64) {
    if millis > 0 {
        sleep(Duration::from_millis(millis)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_wait_have_one_renewal() {
    let (tokens, log) = tokens(0.0, [Try::Gives(700, 600)]);
    let all = join_all((0..100).map(|_| text(&tokens))).await;
    assert!(all.iter().all(|text| text == "token 1"));
    assert_eq!(log.asked(), [0]);
    assert_eq!(now(&tokens), "token 1");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_who_wait_have_one_failure() {
    let (tokens, log) = tokens(0.0, [Try::Fails(700, failure(400, None))]);
    for error in join_all((0..100).map(|_| error(&tokens))).await {
        assert!(!error.is_retryable(), "{error}");
    }
    assert_eq!(log.asked(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_dropped_takes_the_renewal_from_nobody() {
    let (tokens, log) = tokens(0.0, [Try::Gives(1000, 600)]);
    let first = timeout(Duration::from_millis(500), tokens.token());
    let (first, second) = tokio::join!(first, text(&tokens));
    assert!(first.is_err());
    assert_eq!(second, "token 1");

    tokens.refuse(&tokens.token().await.unwrap());
    assert!(timeout(Duration::ZERO, tokens.token()).await.is_err());
    others().await;
    assert_eq!(now(&tokens), "token 2", "it came although nobody waited");
    assert_eq!(log.asked(), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_early_and_no_call_waits_for_that() {
    // A minute or half of it before the end, by chance.
    for (random, at) in [(0.0, 540_000), (1.0, 570_000)] {
        let (tokens, log) = tokens(random, [Try::Gives(0, 600), Try::Gives(10_000, 600)]);
        assert_eq!(text(&tokens).await, "token 1");
        pass(at - 1).await;
        assert_eq!(now(&tokens), "token 1");
        others().await;
        assert_eq!(log.asked().len(), 1, "not yet");
        pass(1).await;
        for _ in 0..100 {
            assert_eq!(now(&tokens), "token 1");
        }
        pass(9999).await;
        assert_eq!(now(&tokens), "token 1");
        pass(2).await;
        assert_eq!(now(&tokens), "token 2");
        assert_eq!(log.asked(), [0, at]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_used_until_five_seconds_before_its_end_and_no_longer() {
    let (tokens, _) = tokens(0.0, [Try::Gives(0, 600), Try::Gives(59_000, 600)]);
    assert_eq!(text(&tokens).await, "token 1");
    pass(594_999).await;
    assert_eq!(now(&tokens), "token 1", "and its renewal begins");
    pass(1).await;
    assert!(tokens.token().now_or_never().is_none());
    assert_eq!(text(&tokens).await, "token 2");
}

#[tokio::test(start_paused = true)]
async fn short_lifetimes_have_margins_of_a_fifth_and_a_tenth_and_none_is_longer_than_a_day() {
    let asked_at = Instant::now();
    for (lifetime, renew_at, use_until) in [
        (0, 0, 0),
        (10, 8, 9),
        (50, 40, 45),
        (60, 48, 55),
        (300, 240, 295),
        (86_400, 86_340, 86_395),
        (86_401, 86_340, 86_395),
        (u64::MAX, 86_340, 86_395),
    ] {
        let lifetime = Duration::from_secs(lifetime);
        let token = Token::new(Issued { text: String::new(), lifetime, asked_at }, 0.0);
        let seconds = |at: Instant| (at - asked_at).as_secs();
        assert_eq!((seconds(token.renew_at), seconds(token.use_until)), (renew_at, use_until));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_at_once_serves_those_who_waited_for_it() {
    let (tokens, log) = tokens(0.0, [Try::Gives(10, 0), Try::Gives(10, 0)]);
    let all = join_all((0..10).map(|_| text(&tokens))).await;
    assert!(all.iter().all(|text| text == "token 1"));
    assert_eq!(text(&tokens).await, "token 2");
    assert_eq!(log.asked(), [0, 10]);
}

#[tokio::test(start_paused = true)]
async fn an_early_renewal_that_fails_is_tried_again_after_a_wait_while_the_old_token_is_used() {
    let tries = [
        Try::Gives(0, 600),
        Try::Fails(0, failure(503, None)),
        Try::Fails(0, failure(503, Some(7))),
        Try::Fails(0, failure(400, None)),
        Try::Fails(0, failure(400, None)),
    ];
    let (tokens, log) = tokens(1.0, tries);
    assert_eq!(text(&tokens).await, "token 1");
    pass(570_000).await;
    for _ in 0..14 * 40 {
        assert!(now(&tokens).starts_with("token 1"));
        others().await;
        pass(25).await;
    }
    // Half a second, then one and the 7 that were asked for, then two, whatever it was.
    assert_eq!(log.asked(), [0, 570_000, 570_500, 578_500, 580_500]);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_a_failure_is_told_to_all_until_it_is_time_to_ask_again() {
    let tries = [Try::Fails(100, failure(503, Some(3))), Try::Gives(100, 600)];
    let (tokens, log) = tokens(1.0, tries);
    let wait = Duration::from_millis(3500);
    for error in join_all((0..10).map(|_| error(&tokens))).await {
        assert_eq!((error.is_retryable(), error.retry_after()), (true, Some(wait)));
    }
    pass(1000).await;
    let left = error(&tokens).now_or_never().unwrap().retry_after();
    assert_eq!(left, Some(Duration::from_millis(2500)));
    assert_eq!(log.asked(), [0]);
    pass(2500).await;
    assert_eq!(text(&tokens).await, "token 2");
    assert_eq!(log.asked(), [0, 3600]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_is_asked_again_by_who_asks_again_with_the_usual_waits() {
    let tries = (0..4).map(|_| Try::Fails(0, failure(401, None)));
    let (tokens, log) = tokens(1.0, tries);
    // Callers who do not wait at all.
    for _ in 0..7 * 100 {
        for error in [error(&tokens).await, error(&tokens).await] {
            assert_eq!((error.is_retryable(), error.retry_after()), (false, None));
        }
        pass(10).await;
    }
    assert_eq!(log.asked(), [0, 500, 1500, 3500]);
    pass(500).await;
    assert_eq!(text(&tokens).await, "token 5");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_is_renewed_once_whoever_says_so() {
    let (tokens, log) = tokens(0.0, [Try::Gives(0, 600), Try::Gives(50, 600)]);
    let old = tokens.token().await.unwrap();
    let again = |_| async {
        tokens.refuse(&old);
        text(&tokens).await
    };
    assert!(join_all((0..10).map(again)).await.iter().all(|text| text == "token 2"));
    tokens.refuse(&old);
    assert_eq!(now(&tokens), "token 2", "the new one was not refused");
    assert_eq!(log.asked(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_refused_one_after_another_are_replaced_with_the_usual_waits() {
    let (tokens, log) = tokens(1.0, []);
    for _ in 0..30 * 100 {
        // Two calls of many, each with its own idea of when to try again.
        for _ in 0..2 {
            let token = tokens.token().await.unwrap();
            let is_replaced = tokens.refuse(&token).is_replaced;
            assert_eq!(is_replaced, token.text != text(&tokens).await);
        }
        pass(10).await;
    }
    assert_eq!(log.asked(), [0, 0, 500, 1500, 3500, 7500, 15_500]);
    tokens.let_in();
    let token = tokens.token().await.unwrap();
    assert!(tokens.refuse(&token).is_replaced, "after a success at once");
}

#[tokio::test(start_paused = true)]
async fn refusals_may_pass_for_two_minutes_after_a_success() {
    let (tokens, _) = tokens(1.0, []);
    let may_pass = async |millis| {
        pass(millis).await;
        let token = tokens.token().await.unwrap();
        tokens.refuse(&token).may_pass
    };
    assert!(!may_pass(0).await, "it never was");
    tokens.let_in();
    assert!(may_pass(0).await && may_pass(119_999).await);
    assert!(!may_pass(1).await);
    tokens.interrupted();
    assert!(may_pass(0).await && may_pass(119_999).await);
    tokens.let_in();
    assert!(may_pass(1).await && !may_pass(120_000).await);
}

#[test]
fn a_renewal_that_ended_with_its_runtime_is_begun_again_on_another() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let first = runtime();
    let (tokens, log) = first.block_on(async { tokens(0.0, [Try::Hangs, Try::Gives(0, 600)]) });
    first.block_on(async {
        assert!(timeout(Duration::from_secs(1), tokens.token()).await.is_err());
    });
    drop(first);
    assert_eq!(runtime().block_on(text(&tokens)), "token 2");
    assert_eq!(log.asked().len(), 2);
}
