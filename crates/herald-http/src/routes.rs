//! One file per resource.

pub(crate) mod append;
pub(crate) mod docs;
pub(crate) mod ping;
pub(crate) mod poll;
pub(crate) mod stream;
