//! Which content types a caller accepts, and which one a body has.

use http::{HeaderMap, header};

/// A content type as `type/subtype`, lower case.
pub(crate) type MediaType = (&'static str, &'static str);

pub(crate) const JSON: MediaType = ("application", "json");
pub(crate) const NDJSON: MediaType = ("application", "x-ndjson");
pub(crate) const EVENT_STREAM: MediaType = ("text", "event-stream");

/// Whether `Accept` allows `media_type`, or `None` where there is no such header.
///
/// The most specific range that matches decides, as RFC 9110 has it: with `*/*, application/json;q=0` everything but
/// JSON is accepted. Parameters other than `q` are ignored, and so are ranges that cannot be read.
pub(crate) fn accepts(headers: &HeaderMap, media_type: MediaType) -> Option<bool> {
    let mut is_there = false;
    let mut best: Option<(u8, bool)> = None;
    for value in headers.get_all(header::ACCEPT) {
        is_there = true;
        let ranges = value.to_str().unwrap_or("").split(',');
        for (specificity, wanted) in ranges.filter_map(|range| matches(range, media_type)) {
            // Of two equal ranges the first one decides.
            if best.is_none_or(|(so_far, _)| specificity > so_far) {
                best = Some((specificity, wanted));
            }
        }
    }
    is_there.then(|| best.is_some_and(|(_, wanted)| wanted))
}

/// How specifically one range of `Accept` matches, if it does, and whether its weight is above zero.
fn matches(range: &str, (kind, subtype): MediaType) -> Option<(u8, bool)> {
    let mut parts = range.split(';');
    let (range_kind, range_subtype) = parts.next()?.trim().split_once('/')?;
    let specificity = match (range_kind, range_subtype) {
        ("*", "*") => 0,
        (_, "*") if range_kind.eq_ignore_ascii_case(kind) => 1,
        _ if range_kind.eq_ignore_ascii_case(kind)
            && range_subtype.eq_ignore_ascii_case(subtype) =>
        {
            2
        }
        _ => return None,
    };
    let weight = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())?
    });
    Some((specificity, weight.is_none_or(|weight| weight > 0.0)))
}

/// Whether the body's content type is `media_type`, whatever its parameters.
pub(crate) fn is_content_type(headers: &HeaderMap, (kind, subtype): MediaType) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    essence.split_once('/').is_some_and(|(body_kind, body_subtype)| {
        body_kind.eq_ignore_ascii_case(kind) && body_subtype.eq_ignore_ascii_case(subtype)
    })
}

/// Whether the body is sent as it is.
pub(crate) fn is_identity(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().all(|value| {
        let mut codings = value.to_str().unwrap_or("?").split(',').map(str::trim);
        codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case("identity"))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accept(values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (header::ACCEPT, value)).collect()
    }

    #[test]
    fn the_most_specific_range_decides() {
        for (values, json) in [
            (&["application/json"][..], true),
            (&["APPLICATION/JSON ; charset=utf-8"], true),
            (&["*/*"], true),
            (&["application/*"], true),
            (&["text/*"], false),
            (&["text/html, application/json;q=0.1"], true),
            (&["text/html", "application/json"], true),
            (&["*/*, application/json;q=0"], false),
            (&["application/json;q=0.0, application/*"], false),
            (&["*/*;q=0, application/json"], true),
            (&["application/json; Q = 0"], false),
            (&["nonsense, application/json;q=x"], true),
            (&["nonsense"], false),
            (&[""], false),
        ] {
            assert_eq!(accepts(&accept(values), JSON), Some(json), "{values:?}");
        }
        assert_eq!(accepts(&HeaderMap::new(), JSON), None);
    }

    #[test]
    fn a_content_type_is_given_once_and_its_parameters_do_not_matter() {
        let of = |values: &[&'static str]| -> HeaderMap {
            let values = values.iter().map(|value| HeaderValue::from_static(value));
            values.map(|value| (header::CONTENT_TYPE, value)).collect()
        };
        assert!(is_content_type(&of(&["Application/JSON; charset=utf-8"]), JSON));
        assert!(is_content_type(&of(&["application/x-ndjson"]), NDJSON));
        assert!(!is_content_type(&of(&["application/json", "application/json"]), JSON));
        assert!(!is_content_type(&of(&["application/jsonx"]), JSON));
        assert!(!is_content_type(&of(&[]), JSON));
    }

    #[test]
    fn only_identity_is_no_encoding() {
        let of = |value| HeaderMap::from_iter([(header::CONTENT_ENCODING, value)]);
        assert!(is_identity(&HeaderMap::new()));
        assert!(is_identity(&of(HeaderValue::from_static("Identity"))));
        assert!(!is_identity(&of(HeaderValue::from_static("gzip"))));
        assert!(!is_identity(&of(HeaderValue::from_static("identity, zstd"))));
    }
}
