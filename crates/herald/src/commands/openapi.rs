//! `herald openapi`.

use crate::output;

/// Prints the document that the server serves at `/openapi.json`.
pub(crate) fn run() -> anyhow::Result<()> {
    output::print(format!("{}\n", herald_http::openapi::json().trim_end()).as_bytes())
}
