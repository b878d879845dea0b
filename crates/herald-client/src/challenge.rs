//! What a 401 says of the token and the proof that were sent (RFC 9110, section 11.6.1; RFC 9449, section 7.1).

use std::{fmt, time::SystemTime};

use reqwest::header::{DATE, HeaderMap, WWW_AUTHENTICATE};

/// The most characters of a peer's text that are repeated.
const TEXT_CHARS_MAX: usize = 300;
/// A longer word is no word for people; it may be a token that is quoted.
const WORD_CHARS_MAX: usize = 64;
/// Clocks that differ by no more are not blamed, in seconds: an answer takes a while, and its date has whole seconds.
const CLOCKS_DIFFER_MIN: i64 = 3;

/// The challenge for tokens that are bound to a key: why this one, or its proof, was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Its code, `invalid_token` and the like.
    pub(crate) error: Option<String>,
    /// The same for people.
    description: Option<String>,
    /// By how many seconds this machine's clock is ahead of the server's, if that is more than a few.
    pub(crate) clock_ahead: Option<i64>,
    /// The server has taken tokens of this client, and may take this or another one soon.
    pub(crate) may_pass: bool,
    /// The next call has another token.
    #[cfg(feature = "helseid")]
    pub(crate) is_token_replaced: bool,
}

impl Challenge {
    /// Reads the answer's headers, which came at `now`.
    pub(crate) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let fields = headers.get_all(WWW_AUTHENTICATE).iter();
        let texts = fields.filter_map(|value| value.to_str().ok());
        let params = texts.flat_map(params).filter(|it| it.scheme.eq_ignore_ascii_case("dpop"));
        let mut challenge = Self { clock_ahead: clock_ahead(headers, now), ..Self::default() };
        for Param { name, value, .. } in params.filter(|it| !it.value.is_empty()) {
            match name.to_ascii_lowercase().as_str() {
                "error" => challenge.error = Some(tamed(&value)),
                "error_description" => challenge.description = Some(tamed(&value)),
                _ => {}
            }
        }
        challenge
    }

    /// Whether the same call with the nonce that came along would do.
    #[cfg(feature = "helseid")]
    pub(crate) fn asks_for_nonce(&self) -> bool {
        self.error.as_deref() == Some("use_dpop_nonce")
    }

    /// Whether another token may do. Servers that give no reason mean the token: proofs have reasons of their own.
    pub(crate) fn refuses_token(&self) -> bool {
        !matches!(self.error.as_deref(), Some("use_dpop_nonce" | "invalid_dpop_proof"))
    }

    /// Writes code and description, the description unless `text`, which follows anyway, begins with it.
    pub(crate) fn write_beside(
        &self,
        text: Option<&str>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        // A detail is told as it came; the description has been tamed and may be cut.
        let text = text.map(tamed).unwrap_or_default();
        let is_said = |it: &str| text.starts_with(it.strip_suffix('…').unwrap_or(it));
        let description = self.description.as_deref().filter(|it| !is_said(it));
        for part in [self.error.as_deref(), description].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        Ok(())
    }
}

/// Says that clocks differ, which is what proofs and assertions are often refused for.
pub(crate) fn clock(ahead: Option<i64>) -> String {
    let Some(ahead) = ahead else { return String::new() };
    let (seconds, where_to) = (ahead.unsigned_abs(), if ahead > 0 { "ahead of" } else { "behind" });
    format!("; the clock here is {seconds} s {where_to} the one there")
}

/// By how many seconds our clock is ahead of the one that dated an answer, if that is more than a few.
pub(crate) fn clock_ahead(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let ahead = match now.duration_since(date) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok()?,
        Err(behind) => -i64::try_from(behind.duration().as_secs()).ok()?,
    };
    (ahead.abs() > CLOCKS_DIFFER_MIN).then_some(ahead)
}

/// A peer's text for a line of ours: bounded, on one line, without what moves a cursor, and without what may be a token.
pub(crate) fn tamed(text: &str) -> String {
    let words =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|it| !it.is_empty());
    let mut tamed = String::new();
    for word in words {
        let is_long = word.chars().nth(WORD_CHARS_MAX).is_some();
        if !tamed.is_empty() {
            tamed.push(' ');
        }
        tamed.push_str(if is_long { "[…]" } else { word });
        if let Some((end, _)) = tamed.char_indices().nth(TEXT_CHARS_MAX) {
            tamed.truncate(end);
            tamed.push('…');
            break;
        }
    }
    tamed
}

struct Param<'a> {
    scheme: &'a str,
    name: &'a str,
    value: String,
}

/// The parameters of each challenge in a field: `DPoP error="invalid_token", algs="ES256", Bearer realm="x"`.
///
/// A word with `=` behind it is a parameter, any other the next scheme; what is neither is skipped.
fn params(text: &str) -> Vec<Param<'_>> {
    let (mut rest, mut scheme, mut params) = (text, "", Vec::new());
    loop {
        rest = rest.trim_start_matches(|c: char| !is_token(c));
        if rest.is_empty() {
            return params;
        }
        let (word, behind) = rest.split_at(rest.find(|c| !is_token(c)).unwrap_or(rest.len()));
        let Some(value) = behind.trim_start().strip_prefix('=') else {
            (scheme, rest) = (word, behind);
            continue;
        };
        let (value, behind) = read_value(value.trim_start());
        params.push(Param { scheme, name: word, value });
        rest = behind;
    }
}

/// A value, quoted or not, and what is behind it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()));
        return (value.to_owned(), behind);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// What a token of HTTP is made of (RFC 9110, section 5.6.2).
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use reqwest::header::HeaderValue;

    use super::*;

    fn read(fields: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(field).unwrap());
        }
        Challenge::read(&headers, UNIX_EPOCH)
    }

    #[test]
    fn the_challenge_for_bound_tokens_is_found_among_others() {
        for fields in [
            &[r#"DPoP error="invalid_token", error_description="it \"ran\" out", algs="ES256""#][..],
            &[
                r#"Bearer error="x", dpop algs="ES256 PS256" , error = invalid_token,,error_description="it \"ran\" out""#,
            ],
            &[
                "Negotiate abc==",
                r#"DPoP error="invalid_token""#,
                r#"DPoP error_description="it \"ran\" out"#,
            ],
        ] {
            let challenge = read(fields);
            assert_eq!(challenge.error.as_deref(), Some("invalid_token"), "{fields:?}");
            assert_eq!(challenge.description.as_deref(), Some("it \"ran\" out"), "{fields:?}");
        }
        for fields in [&[][..], &["DPoP"], &[r#"Bearer error="invalid_token""#], &["=\",", "\"\\"]]
        {
            assert_eq!(read(fields), Challenge::default(), "{fields:?}");
        }
    }

    #[test]
    fn what_a_peer_says_is_bounded_tame_and_without_what_may_be_a_token() {
        assert_eq!(tamed("a\u{1b}[31m \r\n b\u{2028}c"), "a [31m b c");
        let (word, token) = ("x".repeat(WORD_CHARS_MAX), "x".repeat(WORD_CHARS_MAX + 1));
        assert_eq!(tamed(&format!("at {word} or {token}")), format!("at {word} or […]"));
        let most = "åååååååå ".repeat(TEXT_CHARS_MAX / 9 + 1);
        let most: String = most.chars().take(TEXT_CHARS_MAX - 1).chain(['x']).collect();
        assert_eq!(tamed(&most), most);
        assert_eq!(tamed(&(most.clone() + "y")), most + "…");
    }

    #[test]
    fn clocks_are_blamed_when_they_differ_by_more_than_three_seconds() {
        let date = Duration::from_secs(784_111_777);
        let mut headers = HeaderMap::new();
        assert_eq!(clock_ahead(&headers, UNIX_EPOCH), None);
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        for (ours, ahead) in [
            (date + Duration::from_secs(3), None),
            (date + Duration::from_secs(4), Some(4)),
            (date - Duration::from_secs(3), None),
            (date - Duration::from_secs(4), Some(-4)),
        ] {
            assert_eq!(clock_ahead(&headers, UNIX_EPOCH + ours), ahead, "{ours:?}");
        }
    }
}
