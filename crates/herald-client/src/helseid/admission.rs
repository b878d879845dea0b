//! Whether a server takes our tokens, and what follows when it does not.
//!
//! A server learns of an issuer's new key some time after the issuer signs with it: it may look for one only once a minute. So
//! a refusal of what was taken before says little at first, and another token seldom helps. Nothing here knows the time or
//! draws a random number.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// For how long a server that has let this client in may refuse each of its tokens before that is final: twice the minute
/// for which servers may not look for a new key of the issuer.
pub const TOKEN_REFUSED_MAX: Duration = Duration::from_secs(120);

/// How a client fares with its server.
#[derive(Default)]
pub(super) struct Admission {
    /// A call has succeeded.
    was_let_in: bool,
    /// Since when there has been nothing but refusals.
    refused_since: Option<Instant>,
    /// The waits between tokens that replace refused ones.
    backoff: Backoff,
    /// A refused token is used on until then.
    replace_at: Option<Instant>,
}

impl Admission {
    /// A call has succeeded.
    pub(super) fn let_in(&mut self) {
        *self = Self { was_let_in: true, ..Self::default() };
    }

    /// A call has failed without a word of the token: what was refused before it is too long ago to count.
    pub(super) fn interrupted(&mut self) {
        self.refused_since = None;
    }

    /// The token was refused. Returns whether that may pass by itself.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        let since = *self.refused_since.get_or_insert(now);
        self.was_let_in && now.saturating_duration_since(since) < TOKEN_REFUSED_MAX
    }

    /// Whether to ask for another token in place of a refused one: the first time at once, then with the usual waits between,
    /// however many calls are refused.
    pub(super) fn replaces(&mut self, random: f64, now: Instant) -> bool {
        let is_due = self.replace_at.is_none_or(|at| now >= at);
        if is_due {
            self.replace_at = Some(now + self.backoff.wait(random, None));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn refusals_pass_for_two_minutes_and_only_of_who_was_let_in() {
        let begun = Instant::now();
        let mut admission = Admission::default();
        assert!(!admission.refused(begun), "nobody knows this client");
        admission.let_in();
        let begun = begun + MS(600_000);
        for (millis, passes) in [(0, true), (60_000, true), (119_999, true), (120_000, false)] {
            assert_eq!(admission.refused(begun + MS(millis)), passes, "{millis}");
        }
        admission.let_in();
        assert!(admission.refused(begun + MS(120_001)));
    }

    #[test]
    fn what_says_nothing_of_the_token_ends_a_row_of_refusals() {
        let begun = Instant::now();
        let mut admission = Admission::default();
        admission.interrupted();
        assert!(!admission.refused(begun), "it lets nobody in either");
        admission.let_in();
        assert!(admission.refused(begun));
        admission.interrupted();
        assert!(admission.refused(begun + MS(500_000)));
        assert!(!admission.refused(begun + MS(620_000)));
    }

    #[test]
    fn refused_tokens_are_replaced_at_once_and_then_with_the_usual_waits() {
        let begun = Instant::now();
        let mut admission = Admission::default();
        let asked = (0..20_000).filter(|millis| admission.replaces(1.0, begun + MS(*millis)));
        assert_eq!(asked.collect::<Vec<_>>(), [0, 500, 1500, 3500, 7500, 15_500]);
        admission.let_in();
        assert!(admission.replaces(1.0, begun + MS(20_000)));
        assert!(!admission.replaces(1.0, begun + MS(20_499)));
    }
}
