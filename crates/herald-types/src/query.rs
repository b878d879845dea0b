//! `HerIds`, `Offset` and `NotificationsToFetch`: text in, valid values out, or every violation.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::{HerId, HerIds, Offset, Violations, offset::plain_digits, violation::echo};

/// The violation of a stream that names no place to begin, which a problem's `detail` repeats.
pub const STREAM_OFFSET_REQUIRED: &str = "Offset is required: 0 starts at the oldest notification, \
                                          the header herald-tail of a poll's answer is now";

/// How many notifications one page may hold, 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageLimit(u16);

impl PageLimit {
    /// The smallest page.
    pub const MIN: Self = Self(1);
    /// The largest page.
    pub const MAX: Self = Self(1000);
    /// The page of a poll that does not say.
    pub const DEFAULT: Self = Self(100);

    /// The limit with this number, or `None` outside 1..=1000.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A valid query of `GET /notifications`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollQuery {
    /// Whose notifications.
    pub her_ids: HerIds,
    /// The last offset handled.
    pub after: Offset,
    /// The most to answer with.
    pub limit: PageLimit,
}

/// A valid query of `GET /notifications/stream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamQuery {
    /// Whose notifications.
    pub her_ids: HerIds,
    /// The last offset handled.
    pub after: Offset,
}

impl PollQuery {
    /// Reads the part of a URL behind `?`.
    ///
    /// # Errors
    /// Every violation found.
    pub fn parse(query: &str) -> Result<Self, Violations> {
        let raw = Raw::read(query);
        let mut violations = Violations::new();
        let her_ids = raw.her_ids(&mut violations);
        let after = raw.offset(None, &mut violations);
        let limit = raw.limit(&mut violations);
        let parsed = (|| Some(Self { her_ids: her_ids?, after: after?, limit: limit? }))();
        violations.none_or(parsed)
    }
}

impl StreamQuery {
    /// Reads the part of a URL behind `?`; `last_event_id`, when a reconnecting reader sends it, replaces `Offset`.
    ///
    /// # Errors
    /// Every violation found.
    pub fn parse(query: &str, last_event_id: Option<&str>) -> Result<Self, Violations> {
        let raw = Raw::read(query);
        let mut violations = Violations::new();
        let her_ids = raw.her_ids(&mut violations);
        let after = raw.offset(Some(last_event_id), &mut violations);
        let parsed = (|| Some(Self { her_ids: her_ids?, after: after? }))();
        violations.none_or(parsed)
    }
}

/// The values of the known names, decoded; unknown names are dropped.
#[derive(Default)]
struct Raw<'a> {
    her_ids: Vec<Cow<'a, str>>,
    offsets: Vec<Cow<'a, str>>,
    limits: Vec<Cow<'a, str>>,
}

impl<'a> Raw<'a> {
    fn read(query: &'a str) -> Self {
        let mut raw = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name);
            if name.eq_ignore_ascii_case("HerIds") {
                raw.her_ids.push(decode(value));
            } else if name.eq_ignore_ascii_case("Offset") {
                raw.offsets.push(decode(value));
            } else if name.eq_ignore_ascii_case("NotificationsToFetch") {
                raw.limits.push(decode(value));
            }
        }
        raw
    }

    fn her_ids(&self, violations: &mut Violations) -> Option<HerIds> {
        if self.her_ids.is_empty() {
            violations.add("HerIds is required: at least one HER-id");
            return None;
        }
        let mut her_ids: Vec<HerId> = Vec::with_capacity(self.her_ids.len());
        for text in &self.her_ids {
            match text.parse() {
                Ok(her_id) => her_ids.push(her_id),
                Err(error) => violations.add(format!("HerIds {}: {error}", echo(text))),
            }
        }
        if her_ids.is_empty() {
            return None;
        }
        HerIds::new(her_ids).map_err(|error| violations.add(format!("HerIds: {error}"))).ok()
    }

    /// `last_event_id` is `None` where there is no such header, `Some(None)` where there could be one.
    fn offset(
        &self,
        last_event_id: Option<Option<&str>>,
        violations: &mut Violations,
    ) -> Option<Offset> {
        let (name, text) = match (last_event_id, self.offsets.as_slice()) {
            (_, [_, _, ..]) => {
                violations.add("Offset must be given once");
                return None;
            }
            (Some(Some(text)), _) => ("Last-Event-ID", text),
            (_, [text]) => ("Offset", &**text),
            (None, []) => {
                violations.add("Offset is required: the offset of the last notification handled, 0 for the oldest");
                return None;
            }
            (Some(None), []) => {
                violations.add(STREAM_OFFSET_REQUIRED);
                return None;
            }
        };
        text.parse().map_err(|error| violations.add(format!("{name} {}: {error}", echo(text)))).ok()
    }

    fn limit(&self, violations: &mut Violations) -> Option<PageLimit> {
        let text = match self.limits.as_slice() {
            [] => return Some(PageLimit::DEFAULT),
            [text] => text,
            _ => {
                violations.add("NotificationsToFetch must be given once");
                return None;
            }
        };
        let limit =
            plain_digits(text).and_then(|number| PageLimit::new(u16::try_from(number).ok()?));
        if limit.is_none() {
            violations.add(format!(
                "NotificationsToFetch {}: must be a whole number from {} to {}, in plain decimal digits",
                echo(text),
                PageLimit::MIN.0,
                PageLimit::MAX.0,
            ));
        }
        limit
    }
}

/// A form-encoded name or value as text; bytes that are no UTF-8 become U+FFFD, which no known name or value has.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn violations(query: &str) -> Vec<String> {
        PollQuery::parse(query).unwrap_err().into_texts()
    }

    #[test]
    fn names_are_matched_without_regard_to_case_and_unknown_ones_ignored() {
        let query =
            PollQuery::parse("herids=7&HERIDS=5&offset=3&notificationstofetch=9&x=1&&y").unwrap();
        assert_eq!(query.her_ids.as_slice().iter().map(|id| id.get()).collect::<Vec<_>>(), [5, 7]);
        assert_eq!((query.after.get(), query.limit.get()), (3, 9));
        assert_eq!(PollQuery::parse("%48erIds=%37&Offset=0").unwrap().limit, PageLimit::DEFAULT);
    }

    #[test]
    fn every_violation_is_reported() {
        assert_eq!(violations("").len(), 2);
        assert_eq!(
            violations("HerIds=0&HerIds=x&HerIds=3&Offset=-1&NotificationsToFetch=1001").len(),
            4
        );
        assert_eq!(
            violations("HerIds=1&Offset=1&Offset=1&NotificationsToFetch=1&notificationstofetch=1")
                .len(),
            2
        );
        assert_eq!(violations("HerIds=1,2&Offset=+1&NotificationsToFetch=").len(), 3);
    }

    #[test]
    fn a_page_holds_1_to_1000() {
        for (text, valid) in
            [("0", false), ("1", true), ("1000", true), ("1001", false), ("65537", false)]
        {
            let query = format!("HerIds=1&Offset=0&NotificationsToFetch={text}");
            assert_eq!(PollQuery::parse(&query).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn last_event_id_replaces_the_offset_and_is_checked_like_it() {
        let after = |query, id| StreamQuery::parse(query, id).map(|query| query.after.get());
        assert_eq!(after("HerIds=1&Offset=3", None), Ok(3));
        assert_eq!(after("HerIds=1&Offset=3", Some("9")), Ok(9));
        assert_eq!(after("HerIds=1", Some("9")), Ok(9));
        assert!(after("HerIds=1&Offset=3", Some("x")).is_err());
        let texts = StreamQuery::parse("HerIds=1", None).unwrap_err().into_texts();
        assert!(texts[0].contains("herald-tail") && texts[0].contains("0 starts at the oldest"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(query in ".{0,200}", id in proptest::option::of(".{0,20}")) {
            let _ = PollQuery::parse(&query);
            let _ = StreamQuery::parse(&query, id.as_deref());
        }
    }
}
