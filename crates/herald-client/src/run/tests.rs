//! A run against a script, in paused time: every wait is exact and none is waited for.

use std::{collections::VecDeque, sync::Mutex};

use futures_util::{StreamExt as _, stream};
use reqwest::StatusCode;
use tokio::time::{sleep, timeout};

use super::*;
use crate::Refusal;

mod sign_in;

/// What becomes of one try to open a stream.
enum Try {
    /// It opens and brings each piece so many milliseconds after the one before.
    Opens(LogPosition, Vec<(u64, &'static str)>, Then),
    Fails(Error),
    Hangs,
}

/// What follows the last piece.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Ends,
    Silence,
}

#[derive(Default)]
struct Log {
    /// When each stream was asked for, in milliseconds, and after which offset.
    opened: Vec<(u64, u64)>,
    polled: Vec<(u64, u64)>,
}

type SignIns = VecDeque<(u64, Result<(), Error>)>;

struct Script {
    begun: Instant,
    tries: Mutex<VecDeque<Try>>,
    pages: Mutex<VecDeque<Result<Page, Error>>>,
    log: Arc<Mutex<Log>>,
    random: f64,
    /// How long each token takes and what becomes of it, in milliseconds; without more a token is there. `None` needs none.
    sign_ins: Option<Mutex<SignIns>>,
}

impl Source for Script {
    fn open(&self, after: Offset) -> BoxFuture<'static, Result<Opened, Error>> {
        self.log.lock().unwrap().opened.push((millis(self.begun), after.get()));
        let next = self.tries.lock().unwrap().pop_front().unwrap_or(Try::Hangs);
        match next {
            Try::Hangs => pending().boxed(),
            Try::Fails(error) => async { Err(error) }.boxed(),
            Try::Opens(position, pieces, then) => {
                let pieces = stream::iter(pieces).then(|(wait, piece)| async move {
                    sleep(Duration::from_millis(wait)).await;
                    Ok(bytes::Bytes::from_static(piece.as_bytes()))
                });
                let end = if then == Then::Ends {
                    stream::empty().boxed()
                } else {
                    stream::pending().boxed()
                };
                async move { Ok(Opened { position, bytes: pieces.chain(end).boxed() }) }.boxed()
            }
        }
    }

    fn page(&self, after: Offset) -> BoxFuture<'static, Result<Page, Error>> {
        self.log.lock().unwrap().polled.push((millis(self.begun), after.get()));
        let page = self.pages.lock().unwrap().pop_front();
        async { page.unwrap_or_else(|| Ok(page_of(&[], None))) }.boxed()
    }

    fn sign_in(&self) -> Option<BoxFuture<'static, Result<(), Error>>> {
        let next = self.sign_ins.as_ref()?.lock().unwrap().pop_front();
        let (wait, outcome) = next.unwrap_or((0, Ok(())));
        let outcome = async move {
            pass(wait).await;
            outcome
        };
        Some(outcome.boxed())
    }

    fn random(&mut self) -> f64 {
        self.random
    }
}

/// A sleep of nothing takes a millisecond.
async fn pass(millis: u64) {
    if millis > 0 {
        sleep(Duration::from_millis(millis)).await;
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap()
}

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn notification(number: u64) -> Notification {
    Notification::parse(format!(r#"{{"offset":{number}}}"#).into()).unwrap()
}

fn page_of(offsets: &[u64], until: Option<u64>) -> Page {
    Page {
        notifications: offsets.iter().copied().map(notification).collect(),
        until: until.map(offset),
        position: LogPosition::default(),
        run: 0,
        last: Offset::ZERO,
    }
}

fn status(status: u16, retry_after: Option<u64>) -> Error {
    let status = StatusCode::from_u16(status).unwrap();
    let retry_after = retry_after.map(Duration::from_secs);
    Error::Refused(Box::new(Refusal { status, retry_after, problem: None, challenge: None }))
}

const CONNECTED: &str = "event: connected\ndata:\n\n";

/// A stream with these pieces behind `connected`, each at once.
fn opens(pieces: &[&'static str], then: Then) -> Try {
    opens_slowly(&pieces.iter().map(|piece| (0, *piece)).collect::<Vec<_>>(), then)
}

fn opens_slowly(pieces: &[(u64, &'static str)], then: Then) -> Try {
    let pieces = [&[(0, CONNECTED)], pieces].concat();
    Try::Opens(LogPosition::default(), pieces, then)
}

struct Test {
    run: Run<Script>,
    log: Arc<Mutex<Log>>,
    begun: Instant,
}

impl Test {
    /// A run after offset 5 whose jitter is all of what it may be.
    fn new(tries: impl IntoIterator<Item = Try>) -> Self {
        Self::with(tries, [], 1.0)
    }

    fn with(
        tries: impl IntoIterator<Item = Try>,
        pages: impl IntoIterator<Item = Result<Page, Error>>,
        random: f64,
    ) -> Self {
        Self::begun(tries, pages, random, offset(5), Arc::default())
    }

    fn begun(
        tries: impl IntoIterator<Item = Try>,
        pages: impl IntoIterator<Item = Result<Page, Error>>,
        random: f64,
        after: Offset,
        history: Arc<OnceLock<Uuid>>,
    ) -> Self {
        let (begun, log) = (Instant::now(), Arc::default());
        let script = Script {
            begun,
            tries: Mutex::new(tries.into_iter().collect()),
            pages: Mutex::new(pages.into_iter().collect()),
            log: Arc::clone(&log),
            random,
            sign_ins: None,
        };
        Self { run: Run::new(script, after, history), log, begun }
    }

    /// The offsets handed on within so many seconds.
    async fn offsets(&mut self, seconds: u64) -> Vec<u64> {
        let mut offsets = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while let Ok(output) = timeout_at(deadline, self.run.next()).await {
            if let Output::Notification(notification) = output.unwrap() {
                offsets.push(notification.offset().get());
            }
        }
        offsets
    }

    /// The error that ends the run, within an hour.
    async fn error(&mut self) -> Error {
        let outcome = timeout(Duration::from_secs(3600), async {
            loop {
                if let Err(error) = self.run.next().await {
                    return error;
                }
            }
        });
        outcome.await.expect("it ends for good")
    }

    fn opened(&self) -> Vec<(u64, u64)> {
        self.log.lock().unwrap().opened.clone()
    }

    fn polled(&self) -> Vec<(u64, u64)> {
        self.log.lock().unwrap().polled.clone()
    }
}

const SIX: &str = "event: notification\ndata: {\"offset\":6}\n\n";
const SEVEN: &str = "event: notification\ndata: {\"offset\":7}\n\n";
const NINE: &str = "event: notification\ndata: {\"offset\":9}\n\n";

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_resumed_behind_the_last_offset_without_gap_or_repeat() {
    let mut test =
        Test::new([opens(&[SIX, SEVEN], Then::Ends), opens(&[SEVEN, NINE], Then::Silence)]);
    assert_eq!(test.offsets(10).await, [6, 7, 9]);
    assert_eq!(test.opened(), [(0, 5), (500, 7)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_may_be_dropped_at_any_time() {
    let pieces = SIX.split_inclusive(' ').chain(SEVEN.split_inclusive('"')).map(|piece| (7, piece));
    let pieces: Vec<_> = pieces.collect();
    let mut test = Test::new([
        opens_slowly(&pieces, Then::Ends),
        Try::Fails(status(503, None)),
        opens_slowly(&[(3, NINE)], Then::Silence),
    ]);
    let mut offsets = Vec::new();
    for _ in 0..10_000 {
        if let Ok(output) = timeout(Duration::from_millis(1), test.run.next()).await
            && let Output::Notification(notification) = output.unwrap()
        {
            offsets.push(notification.offset().get());
        }
    }
    assert_eq!(offsets, [6, 7, 9]);
    assert_eq!(test.opened().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_tried_again_for_ever_with_growing_waits() {
    let tries = [408, 429, 500, 502, 503, 504, 599, 503].map(|code| Try::Fails(status(code, None)));
    let mut test = Test::new(tries.into_iter().chain([opens(&[SIX], Then::Silence)]));
    assert_eq!(test.offsets(600).await, [6]);
    let times: Vec<_> = test.opened().into_iter().map(|(time, _)| time).take(9).collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15_500, 31_500, 61_500, 91_500]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_good_for_thirty_seconds_forgets_earlier_failures() {
    for (good_ms, wait_ms) in [(29_999, 4000), (30_000, 500)] {
        let failures = (0..3).map(|_| Try::Fails(status(503, None)));
        let good = opens_slowly(&[(good_ms, SIX)], Then::Ends);
        let mut test = Test::new(failures.chain([good, opens(&[], Then::Silence)]));
        assert_eq!(test.offsets(60).await, [6]);
        let times: Vec<_> = test.opened().into_iter().map(|(time, _)| time).collect();
        assert_eq!(times[4] - times[3], good_ms + wait_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_hint_is_a_floor_until_the_next_one_and_retry_after_for_one_wait() {
    let mut test = Test::with(
        [
            opens(&["retry: 2000\n\n"], Then::Ends),
            Try::Fails(status(503, Some(7))),
            Try::Fails(status(503, None)),
            opens(&["retry: 700\n"], Then::Ends),
            opens(&[], Then::Silence),
        ],
        [],
        0.0,
    );
    test.offsets(20).await;
    let times: Vec<_> = test.opened().into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, [0, 2000, 9000, 11_000, 11_700]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_ends_the_stream() {
    for code in [201, 204, 301, 307, 400, 401, 403, 404, 406, 410, 423] {
        let error = Test::new([Try::Fails(status(code, None))]).error().await;
        assert!(error.to_string().contains(&code.to_string()), "{error}");
    }
    let html = Error::ContentType { found: "text/html".into() };
    let error = Test::new([Try::Fails(html)]).error().await;
    assert!(matches!(error, Error::ContentType { .. }));
    for data in ["no json", "[6]", "{}", "{\"offset\":-1}", "{\"offset\":6", ""] {
        let event = format!("event: notification\ndata: {data}\n\n").leak();
        let error = Test::new([opens(&[event], Then::Silence)]).error().await;
        assert!(matches!(error, Error::Undecodable { .. }), "{data}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_events_and_comments_are_no_notifications() {
    let unknown = "event: news\ndata: {}\n\ndata: {\"offset\":8}\n\n: until nine\n: untils 9\n";
    let mut test = Test::new([opens(&[unknown, SIX], Then::Silence)]);
    assert_eq!(test.offsets(1).await, [6]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_silent_for_45_s_is_dead() {
    let mut test = Test::new([
        opens_slowly(&[(0, SIX), (44_999, SEVEN)], Then::Silence),
        opens(&[], Then::Silence),
    ]);
    assert_eq!(test.offsets(95).await, [6, 7]);
    assert_eq!(test.opened(), [(0, 5), (44_999 + 45_000 + 500, 7)]);
}

#[tokio::test(start_paused = true)]
async fn slow_comments_let_a_connection_be_silent_for_three_times_their_longest_gap() {
    let comment = ": until 5\n\n";
    let slow = [(1000, comment), (20_000, comment), (16_000, comment)];
    let mut test = Test::new([opens_slowly(&slow, Then::Silence), opens(&[], Then::Silence)]);
    test.offsets(120).await;
    assert_eq!(test.opened()[1].0, 37_000 + 60_000 + 500);

    let quick = [(1000, comment), (14_000, comment)];
    let mut test = Test::new([opens_slowly(&quick, Then::Silence), opens(&[], Then::Silence)]);
    test.offsets(90).await;
    assert_eq!(test.opened()[1].0, 15_000 + 45_000 + 500);
}

#[tokio::test(start_paused = true)]
async fn a_gap_filled_with_notifications_is_no_silence() {
    let comment = ": hello\n\n";
    let busy = [(1000, comment), (30_000, SIX), (30_000, comment)];
    let mut test = Test::new([opens_slowly(&busy, Then::Silence), opens(&[], Then::Silence)]);
    test.offsets(110).await;
    assert_eq!(test.opened()[1].0, 61_000 + 45_000 + 500);
}

#[tokio::test(start_paused = true)]
async fn time_that_the_caller_spends_elsewhere_is_no_silence() {
    let mut test = Test::new([opens(&[SIX, SEVEN], Then::Silence)]);
    for _ in 0..2 {
        test.run.next().await.unwrap();
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!(test.offsets(40).await, [7]);
    assert_eq!(test.opened().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn time_that_the_caller_spends_elsewhere_after_a_dropped_call_is_no_silence_either() {
    let mut test = Test::new([opens(&[SIX], Then::Silence), opens(&[], Then::Silence)]);
    assert_eq!(test.offsets(10).await, [6]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(test.offsets(4).await, [0; 0]);
    assert_eq!(test.opened().len(), 1, "something may have come meanwhile");
    assert_eq!(test.offsets(2).await, [0; 0]);
    assert_eq!(test.opened().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_is_noticed_by_callers_who_hardly_listen() {
    for (listens_ms, elsewhere_ms) in [(0, 10), (1, 99), (500, 0), (10, 4000)] {
        let mut test = Test::new([opens(&[SIX], Then::Silence), opens(&[], Then::Silence)]);
        assert_eq!(test.offsets(1).await, [6]);
        while test.opened().len() < 2 {
            let next = test.run.next();
            let listened = timeout(Duration::from_millis(listens_ms), next).await;
            assert!(matches!(listened, Err(_) | Ok(Ok(Output::Status(_)))));
            sleep(Duration::from_millis(elsewhere_ms)).await;
            let silent = millis(test.begun);
            // The silence, 5 s to find something, and a call or two that come late for each.
            assert!(silent < 75_000, "{silent} ms, {listens_ms} of {elsewhere_ms}");
        }
        assert!(millis(test.begun) >= 45_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_longer_than_a_listener_would_bear_counts_for_nothing() {
    // As after a stop of the whole process: the clock has moved, and nobody ran.
    let comment = ": hello\n\n";
    let pieces = [(1000, comment), (1000, comment), (50_000, comment)];
    let mut test = Test::new([opens_slowly(&pieces, Then::Silence), opens(&[], Then::Silence)]);
    // It waits from before the stop until after it.
    test.offsets(1).await;
    tokio::time::advance(Duration::from_secs(51)).await;
    test.offsets(120).await;
    let silent_since = 1000 + 1000 + 50_000;
    assert!(test.opened()[1].0 <= silent_since + 45_000 + 5_000 + 500, "{:?}", test.opened());
}

#[tokio::test(start_paused = true)]
async fn without_connected_within_15_s_it_polls_every_5_s_and_tries_streams_again_within_60_s() {
    let held_back = Try::Opens(LogPosition::default(), vec![], Then::Silence);
    let pages = [Ok(page_of(&[6, 7], None)), Ok(page_of(&[], None)), Ok(page_of(&[9], Some(12)))];
    let tries = [
        held_back,
        Try::Hangs,
        opens(
            &[
                "event: notification\ndata: {\"offset\":9}\n\nevent: notification\ndata: {\"offset\":20}\n\n",
            ],
            Then::Silence,
        ),
    ];
    let mut test = Test::with(tries, pages, 0.5);
    assert_eq!(test.offsets(140).await, [6, 7, 9, 20]);
    let (opened, polled) = (test.opened(), test.polled());
    assert_eq!(polled[..4], [(15_000, 5), (15_000, 7), (20_000, 7), (20_000, 12)]);
    assert!(polled[4..].windows(2).all(|pair| pair[1].0 - pair[0].0 == 5000), "{polled:?}");
    let waits: Vec<_> = opened.windows(2).map(|pair| pair[1].0 - pair[0].0 - 15_000).collect();
    assert_eq!(waits[..2], [37_500, 37_500]);
    assert_eq!(opened[1].1, 12);
    let streaming_since = opened[2].0;
    assert!(polled.iter().all(|(time, _)| *time <= streaming_since), "polling ends");
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_before_connected_again_and_again_make_it_poll_too() {
    let ends_early = || Try::Opens(LogPosition::default(), vec![(6000, ": held back")], Then::Ends);
    let tries = (0..4).map(|_| ends_early()).chain([opens(&[NINE], Then::Silence)]);
    let mut test = Test::with(tries, [Ok(page_of(&[6, 7], None))], 0.0);
    assert_eq!(test.offsets(90).await, [6, 7, 9]);
    let (opened, polled) = (test.opened(), test.polled());
    assert_eq!(polled[0], (18_000, 5), "the third ends 18 s after the first was opened");
    assert_eq!(opened[..4].iter().map(|it| it.0).collect::<Vec<_>>(), [0, 6000, 12_000, 43_000]);

    // One that connects in between is proof that streams pass.
    let tries = [ends_early(), ends_early(), opens(&[], Then::Ends), ends_early(), ends_early()];
    let mut test = Test::with(tries, [], 0.0);
    test.offsets(24).await;
    assert_eq!(test.polled(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_tried_again_within_60_s_whatever_the_jitter() {
    for random in [0.0, 0.999_999] {
        let mut test = Test::with([Try::Hangs, Try::Hangs], [], random);
        test.offsets(100).await;
        let again = test.opened()[1].0 - 15_000;
        assert!((1000..=60_000).contains(&again), "{again}");
    }
}

#[tokio::test(start_paused = true)]
async fn failing_polls_beside_a_held_back_stream_are_tried_again_and_terminal_ones_end_it() {
    let pages = [Err(status(503, None)), Err(status(503, Some(30))), Ok(page_of(&[6], None))];
    let mut test = Test::with([Try::Hangs], pages, 1.0);
    assert_eq!(test.offsets(60).await, [6]);
    assert_eq!(test.polled()[..3], [(15_000, 5), (20_000, 5), (51_000, 5)]);

    let mut test = Test::with([Try::Hangs], [Err(status(403, None))], 1.0);
    assert!(test.error().await.to_string().contains("403"));
}

#[tokio::test(start_paused = true)]
async fn another_history_is_refused_and_so_is_one_that_is_no_longer_named() {
    let position = |history: Option<u128>| LogPosition {
        history: history.map(Uuid::from_u128),
        ..LogPosition::default()
    };
    let open = |history| Try::Opens(position(history), vec![(0, CONNECTED), (0, SIX)], Then::Ends);
    let same = Test::new([open(None), open(Some(1)), open(Some(1))]).offsets(10).await;
    assert_eq!(same, [6]);
    for other in [Some(2), None] {
        let error = Test::new([open(Some(1)), open(other)]).error().await;
        let Error::OtherHistory { expected, found } = error else { panic!("{error}") };
        assert_eq!((expected, found), (Uuid::from_u128(1), other.map(Uuid::from_u128)));
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_that_do_not_ascend_on_one_connection_are_said_once() {
    let event = |offset| -> &str {
        format!("event: notification\ndata: {{\"offset\":{offset}}}\n\n").leak()
    };
    let mut test = Test::new([
        // 5 was handled before: a server may begin there again.
        opens(&[event(5), event(6), event(9), event(8), event(9), event(10)], Then::Ends),
        opens(&[event(9), event(11)], Then::Silence),
    ]);
    let (mut offsets, mut said) = (Vec::new(), Vec::new());
    while let Ok(output) = timeout(Duration::from_secs(10), test.run.next()).await {
        match output.unwrap() {
            Output::Notification(notification) => offsets.push(notification.offset().get()),
            Output::Status(Status::NotAscending { offset, after }) => {
                said.push((offset.get(), after.get()));
            }
            _ => {}
        }
    }
    assert_eq!((offsets, said), (vec![6, 9, 10, 11], vec![(8, 9)]));
}

#[tokio::test(start_paused = true)]
async fn where_a_client_begins_at_the_oldest_nothing_is_said_of_what_was_before() {
    for (history, after, said) in [(None, 0, 0), (None, 1, 1), (Some(1), 0, 1)] {
        let position = LogPosition {
            trim: Some(offset(6)),
            history: Some(Uuid::from_u128(1)),
            ..LogPosition::default()
        };
        let known = history.map(Uuid::from_u128).map_or_else(OnceLock::new, OnceLock::from);
        // The second connection says the same, and nothing is said of it again.
        let tries = [Then::Ends, Then::Silence]
            .map(|then| Try::Opens(position, vec![(0, CONNECTED)], then));
        let mut test = Test::begun(tries, [], 1.0, offset(after), Arc::new(known));
        let mut trimmed = 0;
        while let Ok(output) = timeout(Duration::from_secs(10), test.run.next()).await {
            trimmed += u32::from(matches!(output, Ok(Output::Status(Status::Trimmed { .. }))));
        }
        assert_eq!(trimmed, said, "{history:?} {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trim_point_ahead_is_said() {
    for (trim, said) in [(5, 0), (6, 1)] {
        let position = LogPosition { trim: Some(offset(trim)), ..LogPosition::default() };
        let open = Try::Opens(position, vec![(0, CONNECTED)], Then::Silence);
        let mut test = Test::new([open]);
        let mut trimmed = 0;
        while let Ok(output) = timeout(Duration::from_secs(1), test.run.next()).await {
            if let Output::Status(Status::Trimmed { after, trim: to }) = output.unwrap() {
                assert_eq!((after.get(), to.get()), (5, 6));
                trimmed += 1;
            }
        }
        assert_eq!(trimmed, said);
    }
}

#[tokio::test(start_paused = true)]
async fn until_moves_where_the_next_connection_begins() {
    let mut test =
        Test::new([opens(&[SIX, ": until 45\n\n: until 44\n\n"], Then::Ends), Try::Hangs]);
    assert_eq!(test.offsets(5).await, [6]);
    assert_eq!(test.opened(), [(0, 5), (500, 45)]);
    assert!(test.begun.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_call_after_a_poll_that_ended_the_run_polls_no_sooner_than_others() {
    let pages = [Err(status(403, None)), Err(status(403, None))];
    let mut test = Test::with([Try::Hangs, Try::Hangs, Try::Hangs], pages, 1.0);
    for _ in 0..2 {
        assert!(test.error().await.to_string().contains("403"));
    }
    test.offsets(4).await;
    assert_eq!(test.polled(), [(15_000, 5), (20_000, 5)]);
}

#[tokio::test(start_paused = true)]
async fn time_that_the_caller_spends_elsewhere_is_no_gap_between_comments() {
    let comments = [(1000, ": until 6\n\n"), (15_000, ": until 7\n\n: until 8\n\n")];
    // Away after a call that was dropped while it waited, and between two comments of one piece.
    for (outputs, away) in [(2, 16_000), (3, 40_000)] {
        let mut test =
            Test::new([opens_slowly(&comments, Then::Silence), opens(&[], Then::Silence)]);
        for _ in 0..outputs {
            test.run.next().await.unwrap();
        }
        if outputs == 2 {
            timeout(Duration::from_secs(1), test.run.next()).await.unwrap_err();
        }
        sleep(Duration::from_millis(away)).await;
        let back = millis(test.begun);
        test.offsets(120).await;
        assert_eq!(test.opened()[1].0, back + 45_000 + 500);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_good_forgets_earlier_failures_even_if_it_ends_with_nonsense() {
    let failures = (0..3).map(|_| Try::Fails(status(503, None)));
    let nonsense = opens_slowly(&[(30_000, "event: notification\ndata: 6\n\n")], Then::Silence);
    let mut test = Test::new(failures.chain([nonsense, opens(&[SIX], Then::Silence)]));
    assert!(matches!(test.error().await, Error::Undecodable { .. }));
    assert_eq!(test.offsets(10).await, [6]);
    let times: Vec<_> = test.opened().into_iter().map(|(time, _)| time).collect();
    assert_eq!(times[4] - times[3], 30_000 + 500);
}
