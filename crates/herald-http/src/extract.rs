//! What every call brings besides its own: what it accepts, and the two headers of the page.

use std::borrow::Cow;

use herald_types::{Violations, violation::echo};
use http::{HeaderMap, HeaderName, header::HOST};

use crate::{accept, problem::Error};

/// The version of the page.
pub const API_VERSION: &str = "3";
/// The most characters of `nhn-source-system`.
pub const SOURCE_SYSTEM_CHARS_MAX: usize = 512;

pub(crate) const API_VERSION_HEADER: HeaderName = HeaderName::from_static("api-version");
pub(crate) const SOURCE_SYSTEM_HEADER: HeaderName = HeaderName::from_static("nhn-source-system");
pub(crate) const LAST_EVENT_ID_HEADER: HeaderName = HeaderName::from_static("last-event-id");

/// That the request does not say in two ways to which host it was sent, so that another reader could take it for another
/// one's (RFC 9112, section 3.2). One that says nothing is taken: it is for nobody else.
pub(crate) fn one_host(headers: &HeaderMap) -> Result<(), Error> {
    let mut hosts = headers.get_all(HOST).iter();
    let is_fine = match (hosts.next(), hosts.next()) {
        (None, _) => true,
        (Some(host), None) => {
            let is_of_hosts =
                |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(byte);
            host.as_bytes().iter().all(is_of_hosts)
        }
        (Some(_), Some(_)) => false,
    };
    if is_fine {
        return Ok(());
    }
    let mut violations = Violations::new();
    violations.add("Host: must be given once, and be a host with or without a port");
    Err(Error::Invalid(violations))
}

/// That the caller takes `media_type`; one that does not say takes anything.
pub(crate) fn must_accept(headers: &HeaderMap, media_type: accept::MediaType) -> Result<(), Error> {
    if accept::accepts(headers, media_type).unwrap_or(true) {
        Ok(())
    } else {
        Err(Error::NotAcceptable { produced: "application/json" })
    }
}

/// That `api-version` is 3, and the text of `nhn-source-system`.
pub(crate) fn page_headers<'a>(
    headers: &'a HeaderMap,
    violations: &mut Violations,
) -> Option<Cow<'a, str>> {
    match once(headers, &API_VERSION_HEADER, violations) {
        Some(version) if version == API_VERSION => {}
        Some(version) => {
            violations.add(format!("api-version {}: must be {API_VERSION}", echo(&version)));
        }
        None => {}
    }
    let source_system = once(headers, &SOURCE_SYSTEM_HEADER, violations)?;
    if source_system.trim().is_empty() {
        violations.add("nhn-source-system: must not be blank");
        return None;
    }
    match source_system.chars().count() {
        1..=SOURCE_SYSTEM_CHARS_MAX => Some(source_system),
        count => {
            violations.add(format!(
                "nhn-source-system: must have 1 to {SOURCE_SYSTEM_CHARS_MAX} characters, it has {count}"
            ));
            None
        }
    }
}

/// The value of a required header that is given once.
fn once<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    violations: &mut Violations,
) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(text(value.as_bytes())),
        (None, _) => {
            violations.add(format!("{name} is required"));
            None
        }
        (Some(_), Some(_)) => {
            violations.add(format!("{name} must be given once"));
            None
        }
    }
}

/// A header's text: UTF-8, or ISO 8859-1 where it is not.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn violations_of(source_system: &[u8]) -> Vec<String> {
        let headers = HeaderMap::from_iter([
            (API_VERSION_HEADER, HeaderValue::from_static("3")),
            (SOURCE_SYSTEM_HEADER, HeaderValue::from_bytes(source_system).unwrap()),
        ]);
        let mut violations = Violations::new();
        let _ = page_headers(&headers, &mut violations);
        violations.into_texts()
    }

    #[test]
    fn a_source_system_has_1_to_512_characters_and_is_not_blank() {
        assert!(violations_of(b"x").is_empty());
        assert!(violations_of(&[b'x'; 512]).is_empty());
        assert!(violations_of("å".repeat(512).as_bytes()).is_empty());
        assert!(violations_of(&[0xE5; 512]).is_empty());
        assert_eq!(violations_of(&[b'x'; 513]).len(), 1);
        assert_eq!(violations_of("å".repeat(513).as_bytes()).len(), 1);
        assert_eq!(violations_of(b""), ["nhn-source-system: must not be blank"]);
        assert_eq!(violations_of("\u{a0}".as_bytes()), ["nhn-source-system: must not be blank"]);
    }

    #[test]
    fn both_headers_are_required_once() {
        let mut violations = Violations::new();
        assert_eq!(page_headers(&HeaderMap::new(), &mut violations), None);
        assert_eq!(
            violations.into_texts(),
            ["api-version is required", "nhn-source-system is required"]
        );
        let mut headers = HeaderMap::new();
        for value in ["3", "4"] {
            headers.append(API_VERSION_HEADER, HeaderValue::from_static(value));
            headers.append(SOURCE_SYSTEM_HEADER, HeaderValue::from_static(value));
        }
        let mut violations = Violations::new();
        let _ = page_headers(&headers, &mut violations);
        assert_eq!(violations.into_texts().len(), 2);
    }
}
