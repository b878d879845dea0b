//! Which HER-ids an organisation has, and so what a token is worth.

use herald_types::{Grant, HerIdSet};

use crate::{
    lists::{Listed, Lists, Subject},
    token::{Claimed, Holder},
};

/// That a document says which HER-ids each organisation has, by its number.
#[derive(Debug)]
pub enum OfOrganisations {}

/// The HER-ids of each organisation.
pub type Organisations = Lists<OfOrganisations>;

impl Subject for OfOrganisations {
    const NAME: &'static str = "organisations";
    // Nobody has all there are.
    const TAKES_ALL: bool = false;
}

impl Organisations {
    /// What whoever holds a token may see now: what its organisation has, cut down to what its claim says. An organisation
    /// that is not known has nothing.
    #[must_use]
    pub fn grant(&self, holder: &Holder) -> Grant {
        let listed = holder.organisation.as_deref().and_then(|number| self.get(number));
        let her_ids = match listed {
            Some(Listed::These(her_ids)) => her_ids,
            Some(Listed::All) | None => HerIdSet::default(),
        };
        match &holder.claimed {
            Claimed::All => Grant::of(her_ids),
            Claimed::These(claimed) => Grant::of(her_ids).within(claimed.clone()),
        }
    }

    /// Why nothing at all is granted to whoever holds a token, where it is the token's own fault.
    #[must_use]
    pub fn doubt(&self, holder: &Holder) -> Option<&'static str> {
        match (&holder.organisation, &holder.claimed) {
            (None, _) => Some("the token names no organisation"),
            (Some(number), _) if self.get(number).is_none() => {
                Some("the token's organisation is not known")
            }
            (_, Claimed::These(claimed)) if claimed.as_slice().is_empty() => {
                Some("the token's HER-id claim is missing or malformed")
            }
            _ => None,
        }
    }
}
