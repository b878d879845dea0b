//! The address that a proof names (`htu`), in the one form in which two are compared.

use std::{fmt, net::Ipv6Addr};

/// An absolute `http` or `https` address without query and fragment: scheme and host in lower case, no default port.
///
/// The path is compared as it is written, percent signs and all: what is signed is what was asked for. Source: RFC 9449,
/// section 4.3; docs/protocol.md, access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Address {
    /// Reads an address; `None` for what is none, or has a user, a query or a fragment, or could be read in two ways.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = host_and_port(authority)?;
        let is_path = |byte: u8| byte.is_ascii_graphic() && !b"?#\\".contains(&byte);
        if !path.bytes().all(is_path) {
            return None;
        }
        let mut normal = format!("{scheme}://{}", host.to_ascii_lowercase());
        if let Some(port) = port.filter(|port| *port != default_port) {
            normal.push_str(&format!(":{port}"));
        }
        normal.push_str(if path.is_empty() { "/" } else { path });
        Some(Self(normal))
    }

    /// This address with `path` (which begins with a slash) behind it; a slash at its own end is left out.
    #[must_use]
    pub fn with(&self, path: &str) -> Self {
        Self(format!("{}{path}", self.0.trim_end_matches('/')))
    }
}

/// The host and the port, if that is given; no user, since no host has an `@` in it.
///
/// A host is a name in ASCII or an address. Percent signs could be read in two ways and are refused.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let is_bracketed = authority.starts_with('[');
    let end = if is_bracketed {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    let is_host = if is_bracketed {
        host[1..end - 1].parse::<Ipv6Addr>().is_ok()
    } else {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !host.is_empty() && host.bytes().all(is_of_name)
    };
    if !is_host {
        return None;
    }
    let Some(digits) = port.strip_prefix(':') else {
        return port.is_empty().then_some((host, None));
    };
    if digits.is_empty() {
        return Some((host, None));
    }
    // A number may have a plus in front of it, a port may not.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, Some(digits.parse().ok().filter(|_| is_number)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Option<String> {
        Address::parse(text).map(|address| address.to_string())
    }

    #[test]
    fn scheme_host_and_default_port_have_one_form() {
        for (text, expected) in [
            ("https://API.Example.no/notifications", "https://api.example.no/notifications"),
            ("HTTPS://api.example.no:443/notifications", "https://api.example.no/notifications"),
            ("http://api.example.no:80/x", "http://api.example.no/x"),
            ("http://api.example.no:443/x", "http://api.example.no:443/x"),
            ("https://api.example.no:/x", "https://api.example.no/x"),
            ("https://a:0443/x", "https://a/x"),
            ("https://a:65535/x", "https://a:65535/x"),
            ("https://a/x@y:z", "https://a/x@y:z"),
            ("https://my_host-1.example.no./x", "https://my_host-1.example.no./x"),
            ("https://[::1]:8443/x", "https://[::1]:8443/x"),
            ("https://[2001:DB8::1]/x", "https://[2001:db8::1]/x"),
            ("https://a", "https://a/"),
            ("https://a/X%2f", "https://a/X%2f"),
            ("https://a//x/", "https://a//x/"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_could_mean_something_else_is_no_address() {
        for text in [
            "",
            "a",
            "/x",
            "//a/x",
            "ftp://a/x",
            "https:/a",
            "https://",
            "https:///x",
            "https://:443/x",
            "https://a/x?y",
            "https://a/x#y",
            "https://u@a/x",
            "https://a@b/x",
            "https://a\\b/x",
            "https://a/x y",
            "https://a/\u{e5}",
            "https://\u{ff41}/x",
            "https://a:b/x",
            "https://a:65536/x",
            "https://a:+443/x",
            "https://a:443:443/x",
            "https://::1/x",
            "https://[::1/x",
            "https://::1]/x",
            "https://[::1]x/x",
            "https://[::1]x:80/x",
            "https://[::1%25eth0]/x",
            "https://[a]/x",
            "https://[]/x",
            "https://%61/x",
            "https://a,b/x",
            "https://a|b/x",
            "https://a?y/x",
            "https://a#y/x",
            "https://a:4 3/x",
            " https://a/x",
            "https://a/x\n",
        ] {
            assert_eq!(normal(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_base_may_have_a_path_and_a_slash_at_its_end() {
        for (base, expected) in [
            ("https://a", "https://a/notifications"),
            ("https://a/", "https://a/notifications"),
            ("https://a/api", "https://a/api/notifications"),
            ("https://a/api/", "https://a/api/notifications"),
        ] {
            let address = Address::parse(base).unwrap().with("/notifications");
            assert_eq!(address.to_string(), expected);
        }
    }
}
