//! Durations as people write them: `15s`, `100ms`, `30d`, `1h30m`.

use std::time::Duration;

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Text that is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a duration such as 100ms, 15s, 1h30m or 30d")]
pub(crate) struct InvalidDuration;

/// Reads whole numbers with the units `d`, `h`, `m`, `s` and `ms`, the longest first and each at most once.
///
/// # Errors
/// [`InvalidDuration`] for anything else, and for more than fits.
pub(crate) fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let mut rest = text;
    let mut units = UNITS.as_slice();
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| InvalidDuration)?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let at = units.iter().position(|(name, _)| *name == &rest[..letters]);
        let at = at.ok_or(InvalidDuration)?;
        let unit_ms = number.checked_mul(units[at].1).ok_or(InvalidDuration)?;
        total_ms = total_ms.checked_add(unit_ms).ok_or(InvalidDuration)?;
        units = &units[at + 1..];
        rest = &rest[letters..];
    }
    if text.is_empty() { Err(InvalidDuration) } else { Ok(Duration::from_millis(total_ms)) }
}

/// Writes a duration so that [`parse`] reads the same; parts of a millisecond are dropped.
#[must_use]
pub(crate) fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, unit) in UNITS {
        if rest >= unit {
            text.push_str(&format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("0s", 0),
            ("100ms", 100),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("90m", 5_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "15",
            "s",
            "-1s",
            "+1s",
            "1.5h",
            "1 s",
            "1S",
            "1s1h",
            "1s1s",
            "1w",
            "1sec",
            "１s",
            "18446744073709551615d",
            "1h ",
        ] {
            assert_eq!(parse(text), Err(InvalidDuration), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for ms in [0, 1, 999, 1_000, 61_001, 86_400_000, 93_784_005] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse(&show(duration)), Ok(duration));
        }
        assert_eq!(show(Duration::from_secs(90)), "1m30s");
    }
}
