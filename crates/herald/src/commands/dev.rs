//! What only laptops and tests need.

pub(super) mod issuer;
