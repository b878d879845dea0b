//! A thousand clients whose server ends all their streams at one instant.

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, FuturesUnordered},
};

use super::{server::no_connection, *};

const CLIENTS: usize = 1000;
/// When all streams end: they have been good for long.
const ENDS_AT: Duration = Duration::from_secs(60);

struct Herd {
    begun: Instant,
    /// From the end of the streams until then nobody is there.
    away: Duration,
    /// What the end of a stream asks to wait, in milliseconds.
    hints: Option<Range<u64>>,
    rng: Mutex<StdRng>,
    /// When streams were asked for after the end.
    opens: Mutex<Vec<Duration>>,
}

struct Client(Arc<Herd>);

impl Source for Client {
    fn open(&self, _after: Offset) -> BoxFuture<'static, Result<Opened, Error>> {
        let herd = Arc::clone(&self.0);
        async move {
            let end = herd.begun + ENDS_AT;
            let first = Instant::now() < end;
            if !first {
                let since = end.elapsed();
                lock(&herd.opens).push(since);
                assert!(lock(&herd.opens).len() < 100 * CLIENTS, "a busy loop");
                if since < herd.away {
                    return Err(no_connection().await);
                }
            }
            Ok(Opened {
                position: LogPosition::default(),
                bytes: herd.stream(first.then_some(end)),
            })
        }
        .boxed()
    }

    fn page(&self, _after: Offset) -> BoxFuture<'static, Result<Page, Error>> {
        unreachable!("every stream delivers")
    }

    fn random(&mut self) -> f64 {
        lock(&self.0.rng).random()
    }
}

impl Herd {
    /// A stream with comments; the first one ends.
    fn stream(&self, end: Option<Instant>) -> BoxStream<'static, Result<bytes::Bytes, Error>> {
        let comments = stream::unfold((), |()| async {
            tokio::time::sleep(seconds(15)).await;
            Some((Ok(":\n\n".into()), ()))
        });
        let connected = stream::iter([Ok("event: connected\ndata:\n\n".into())]).chain(comments);
        let Some(end) = end else { return connected.boxed() };
        let hint = self.hints.clone().map(|hints| lock(&self.rng).random_range(hints));
        let hint = hint.map(|hint| Ok(format!("retry: {hint}\n\n").into()));
        connected.take_until(sleep_until(end)).chain(stream::iter(hint)).boxed()
    }
}

/// When the clients came back, counted from the end of their streams, once all are connected again.
fn opens(away: Duration, hints: Option<Range<u64>>) -> Vec<Duration> {
    paused(async {
        let (begun, rng) = (Instant::now(), Mutex::new(StdRng::seed_from_u64(1)));
        let herd = Arc::new(Herd { begun, away, hints, rng, opens: Mutex::default() });
        let mut runs: FuturesUnordered<_> = (0..CLIENTS)
            .map(|_| async {
                let mut run = Run::new(Client(Arc::clone(&herd)), Offset::ZERO, Arc::default());
                let until = begun + ENDS_AT + away + seconds(60);
                while let Ok(output) = timeout_at(until, run.next()).await {
                    output.unwrap();
                }
                assert!(matches!(run.link, Link::Open(_)), "every client comes back");
            })
            .collect();
        while runs.next().await.is_some() {}
        drop(runs);
        let mut opens = std::mem::take(&mut *lock(&herd.opens));
        opens.sort_unstable();
        opens
    })
}

fn count(opens: &[Duration], from: Duration, to: Duration) -> usize {
    opens.iter().filter(|at| from <= **at && **at < to).count()
}

/// The most that come in one of the ten parts of a time.
fn most_in_a_tenth(opens: &[Duration], from: Duration, length: Duration) -> usize {
    let part = length / 10;
    (0..10).map(|nth| count(opens, from + part * nth, from + part * (nth + 1))).max().unwrap()
}

/// Each client waits for an even draw of up to 0.5 s, so a tenth of that gets 100 of 1000 with a deviation of 9.5. By
/// Chernoff's bound the chance of 200 is below e^-38; so much for luck, and the seed is fixed.
#[test]
fn a_thousand_clients_whose_streams_end_at_once_spread_over_the_first_wait() {
    let opens = opens(Duration::ZERO, None);
    assert_eq!(opens.len(), CLIENTS, "each comes back once");
    assert!(opens.last() <= Some(&millis(500)));
    let most = most_in_a_tenth(&opens, Duration::ZERO, millis(500));
    assert!(most < 200, "{most} in 50 ms");
}

/// A hint of 0.5 to 3 s and up to 0.5 s on top: 0.5 to 3.5 s, where a tenth in the middle gets 0.3 / 2.5 of all, 120
/// with a deviation of 10.3. The chance of 200 is below e^-22.
#[test]
fn hints_drawn_as_in_a_drain_spread_a_thousand_clients_over_three_seconds() {
    let opens = opens(Duration::ZERO, Some(500..3000));
    assert_eq!(opens.len(), CLIENTS, "each comes back once");
    assert!(opens.first() >= Some(&millis(500)) && opens.last() <= Some(&millis(3500)));
    let most = most_in_a_tenth(&opens, millis(500), seconds(3));
    assert!(most < 200, "{most} in 300 ms");
}

/// By then all have had time to wait by the longest bound, 30 s: 15 s on average, 1000 / 15 s requests a second. Of 2000
/// in 30 s the deviation is 26 (a client's waits vary by 75 s², so its requests by 75 * 30 / 15³): 2200 is 7 of them.
#[test]
fn a_thousand_clients_of_a_server_that_stays_away_ask_less_and_less() {
    for hints in [None, Some(500..3000)] {
        let opens = opens(seconds(60), hints.clone());
        // The first second is for the first tries, which hints put off to the first four.
        let begin = if hints.is_some() { 4 } else { 1 };
        let ends = [begin, 2 * begin, 4 * begin, 8 * begin, 60].map(seconds);
        let rate = |from: Duration, to: Duration| {
            f64::from(u32::try_from(count(&opens, from, to)).unwrap()) / (to - from).as_secs_f64()
        };
        let first = rate(Duration::ZERO, ends[0]);
        let rates = ends.windows(2).map(|ends| rate(ends[0], ends[1]));
        let rates: Vec<_> = [first].into_iter().chain(rates).collect();
        assert!(rates.is_sorted_by(|before, after| before > after), "{rates:?}");
        let last = count(&opens, seconds(30), seconds(60));
        assert!(last < 2200, "{last} in 30 s");
    }
}

/// What is left of an even wait of up to 30 s lies in the first tenth with a chance of 0.19: 190 of 1000 with a deviation
/// of 12.4, and 250 is 5 of them.
#[test]
fn a_thousand_clients_of_a_server_that_was_away_come_back_over_half_a_minute() {
    for hints in [None, Some(500..3000)] {
        let opens = opens(seconds(60), hints);
        assert_eq!(count(&opens, seconds(60), seconds(120)), CLIENTS, "each comes back once");
        let longest = seconds(60 + 30 + 3);
        assert!(*opens.last().unwrap() < longest, "within the longest wait");
        let most = most_in_a_tenth(&opens, seconds(60), seconds(30));
        assert!(most < 250, "{most} in 3 s");
    }
}

/// After 5 s most have waits of up to 4 or 8 s: some 200 to 250 come in a second, 12 in 50 ms. The chance of 50 is below
/// e^-30: a server that comes back has half of what the end of its streams brought, and then less.
#[test]
fn a_thousand_clients_of_a_server_back_after_5_s_do_not_come_at_once() {
    let opens = opens(seconds(5), None);
    assert_eq!(count(&opens, seconds(5), seconds(120)), CLIENTS, "each comes back once");
    let most =
        (0..8).map(|part| most_in_a_tenth(&opens, seconds(5) + millis(500) * part, millis(500)));
    let most = most.max().unwrap();
    assert!(most < 50, "{most} in 50 ms");
}
