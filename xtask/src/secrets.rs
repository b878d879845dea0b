//! What must not stand in any output: tokens and proofs, and private keys. The tests of the server look at its log with it too.

/// The kind of secret that stands in `line`, if there is one.
///
/// Backslashes are left out before: a text may have been quoted, and quoted again.
pub(crate) fn found_in(line: &str) -> Option<&'static str> {
    let line = line.replace('\\', "");
    if line.match_indices("eyJ").any(|(at, _)| is_signed_object(&line[at..])) {
        return Some("a signed object (a token or a proof)");
    }
    if line.split("-----BEGIN ").skip(1).any(is_private_pem) {
        return Some("a private key as PEM");
    }
    if line.match_indices("\"d\"").any(|(at, name)| is_text(&line[at + name.len()..])) {
        return Some("a private key as JWK");
    }
    None
}

/// `eyJ` begins a JSON object in base64url; a signed one has two dots, and something before each. What follows the second
/// may be cut off.
fn is_signed_object(text: &str) -> bool {
    let mut parts = text.splitn(3, '.');
    let (header, claims, rest) = (parts.next(), parts.next(), parts.next());
    let is_part = |part: Option<&str>, len_min| {
        part.is_some_and(|part| part.len() >= len_min && part.bytes().all(is_base64url))
    };
    is_part(header, 13) && is_part(claims, 1) && rest.is_some()
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// `EC PRIVATE KEY-----`, `ENCRYPTED PRIVATE KEY-----` and the like, but no public key and no certificate.
fn is_private_pem(behind: &str) -> bool {
    let label = behind.split("-----").next().unwrap_or_default();
    label.ends_with("PRIVATE KEY")
}

/// Whether a member's value is a text: `: "` and whatever.
fn is_text(behind: &str) -> bool {
    let value = behind.trim_start().strip_prefix(':');
    value.is_some_and(|value| value.trim_start().starts_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "eyJhbGciOiJFUzI1NiJ9";

    #[test]
    fn a_token_is_found_wherever_it_stands() {
        for line in [
            format!("{HEADER}.eyJhIjoxfQ.c2ln"),
            format!("Authorization: DPoP {HEADER}.eyJhIjoxfQ.c2ln"),
            format!(r#"{{"level":"DEBUG","message":"refused","proof":"{HEADER}.e30.c2ln"}}"#),
            // Unsigned, cut off, behind something that only begins like one.
            format!("{HEADER}.e30."),
            format!("eyJ eyJhbGci.x {HEADER}.e30.c2…"),
            format!("x{HEADER}.e30.c2ln"),
        ] {
            assert!(found_in(&line).is_some_and(|kind| kind.contains("signed")), "{line}");
        }
    }

    #[test]
    fn a_private_key_is_found_as_jwk_quoted_or_not_and_as_pem() {
        for line in [
            r#"{"kty":"EC","crv":"P-256","d":"x7","x":"a"}"#,
            r#"{"kty":"EC", "d" : "x7"}"#,
            r#"key: "{\"kty\":\"EC\",\"d\":\"x7\"}""#,
            r#""{\\\"d\\\":\\\"x7\\\"}""#,
        ] {
            assert!(found_in(line).is_some_and(|kind| kind.contains("JWK")), "{line}");
        }
        for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
            let line = format!("key: -----BEGIN {label}-----\\nMC4C");
            assert!(found_in(&line).is_some_and(|kind| kind.contains("PEM")), "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for line in [
            "",
            "eyJ",
            HEADER,
            "eyJhbGci.e30.c2ln",
            "eyJhbGciOiJFUzI1NiJ9..c2ln",
            "eyJhbGciOiJFUzI1NiJ9 .e30.c2ln",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----",
            "PRIVATE KEY-----",
            r#"{"kty":"EC","x":"a","y":"b"}"#,
            r#"{"d":7}"#,
            r#"["d","e"]"#,
            r#"{"id":"x7"}"#,
        ] {
            assert_eq!(found_in(line), None, "{line}");
        }
    }
}
