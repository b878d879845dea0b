use std::collections::HashMap;

use herald_auth::{Address, Claimed, Holder, KeySet, Organisations};
use herald_types::{Grant, HerId, HerIdSet, HerIds};
use serde_json::Value;
use url::{Host, Url};

/// The input as a HER-id claim and as a document of organisations, as a key set, and as an address: each is read as a
/// slow, plain reading has it.
///
/// # Panics
/// If that does not hold.
pub fn claims(input: &[u8]) {
    organisations(input);
    key_set(input);
    if let Ok(text) = std::str::from_utf8(input) {
        address(text);
    }
}

/// What a claim says, digit by digit.
pub(crate) fn claimed(claim: Option<&str>) -> Claimed {
    let Some(text) = claim else { return Claimed::These(HerIdSet::default()) };
    if text == "0" {
        return Claimed::All;
    }
    let mut her_ids = Vec::new();
    let mut number = None;
    for character in text.chars().chain(['-']) {
        match (character, number) {
            ('0'..='9', before) => {
                let digit = u64::from(u32::from(character) - u32::from('0'));
                // It is enough to know that it is too large.
                number = Some((before.unwrap_or(0) * 10 + digit).min(1 << 40));
            }
            ('-', Some(whole)) => {
                number = None;
                match u32::try_from(whole).ok().and_then(HerId::new) {
                    Some(her_id) => her_ids.push(her_id),
                    None => return Claimed::These(HerIdSet::default()),
                }
            }
            _ => return Claimed::These(HerIdSet::default()),
        }
    }
    Claimed::These(her_ids.into_iter().collect())
}

/// Each organisation of the document has the HER-ids that are written there, and no other has any.
fn organisations(input: &[u8]) {
    let organisations = Organisations::new();
    if organisations.replace(input).is_err() {
        assert!(!organisations.is_known());
        return;
    }
    let document: HashMap<String, Vec<u32>> =
        serde_json::from_slice(input).expect("JSON of this form was accepted");
    for (number, expected) in &document {
        let holder = Holder { organisation: Some(number.clone()), claimed: Claimed::All };
        let grant = organisations.grant(&holder);
        for number in expected {
            assert!(covers(&grant, *number), "{number}");
            assert!(expected.contains(&(number ^ 1)) || !covers(&grant, number ^ 1), "{number}");
        }
        let nobody = Holder { organisation: Some(format!("{number} ")), claimed: Claimed::All };
        if !document.contains_key(&format!("{number} ")) {
            assert_eq!(organisations.grant(&nobody), Grant::of(HerIdSet::default()));
        }
    }
}

fn covers(grant: &Grant, number: u32) -> bool {
    let her_id = HerId::new(number);
    her_id.is_some_and(|id| grant.narrow(HerIds::new([id]).expect("one HER-id")).is_ok())
}

/// A set that has a key has an object that describes one with a public key.
fn key_set(input: &[u8]) {
    let Ok(set) = KeySet::parse(input) else { return };
    let document: Value = serde_json::from_slice(input).expect("JSON was accepted");
    let keys = document["keys"].as_array().expect("an array of keys was accepted");
    let could_verify = |key: &Value| {
        let has = |names: &[&str]| names.iter().all(|name| key[name].is_string());
        let is_public = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        let is_public = is_public.iter().all(|name| key.get(name).is_none());
        let is_whole = match key["kty"].as_str() {
            Some("RSA") => has(&["n", "e"]),
            Some("EC") => has(&["crv", "x", "y"]),
            _ => false,
        };
        is_public && is_whole && matches!(key["use"].as_str(), None | Some("sig"))
    };
    assert!(set.is_empty() || keys.iter().any(could_verify), "{document}");
}

/// Our form of an address means to another reader what the text meant to it; and what that reader writes itself is taken.
fn address(text: &str) {
    let (address, url) = (Address::parse(text), Url::parse(text).ok());
    if let Some(address) = &address {
        let normal = address.to_string();
        assert_eq!(Address::parse(&normal).as_ref(), Some(address));
        if let Some(url) = &url {
            assert_eq!(Some(url), Url::parse(&normal).ok().as_ref(), "{text}");
            assert!(is_plain(url), "{text}");
        }
    }
    if let Some(url) = url.filter(|url| url.as_str() == text && is_plain(url) && is_host(url)) {
        assert_eq!(address.map(|address| address.to_string()).as_deref(), Some(url.as_str()));
    }
}

fn is_plain(url: &Url) -> bool {
    let has_user = !url.username().is_empty() || url.password().is_some();
    let is_http = ["http", "https"].contains(&url.scheme());
    is_http && !has_user && url.query().is_none() && url.fragment().is_none()
}

/// Whether its host has only what a name in the DNS has.
fn is_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}
