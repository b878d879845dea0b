//! What somebody would try: docs/security.md names these tests.

mod address;
mod forged;
mod injection;
mod paths;
mod query;
mod replay;

use http::StatusCode;
use serde_json::json;

use crate::guarded::{Caller, Guarded};

/// A call as it stands on the wire, written by hand.
struct Raw<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
    /// Header lines without their ends.
    lines: Vec<String>,
    proof: String,
}

impl<'a> Raw<'a> {
    /// A poll for which the caller has signed `htu`.
    fn poll(caller: &Caller, target: &'a str, htu: &str, lines: &[&str]) -> Self {
        let proof = caller.proof_with("GET", htu, json!({}), json!({}));
        Self::poll_with(caller, target, proof, lines)
    }

    fn poll_with(caller: &Caller, target: &'a str, proof: String, lines: &[&str]) -> Self {
        let mut lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines.push(format!("authorization: {}", caller.authorization()));
        Self { method: "GET", target, version: "HTTP/1.1", lines, proof }
    }

    async fn ask(&self, guarded: &Guarded) -> String {
        let Self { method, target, version, lines, proof } = self;
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!(
            "{method} {target} {version}\r\n{lines}dpop: {proof}\r\napi-version: 3\r\n\
             nhn-source-system: Tests, v1\r\nconnection: close\r\n\r\n"
        );
        guarded.raw(&request).await
    }

    async fn status(&self, guarded: &Guarded) -> StatusCode {
        status_of(&self.ask(guarded).await)
    }
}

fn status_of(answer: &str) -> StatusCode {
    let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}"));
    status.parse().unwrap()
}
