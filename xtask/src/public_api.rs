//! `cargo xtask public-api`: what others can name in the crates that they embed, compared with the kept listings.

use crate::process::{cargo, root, run};

pub(crate) fn all(accept: bool) -> anyhow::Result<()> {
    let mut listing = cargo("run --quiet --locked");
    listing.arg("--manifest-path").arg(root().join("xtask/public-api/Cargo.toml"));
    // The same directory: what the documented crates need has been checked there.
    listing.arg("--target-dir").arg(root().join("target"));
    if accept {
        listing.args(["--", "--accept"]);
    }
    run(&mut listing)
}
