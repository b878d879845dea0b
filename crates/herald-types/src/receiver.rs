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

/// HER-ids that belong together, sorted and distinct; any number of them, none too. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HerIdSet(Arc<[HerId]>);

impl HerIdSet {
    /// Whether `her_id` is one of them. Cost: a binary search, the same for one that is and one that is not.
    #[must_use]
    pub fn contains(&self, her_id: HerId) -> bool {
        self.0.binary_search(&her_id).is_ok()
    }

    /// The HER-ids, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[HerId] {
        &self.0
    }
}

impl FromIterator<HerId> for HerIdSet {
    fn from_iter<I: IntoIterator<Item = HerId>>(her_ids: I) -> Self {
        let mut her_ids: Vec<HerId> = her_ids.into_iter().collect();
        her_ids.sort_unstable();
        her_ids.dedup();
        Self(her_ids.into())
    }
}

/// What a caller may see.
///
/// Invariant: what is granted only shrinks by [`Grant::within`], so that each source of permission can only take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(Granted);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Granted {
    Everything,
    These(HerIdSet),
    Both(HerIdSet, HerIdSet),
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
    pub const fn of(her_ids: HerIdSet) -> Self {
        Self(Granted::These(her_ids))
    }

    /// What is granted here and is one of `her_ids` too.
    #[must_use]
    pub fn within(self, her_ids: HerIdSet) -> Self {
        Self(match self.0 {
            Granted::Everything => Granted::These(her_ids),
            Granted::These(granted) => Granted::Both(granted, her_ids),
            Granted::Both(one, other) => {
                let both = one.as_slice().iter().copied().filter(|id| other.contains(*id));
                Granted::Both(both.collect(), her_ids)
            }
        })
    }

    /// Whether every one of `receivers` is still granted: what was granted once may not be for ever.
    #[must_use]
    pub fn still_covers(&self, receivers: &Receivers) -> bool {
        receivers.0.iter().all(|her_id| self.covers(*her_id))
    }

    /// That notifications may be appended for each of `her_ids`.
    ///
    /// # Errors
    /// [`NotGranted`] with each HER-id that this grant does not cover.
    pub fn check(&self, her_ids: impl IntoIterator<Item = HerId>) -> Result<(), NotGranted> {
        let refused = her_ids.into_iter().filter(|her_id| !self.covers(*her_id));
        let mut her_ids: Vec<HerId> = refused.collect();
        if her_ids.is_empty() {
            return Ok(());
        }
        her_ids.sort_unstable();
        her_ids.dedup();
        Err(NotGranted { her_ids })
    }

    /// The requested HER-ids as receivers to read for, all or none.
    ///
    /// A HER-id that does not exist and one of somebody else's are the same here: neither is in the set.
    ///
    /// # Errors
    /// [`NotGranted`] with each HER-id that this grant does not cover.
    pub fn narrow(&self, requested: HerIds) -> Result<Receivers, NotGranted> {
        self.check(requested.0.iter().copied())?;
        Ok(Receivers(requested.0))
    }

    fn covers(&self, her_id: HerId) -> bool {
        match &self.0 {
            Granted::Everything => true,
            Granted::These(granted) => granted.contains(her_id),
            // Not lazily: how long it takes does not tell which of them has it.
            Granted::Both(one, other) => one.contains(her_id) & other.contains(her_id),
        }
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

    fn set(numbers: impl IntoIterator<Item = u32>) -> HerIdSet {
        numbers.into_iter().map(HerId).collect()
    }

    #[test]
    fn one_her_id_outside_the_grant_refuses_all() {
        let grant = Grant::of(set([3, 1, 2, 3]));
        assert_eq!(grant.narrow(her_ids([3, 1])).unwrap().as_slice(), [HerId(1), HerId(3)]);
        let refused = grant.narrow(her_ids([1, 9, 4])).unwrap_err();
        assert_eq!(refused.her_ids, [HerId(4), HerId(9)]);
        assert!(Grant::everything().narrow(her_ids([9])).is_ok());
        assert!(Grant::of(HerIdSet::default()).narrow(her_ids([1])).is_err());
    }

    #[test]
    fn what_is_granted_within_something_is_in_both() {
        let granted = |grant: &Grant| -> Vec<u32> {
            (1..10).filter(|number| grant.narrow(her_ids([*number])).is_ok()).collect()
        };
        let grant = Grant::everything().within(set(1..6));
        assert_eq!(granted(&grant), [1, 2, 3, 4, 5]);
        let grant = grant.within(set(3..9));
        assert_eq!(granted(&grant), [3, 4, 5]);
        let grant = grant.within(set([1, 2, 3, 5, 9]));
        assert_eq!(granted(&grant), [3, 5]);
        assert!(granted(&grant.within(set([]))).is_empty());
    }

    #[test]
    fn receivers_are_covered_until_one_of_them_is_lost() {
        let receivers = Grant::everything().narrow(her_ids([1, 2])).unwrap();
        assert!(Grant::of(set([1, 2, 3])).still_covers(&receivers));
        assert!(!Grant::of(set([1, 3])).still_covers(&receivers));
        assert!(Grant::everything().still_covers(&receivers));
    }

    #[test]
    fn an_append_outside_the_grant_names_each_her_id_once() {
        let refused = Grant::of(set([1])).check([9, 1, 4, 9].map(HerId)).unwrap_err();
        assert_eq!(refused.her_ids, [HerId(4), HerId(9)]);
        assert_eq!(Grant::everything().check([HerId(9)]), Ok(()));
    }
}
