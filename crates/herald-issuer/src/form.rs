//! The body of a token request: `application/x-www-form-urlencoded`.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::refusal::Refusal;

/// The parameters of a request.
#[derive(Debug)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let pairs = body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(end + 1..).unwrap_or_default();
            Some((decoded(&pair[..end])?, decoded(value)?))
        });
        let pairs: Option<_> = pairs.collect();
        pairs.map(Self).ok_or_else(|| Refusal::request("the body must be a form in UTF-8"))
    }

    /// The value of `name`; one without a value counts as left out, and two are refused (RFC 6749, section 3.2).
    pub(crate) fn optional(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value);
        let first = values.next();
        if values.next().is_some() {
            return Err(Refusal::request(format!("{name} must be there once")));
        }
        Ok(first.map(String::as_str).filter(|value| !value.is_empty()))
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.optional(name)?.ok_or_else(|| Refusal::request(format!("{name} is missing")))
    }
}

fn decoded(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_browsers_write_them() {
        let form = Form::parse(b"&a=1+2%2B3&b=x=y&c&d=&%65=%C3%A5&").unwrap();
        for (name, value) in [
            ("a", Some("1 2+3")),
            ("b", Some("x=y")),
            ("c", None),
            ("d", None),
            ("e", Some("å")),
            ("f", None),
        ] {
            assert_eq!(form.optional(name), Ok(value), "{name}");
        }
        assert_eq!(form.required("d").unwrap_err().description, "d is missing");
    }

    #[test]
    fn a_parameter_twice_and_what_is_not_utf8_are_refused() {
        let twice = Form::parse(b"scope=a&scope=a").unwrap();
        assert_eq!(twice.optional("scope").unwrap_err().error, "invalid_request");
        assert_eq!(Form::parse(b"a=%FF").unwrap_err().error, "invalid_request");
    }
}
