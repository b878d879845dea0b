//! A notification's place in the global log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A notification's place in the global log: 1 is the first, 0 is "before everything".
///
/// The width on the wire is a signed 64-bit integer that is never negative, so the largest is 2^63-1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct Offset(u64);

impl Offset {
    /// Before everything: nothing has this offset.
    pub const ZERO: Self = Self(0);
    /// The largest offset, 2^63-1.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The offset with this number, or `None` past [`Offset::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that is not an offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 0 to {max}, in plain decimal digits", max = Offset::MAX)]
pub struct InvalidOffset;

impl FromStr for Offset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        plain_digits(text).and_then(Self::new).ok_or(InvalidOffset)
    }
}

impl TryFrom<u64> for Offset {
    type Error = InvalidOffset;

    fn try_from(number: u64) -> Result<Self, InvalidOffset> {
        Self::new(number).ok_or(InvalidOffset)
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> u64 {
        offset.0
    }
}

/// Reads ASCII digits only: no sign, no space, no other script's digits. Leading zeros are fine.
pub(crate) fn plain_digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_from_0_to_2_to_the_63_minus_1() {
        assert_eq!("0".parse(), Ok(Offset::ZERO));
        assert_eq!("9223372036854775807".parse(), Ok(Offset::MAX));
        assert_eq!("9223372036854775808".parse::<Offset>(), Err(InvalidOffset));
        assert_eq!("99999999999999999999999".parse::<Offset>(), Err(InvalidOffset));
    }

    #[test]
    fn only_plain_decimal_digits_are_an_offset() {
        for text in ["", " ", "-1", "+1", "1 ", "0x10", "1e3", "1.0", "1_0", "١", "１"] {
            assert_eq!(text.parse::<Offset>(), Err(InvalidOffset), "{text:?}");
        }
        assert_eq!("007".parse(), Ok(Offset(7)));
    }
}
