//! Whom a notification is for, and who may see it.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::offset::plain_digits;

/// The most receivers of one call, after removing repeats. Source: docs/protocol.md §3.
pub const RECEIVERS_MAX: usize = 1500;

/// The number that names a communication party, from 1 to 2147483647.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u32")]
pub struct HerId(u32);

impl HerId {
    /// The smallest HER-id.
    pub const MIN: Self = Self(1);
    /// The largest HER-id, 2^31-1.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// The HER-id with this number, or `None` outside 1..=2147483647.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for HerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number or text that is not a HER-id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 1 to {max}, in plain decimal digits", max = HerId::MAX)]
pub struct InvalidHerId;

impl FromStr for HerId {
    type Err = InvalidHerId;

    fn from_str(text: &str) -> Result<Self, InvalidHerId> {
        plain_digits(text).ok_or(InvalidHerId)?.try_into()
    }
}

impl TryFrom<u64> for HerId {
    type Error = InvalidHerId;

    fn try_from(number: u64) -> Result<Self, InvalidHerId> {
        u32::try_from(number).ok().and_then(Self::new).ok_or(InvalidHerId)
    }
}

impl From<HerId> for u32 {
    fn from(her_id: HerId) -> u32 {
        her_id.0
    }
}

/// The HER-ids that a call asks for: sorted, distinct, 1 to [`RECEIVERS_MAX`].
///
/// They are a wish. What may be read is [`Receivers`], and only [`Grant::narrow`] makes those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HerIds(Arc<[HerId]>);

/// How many distinct HER-ids there were, where 1 to [`RECEIVERS_MAX`] are allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {RECEIVERS_MAX} distinct HER-ids, there are {0}")]
pub struct InvalidCount(pub usize);

impl HerIds {
    /// Sorts and removes repeats.
    ///
    /// # Errors
    /// [`InvalidCount`] if none or more than [`RECEIVERS_MAX`] distinct ones are left.
    pub fn new(her_ids: impl IntoIterator<Item = HerId>) -> Result<Self, InvalidCount> {
        let mut her_ids: Vec<HerId> = her_ids.into_iter().collect();
        her_ids.sort_unstable();
        her_ids.dedup();
        match her_ids.len() {
            1..=RECEIVERS_MAX => Ok(Self(her_ids.into())),
            count => Err(InvalidCount(count)),
        }
    }

    /// The HER-ids, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[HerId] {
        &self.0
    }
}

/// The receivers that a reader may see: sorted, distinct, 1 to [`RECEIVERS_MAX`].
///
/// Invariant: only [`Grant::narrow`] makes one, so a forgotten permission check does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receivers(Arc<[HerId]>);

impl Receivers {
    /// The HER-ids, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[HerId] {
        &self.0
    }
}

/// What a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(Granted);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Granted {
    Everything,
    These(HerIds),
}

/// HER-ids that were asked for and are not granted, ascending.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no access to {} of the HER-ids", her_ids.len())]
pub struct NotGranted {
    /// The ones refused.
    pub her_ids: Vec<HerId>,
}

impl Grant {
    /// Every HER-id: what a server without authentication grants, which is why it stays on loopback.
    #[must_use]
    pub const fn everything() -> Self {
        Self(Granted::Everything)
    }

    /// These HER-ids and no others.
    #[must_use]
    pub const fn of(her_ids: HerIds) -> Self {
        Self(Granted::These(her_ids))
    }

    /// The requested HER-ids as receivers to read for, all or none.
    ///
    /// # Errors
    /// [`NotGranted`] with each HER-id that this grant does not cover.
    pub fn narrow(&self, requested: HerIds) -> Result<Receivers, NotGranted> {
        if let Granted::These(granted) = &self.0 {
            let refused = |her_id: &HerId| granted.0.binary_search(her_id).is_err();
            let her_ids: Vec<HerId> = requested.0.iter().copied().filter(refused).collect();
            if !her_ids.is_empty() {
                return Err(NotGranted { her_ids });
            }
        }
        Ok(Receivers(requested.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn her_ids(numbers: impl IntoIterator<Item = u32>) -> HerIds {
        HerIds::new(numbers.into_iter().map(HerId)).unwrap()
    }

    #[test]
    fn her_ids_go_from_1_to_2_to_the_31_minus_1() {
        assert_eq!("1".parse(), Ok(HerId(1)));
        assert_eq!("2147483647".parse(), Ok(HerId::MAX));
        for text in ["0", "2147483648", "4294967297", "-1", "+1", "1.0", "", "abc", "0x1", "１"] {
            assert_eq!(text.parse::<HerId>(), Err(InvalidHerId), "{text:?}");
        }
    }

    #[test]
    fn repeats_are_removed_before_counting() {
        let twice = (1..=1500).chain(1..=1500).map(HerId);
        assert_eq!(HerIds::new(twice).unwrap().as_slice().len(), RECEIVERS_MAX);
        assert_eq!(HerIds::new((1..=1501).map(HerId)), Err(InvalidCount(1501)));
        assert_eq!(HerIds::new([]), Err(InvalidCount(0)));
    }

    #[test]
    fn one_her_id_outside_the_grant_refuses_all() {
        let grant = Grant::of(her_ids([1, 2, 3]));
        assert_eq!(grant.narrow(her_ids([3, 1])).unwrap().as_slice(), [HerId(1), HerId(3)]);
        let refused = grant.narrow(her_ids([1, 9, 4])).unwrap_err();
        assert_eq!(refused.her_ids, [HerId(4), HerId(9)]);
        assert!(Grant::everything().narrow(her_ids([9])).is_ok());
    }
}
