//! How long to wait before the next try: full jitter, with the server's wishes as floors.
//!
//! Nothing here knows the time or draws a random number: both are arguments.

use std::time::{Duration, SystemTime};

/// The longest wait after the first failure, before what the server asks for.
pub const WAIT_BASE: Duration = Duration::from_millis(500);
/// The longest wait after many failures, before what the server asks for.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// A connection that has been good for so long makes earlier failures forgotten.
pub const GOOD_AFTER: Duration = Duration::from_secs(30);
/// The least that a `retry:` hint counts.
pub const HINT_MIN: Duration = Duration::from_millis(100);
/// The most that a `retry:` hint counts.
pub const HINT_MAX: Duration = Duration::from_secs(60);
/// The most that a `Retry-After` counts.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5 * 60);

/// The waits of one connection that is to be made again and again.
///
/// Full jitter: a wait is drawn evenly between 0 and a bound that starts at [`WAIT_BASE`] and doubles with each failure
/// up to [`WAIT_MAX`], so that many clients of one server that comes back spread by themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    hint: Duration,
}

impl Backoff {
    /// No failure yet and no hint.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { failures: 0, hint: Duration::ZERO }
    }

    /// Counts a failure and returns the wait before the next try.
    ///
    /// `random` is drawn evenly from 0 up to 1; `retry_after` is what the failed answer asked for. It and the last hint
    /// are floors: the jitter comes on top.
    pub(crate) fn wait(&mut self, random: f64, retry_after: Option<Duration>) -> Duration {
        let bound = WAIT_BASE.saturating_mul(1 << self.failures.min(16)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        let asked = retry_after.unwrap_or(Duration::ZERO).min(RETRY_AFTER_MAX);
        self.hint.max(asked) + bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Takes a `retry:` hint, which holds until the next one.
    pub(crate) fn hinted(&mut self, hint: Duration) {
        self.hint = hint.clamp(HINT_MIN, HINT_MAX);
    }

    /// Says how long a connection has been good; from [`GOOD_AFTER`] on, earlier failures are forgotten.
    pub(crate) fn good_for(&mut self, good: Duration) {
        if good >= GOOD_AFTER {
            self.failures = 0;
        }
    }
}

/// Reads a `Retry-After` header, seconds or a date, at most [`RETRY_AFTER_MAX`]; `None` if it is neither.
#[must_use]
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds are more than the most that counts.
        value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_bound_of_a_wait_doubles_from_half_a_second_to_thirty() {
        let mut backoff = Backoff::new();
        let bounds: Vec<_> = (0..9).map(|_| backoff.wait(1.0, None)).collect();
        let expected = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000].map(MS);
        assert_eq!(bounds, expected);
        assert_eq!(backoff.wait(0.0, None), Duration::ZERO);
    }

    #[test]
    fn failures_are_forgotten_after_thirty_good_seconds_and_not_before() {
        let mut backoff = Backoff::new();
        for _ in 0..40 {
            backoff.wait(0.5, None);
        }
        backoff.good_for(MS(29_999));
        assert_eq!(backoff.wait(1.0, None), WAIT_MAX);
        backoff.good_for(MS(30_000));
        assert_eq!(backoff.wait(1.0, None), WAIT_BASE);
    }

    #[test]
    fn a_hint_is_a_floor_between_a_tenth_and_sixty_seconds_until_the_next_one() {
        let mut backoff = Backoff::new();
        for (hint, floor) in [(0, 100), (99, 100), (2500, 2500), (60_001, 60_000)] {
            backoff.hinted(MS(hint));
            assert_eq!(backoff.wait(0.0, None), MS(floor), "retry: {hint}");
            assert_eq!(backoff.wait(0.0, None), MS(floor), "and it holds");
        }
        backoff.hinted(MS(700));
        assert_eq!(Backoff { failures: 0, ..backoff }.wait(0.5, None), MS(700 + 250));
    }

    #[test]
    fn retry_after_is_a_floor_for_one_wait_up_to_five_minutes() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.wait(0.5, Some(MS(7000))), MS(7250));
        assert_eq!(backoff.wait(0.5, None), MS(500));
        assert_eq!(backoff.wait(0.0, Some(MS(300_001))), RETRY_AFTER_MAX);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_any_http_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("300", Some(300)),
            ("301", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:49:50 GMT", Some(13)),
            ("Sunday, 06-Nov-94 08:49:50 GMT", Some(13)),
            ("Sun Nov  6 08:49:50 1994", Some(13)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:40:00 GMT", Some(300)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_its_floor_and_its_floor_and_thirty_seconds(
            failures in 0_u32..100, random in 0.0..1.0_f64, hint in 0_u64..100_000, after in 0_u64..400_000,
        ) {
            let mut backoff = Backoff { failures, hint: Duration::ZERO };
            backoff.hinted(MS(hint));
            let wait = backoff.wait(random, Some(MS(after)));
            let floor = MS(hint.clamp(100, 60_000).max(after.min(300_000)));
            prop_assert!(wait >= floor && wait <= floor + WAIT_MAX);
        }
    }
}
