//! Where calls need a token: it is there before a stream is opened, and a refused one is replaced once.

use super::*;
use crate::challenge::Challenge;

fn refused() -> Try {
    refused_with(Challenge::default(), None)
}

/// By a server that has let this client in before.
fn refused_for_now(retry_after: Option<u64>) -> Try {
    let mut challenge = Challenge::default();
    challenge.may_pass = true;
    refused_with(challenge, retry_after)
}

fn refused_with(challenge: Challenge, retry_after: Option<u64>) -> Try {
    let (status, challenge) = (StatusCode::UNAUTHORIZED, Some(challenge));
    let retry_after = retry_after.map(Duration::from_secs);
    let refusal = Refusal { status, retry_after, problem: None, challenge };
    Try::Fails(Error::Refused(Box::new(refusal)))
}

fn test(
    tries: impl IntoIterator<Item = Try>,
    sign_ins: impl IntoIterator<Item = (u64, Result<(), Error>)>,
) -> Test {
    let mut test = Test::new(tries);
    test.run.source.sign_ins = Some(Mutex::new(sign_ins.into_iter().collect()));
    test
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_token_is_not_waiting_for_a_stream() {
    let mut test = test([opens(&[SIX], Then::Silence)], [(60_000, Ok(()))]);
    assert_eq!(test.offsets(100).await, [6]);
    assert_eq!(test.opened(), [(60_000, 5)]);
    assert_eq!(test.polled(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ended_comes_back_after_its_token() {
    let tries = [opens(&[SIX], Then::Ends), opens(&[SEVEN], Then::Silence)];
    let mut test = test(tries, [(0, Ok(())), (20_000, Ok(()))]);
    assert_eq!(test.offsets(60).await, [6, 7]);
    assert_eq!(test.opened(), [(0, 5), (20_500, 6)]);
    assert_eq!(test.polled(), []);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_does_not_begin_to_sign_in_again() {
    let mut test = test([opens(&[SIX], Then::Silence)], [(1000, Ok(())), (9000, Ok(()))]);
    for _ in 0..99 {
        assert!(timeout(Duration::from_millis(10), test.run.next()).await.is_err());
    }
    assert_eq!(test.offsets(1).await, [6]);
    assert_eq!(test.opened(), [(1000, 5)]);
}

#[tokio::test(start_paused = true)]
async fn no_token_is_a_failure_like_another() {
    let sign_ins = [(0, Err(status(503, None))), (0, Err(status(429, Some(7)))), (0, Ok(()))];
    let mut test = test([opens(&[SIX], Then::Silence)], sign_ins);
    assert_eq!(test.offsets(20).await, [6]);
    assert_eq!(test.opened(), [(500 + 8000, 5)]);

    let mut test = self::test([], [(0, Err(status(400, None)))]);
    assert!(!test.error().await.is_retryable());
    assert_eq!(test.opened(), []);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_replaced_at_once_and_once() {
    let tries = [opens(&[SIX], Then::Ends), refused(), opens(&[SEVEN], Then::Silence)];
    let mut test = test(tries, []);
    assert_eq!(test.offsets(20).await, [6, 7]);
    assert_eq!(test.opened(), [(0, 5), (500, 6), (500, 6)]);

    let tries = [refused(), opens(&[SIX], Then::Ends), refused(), refused()];
    let mut test = self::test(tries, []);
    let error = test.error().await;
    assert!(error.to_string().contains("401"), "{error}");
    assert_eq!(test.opened(), [(0, 5), (0, 5), (500, 6), (500, 6)]);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_may_be_taken_soon_are_tried_again_with_the_usual_waits_and_that_is_said() {
    let refusals = [None, None, None, Some(7), None].map(refused_for_now);
    let good = opens(&[SIX], Then::Silence);
    let mut test = test(refusals.into_iter().chain([good]), []);
    let mut said = Vec::new();
    loop {
        match test.run.next().await.unwrap() {
            Output::Status(Status::Waiting { error, .. }) => said.push(error.to_string()),
            Output::Notification(_) => break,
            _ => {}
        }
    }
    assert_eq!(said, ["the server answered 401 Unauthorized"; 4]);
    let times: Vec<_> = test.opened().into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, [0, 0, 500, 1500, 10_500, 14_500]);
    assert_eq!(test.polled(), []);

    let tries = [refused_for_now(None), refused_for_now(None), refused()];
    let error = self::test(tries, []).error().await;
    assert!(error.to_string().contains("401") && !error.is_retryable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_credentials_a_401_is_final() {
    let mut test = Test::new([refused()]);
    assert!(!test.error().await.is_retryable());
    assert_eq!(test.opened(), [(0, 5)]);
}
