//! Looks for tokens, proofs and keys in all that the suite prints.
//!
//! What commands print is looked at on its way. nextest keeps what passed tests print to itself, and writes it into a report.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
};

use anyhow::{Context as _, bail};

use crate::{process::root, secrets::found_in};

/// What the report must have in it, once all tests have run: log lines of tokens and proofs that servers looked at. Without
/// them nothing was looked at, and nothing found.
const TRACES: [&str; 4] =
    ["token-signature: ", "token-lifetime: ", "proof-replay: ", "\"answered\""];
/// How many findings are told; the first ones lead to the rest.
const TOLD_MAX: usize = 10;

/// A secret that was printed: which kind, and what stands before it.
pub(crate) type Leak = String;

/// Where nextest writes what every test printed, as `.config/nextest.toml` says.
fn report() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(target).join("nextest/default/junit.xml")
}

/// An old report is not what the next run is judged by.
pub(crate) fn forget_report() {
    // There may be none.
    fs::remove_file(report()).ok();
}

/// That no test has printed a secret, and, when all tests ran, that there was something to look at.
pub(crate) fn look_at_report(is_whole: bool) -> anyhow::Result<()> {
    let path = report();
    let text = fs::read(&path).with_context(|| format!("no report in {}", path.display()))?;
    judge(&text_of_xml(&String::from_utf8_lossy(&text)), is_whole)
}

fn judge(text: &str, is_whole: bool) -> anyhow::Result<()> {
    let missing: Vec<_> = TRACES.iter().filter(|trace| !text.contains(**trace)).collect();
    if is_whole && !missing.is_empty() {
        bail!("nothing was looked at: no log line in the tests' output has {missing:?}");
    }
    refuse(&leaks_in(text))
}

/// An error if there is any.
pub(crate) fn refuse(leaks: &[Leak]) -> anyhow::Result<()> {
    if leaks.is_empty() {
        return Ok(());
    }
    for leak in leaks.iter().take(TOLD_MAX) {
        eprintln!("    {leak}");
    }
    bail!("{} lines of the output have a token, a proof or a private key", leaks.len());
}

fn leaks_in(text: &str) -> Vec<Leak> {
    text.lines().filter_map(leak_in).collect()
}

/// What is told does not repeat the secret.
fn leak_in(line: &str) -> Option<Leak> {
    const SHOWN_CHARS: usize = 80;
    found_in(line).map(|kind| {
        let before: String = line.chars().take(SHOWN_CHARS).collect();
        let starts = ["eyJ", "-----BEGIN ", "\"d\"", "\\\"d"];
        let end = starts.iter().filter_map(|start| before.find(start)).min();
        format!("{kind} behind: {}", &before[..end.unwrap_or(before.len())])
    })
}

/// The characters that matter here, as they were before they were written as XML.
fn text_of_xml(xml: &str) -> String {
    xml.replace("&quot;", "\"").replace("&#34;", "\"").replace("&apos;", "'")
}

/// Passes all of `from` on, line by line; what it has of secrets.
pub(crate) fn pass_on(from: impl Read, mut to: impl Write) -> io::Result<Vec<Leak>> {
    let mut from = BufReader::new(from);
    let (mut leaks, mut line) = (Vec::new(), Vec::new());
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        leaks.extend(leak_in(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    Ok(leaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together here, so that the output of a failing test has none.
    fn token() -> String {
        ["eyJhbGciOiJFUzI1NiJ9", "e30", "c2ln"].join(".")
    }

    fn traces() -> String {
        TRACES.join("\n")
    }

    #[test]
    fn a_secret_in_the_report_is_found_and_not_repeated() {
        let xml = |text: &str| format!("{}\n<system-out>{text}</system-out>", traces());
        assert!(judge(&text_of_xml(&xml("fine")), true).is_ok());
        let pem = "-----BEGIN PRIVATE KEY-----";
        let jwk = "{&quot;kty&quot;:&quot;EC&quot;,&quot;d&quot;:&quot;x7&quot;}";
        for secret in [&token(), pem, jwk] {
            let text = text_of_xml(&xml(&format!("log: {secret}")));
            assert!(judge(&text, true).is_err() && judge(&text, false).is_err());
            let [leak] = &*leaks_in(&text) else { panic!("one") };
            assert!(!leak.contains(secret) && !leak.contains("x7"), "{leak}");
        }
    }

    #[test]
    fn a_whole_run_without_traces_of_tokens_is_no_proof() {
        assert!(judge("fine", false).is_ok());
        assert!(judge("fine", true).is_err());
        for trace in TRACES {
            assert!(judge(&traces().replace(trace, ""), true).is_err(), "{trace}");
        }
    }

    #[test]
    fn what_a_command_prints_is_passed_on_as_it_is_and_looked_at() {
        let printed = format!("one\nAuthorization: DPoP {}\r\n\u{fffd}\nlast", token());
        let mut passed = Vec::new();
        let leaks = pass_on(printed.as_bytes(), &mut passed).unwrap();
        assert_eq!(passed, printed.as_bytes());
        assert_eq!(leaks.len(), 1);
        assert!(leaks[0].ends_with("Authorization: DPoP "), "{leaks:?}");
        assert!(refuse(&leaks).is_err() && refuse(&[]).is_ok());
    }
}
