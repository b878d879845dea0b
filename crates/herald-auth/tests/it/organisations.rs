//! Which HER-ids an organisation has: the document, the file, the registry, and what a token may see of it.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use herald_auth::{
    Changed, Claimed, DocumentFile, FetchError, Holder, InvalidDocument, Organisations,
    ReadDocumentError, Registry, Source, SourceError, WATCH_INTERVAL,
};
use herald_types::{HerId, HerIds};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::{
    logs::Logs,
    site::{Answer, Site, hold_clock, until},
    support::{HER_ID, ORGANISATION, Parties},
};

const DOCUMENT: &str = r#"{"994598759":[100,200,300],"1":[7],"2":[]}"#;

fn organisations() -> Organisations {
    let organisations = Organisations::new();
    organisations.replace(DOCUMENT.as_bytes()).unwrap();
    organisations
}

fn granted(organisations: &Organisations, holder: &Holder) -> Vec<u32> {
    let grant = organisations.grant(holder);
    let all = [1, 7, 10, 16, 99, 100, 101, 200, 300, 400, i32::MAX as u32];
    let ids = all.into_iter().map(|id| HerId::new(id).unwrap());
    ids.filter(|id| grant.narrow(HerIds::new([*id]).unwrap()).is_ok()).map(HerId::get).collect()
}

/// What a token with these claims may see.
fn seen(her_id: &Value, organisation: &Value) -> Vec<u32> {
    let parties = Parties::new();
    let token = parties.token(&json!({ HER_ID: her_id, ORGANISATION: organisation }));
    granted(&organisations(), &parties.check_token(&token).unwrap().holder)
}

#[test]
fn the_claim_narrows_what_the_organisation_has() {
    for (claim, expected) in [
        ("0", &[100, 200, 300][..]),
        ("100", &[100]),
        ("100-200", &[100, 200]),
        ("200-100-200-200", &[100, 200]),
        ("100-400", &[100]),
        ("400", &[]),
        ("7", &[]),
        // Leading zeros are plain decimal digits, as in a query.
        ("00100", &[100]),
    ] {
        assert_eq!(seen(&json!(claim), &json!("994598759")), expected, "{claim}");
    }
}

#[test]
fn a_claim_that_is_not_well_formed_grants_nothing() {
    for claim in [
        json!(null),
        json!(""),
        json!("-"),
        json!("100-"),
        json!("-100"),
        json!("100--200"),
        json!("00"),
        json!("000"),
        json!("0-100"),
        json!("100-0"),
        json!("0-0"),
        json!("+100"),
        json!("-1"),
        json!("0x64"),
        json!("1e2"),
        json!("100.0"),
        json!("\u{ff11}00"),
        json!("\u{661}00"),
        json!("100\u{2010}200"),
        json!("100\u{2013}200"),
        json!("2147483648"),
        json!("4294967396"),
        json!("18446744073709551716"),
        json!("99999999999999999999999999"),
        json!(" 100"),
        json!("100 "),
        json!("100 - 200"),
        json!("100,200"),
        json!("100;200"),
        json!("100\n"),
        json!("100\u{0}"),
        json!("100-abc"),
        json!("*"),
        json!("all"),
        json!(" 0"),
        json!("0 "),
        json!(100),
        json!(0),
        json!(["0"]),
        json!(["100"]),
        json!({"0": true}),
        json!(true),
    ] {
        assert_eq!(seen(&claim, &json!("994598759")), [0; 0], "{claim}");
    }
}

#[test]
fn the_largest_her_id_is_one_and_a_claim_of_thousands_is_read() {
    let holder = |claimed: &str| {
        let parties = Parties::new();
        let token = parties.token(&json!({ HER_ID: claimed, ORGANISATION: "1" }));
        parties.check_token(&token).unwrap().holder
    };
    let organisations = Organisations::new();
    organisations.replace(br#"{"1":[2147483647]}"#).unwrap();
    assert_eq!(granted(&organisations, &holder("2147483647")), [i32::MAX as u32]);
    let many: Vec<String> = (1..2000).map(|id| id.to_string()).collect();
    let Claimed::These(her_ids) = holder(&many.join("-")).claimed else { panic!("a set") };
    assert_eq!(her_ids.as_slice().len(), 1999);
}

#[test]
fn only_an_organisation_that_is_known_by_this_very_text_has_any() {
    for organisation in [
        json!(null),
        json!(""),
        json!("3"),
        json!("2"),
        json!("0994598759"),
        json!(" 994598759"),
        json!("994598759 "),
        json!("NO:994598759"),
        json!("\u{ff19}94598759"),
        json!(994_598_759),
        json!(["994598759"]),
        json!({"994598759": 1}),
    ] {
        assert_eq!(seen(&json!("0"), &organisation), [0; 0], "{organisation}");
        assert_eq!(seen(&json!("100"), &organisation), [0; 0], "{organisation}");
    }
    assert_eq!(seen(&json!("0"), &json!("1")), [7]);
    let unread = Organisations::new();
    let holder = Holder { organisation: Some("1".to_owned()), claimed: Claimed::All };
    assert_eq!((unread.is_known(), granted(&unread, &holder)), (false, vec![]));
}

#[test]
fn a_document_that_is_not_well_formed_leaves_the_last_one_in_force() {
    let organisations = organisations();
    let changes = organisations.changes();
    let holder = Holder { organisation: Some("1".to_owned()), claimed: Claimed::All };
    for document in [
        "",
        "null",
        "[]",
        "7",
        r#"["1",[7]]"#,
        r#"[["1",[7]]]"#,
        "{",
        r#"{"1":[8]"#,
        r#"{"1":[8]} x"#,
        r#"{"1":8}"#,
        r#"{"1":null}"#,
        r#"{"1":"8"}"#,
        r#"{"1":["8"]}"#,
        r#"{"1":[0]}"#,
        r#"{"1":[-1]}"#,
        r#"{"1":[2147483648]}"#,
        r#"{"1":[4294967304]}"#,
        r#"{"1":[8.0]}"#,
        r#"{"1":[8.5]}"#,
        r#"{"1":[1e0]}"#,
        r#"{"1":[[8]]}"#,
        r#"{"1":{"8":true}}"#,
        r#"{1:[8]}"#,
        "\u{feff}{}",
    ] {
        let refused = organisations.replace(document.as_bytes());
        assert!(matches!(refused, Err(InvalidDocument::Form { .. })), "{document}");
    }
    for twice in [r#"{"1":[8],"1":[9]}"#, r#"{"1":[8],"2":[],"\u0031":[8]}"#] {
        assert_eq!(organisations.replace(twice.as_bytes()), Err(InvalidDocument::Twice));
    }
    assert!(organisations.replace(b"{\"1\":[8],\"\xFF\":[]}").is_err());
    assert_eq!(granted(&organisations, &holder), [7]);
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn what_is_wrong_with_a_document_is_said_without_repeating_it() {
    for (document, text) in [
        (r#"{"kty": "secret"}"#, "line 1, column 16"),
        ("{\"1\":\n[\"secret\"]}", "line 2, column 9"),
        (r#"{"secret": [7], "secret": [8]}"#, "twice"),
    ] {
        let refused = Organisations::new().replace(document.as_bytes()).unwrap_err();
        let (shown, debug) = (refused.to_string(), format!("{refused:?}"));
        assert!(shown.contains(text), "{shown}");
        assert!(!shown.contains("secret") && !debug.contains("secret"), "{shown}");
    }
}

#[test]
fn only_another_content_counts_as_a_change() {
    let organisations = organisations();
    let mut changes = organisations.changes();
    organisations.replace(DOCUMENT.as_bytes()).unwrap();
    organisations.replace(br#" {"2":[], "1":[7,7], "994598759":[300,200,100]} "#).unwrap();
    assert!(!changes.has_changed().unwrap());
    organisations.replace(br#"{"1":[7]}"#).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // Nobody is there: that is known, and another thing than not to know.
    let empty = Organisations::new();
    let changes = empty.changes();
    empty.replace(b"{}").unwrap();
    assert!(empty.is_known() && changes.has_changed().unwrap());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_and_a_broken_one_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("organisations.json");
    let (organisations, mut file) = (Organisations::new(), DocumentFile::new(&path));
    let holder = Holder { organisation: Some("1".to_owned()), claimed: Claimed::All };
    let missing = organisations.read(&mut file).await.unwrap_err();
    assert!(matches!(missing, ReadDocumentError::Source { source: SourceError::File(_), .. }));
    for (content, is_taken, expected) in [
        (r#"{"1":[7]}"#, true, &[7][..]),
        (r#"{"1":[7"#, false, &[7]),
        (r#"{"1":[10]}"#, true, &[10]),
        ("{}", true, &[]),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(organisations.read(&mut file).await.is_ok(), is_taken, "{content}");
        assert_eq!(granted(&organisations, &holder), expected);
        // It is not read twice.
        assert!(file.changed().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_registry_is_asked_by_its_tag_and_its_last_good_answer_is_kept() {
    let site = Site::start().await;
    let organisations = Organisations::new();
    let mut registry = Registry::new(&site.url("/organisations")).unwrap();
    let holder = Holder { organisation: Some("1".to_owned()), claimed: Claimed::All };
    let answer = |status, tag: &str, body: &str| {
        let headers = if tag.is_empty() { String::new() } else { format!("etag: {tag}\r\n") };
        Answer::Is(status, headers, body.into())
    };
    let mut changes = organisations.changes();
    for (answer, asked_with, refused, expected, is_change) in [
        (answer(304, "", ""), None, true, None, false),
        (answer(200, "\"1\"", r#"{"1":[7]}"#), None, false, Some(7), true),
        (answer(304, "", ""), Some("\"1\""), false, Some(7), false),
        (answer(503, "", ""), Some("\"1\""), true, Some(7), false),
        (answer(302, "\"9\"", ""), Some("\"1\""), true, Some(7), false),
        (answer(200, "\"2\"", r#"{"1":[7]}"#), Some("\"1\""), false, Some(7), false),
        (answer(200, "W/\"3\"", r#"{"1":[10]}"#), Some("\"2\""), false, Some(10), true),
        (answer(200, "\"4\"", "<html>"), Some("W/\"3\""), true, Some(10), false),
        (answer(200, "", r#"{"1":[16]}"#), Some("\"4\""), false, Some(16), true),
        (answer(200, "", r#"{"1":[16]}"#), None, false, Some(16), false),
    ] {
        site.put("/organisations", answer);
        let outcome = organisations.read(&mut registry).await;
        assert_eq!(outcome.is_err(), refused, "{outcome:?}");
        let head = site.last_head().to_lowercase();
        let tag = head.lines().find_map(|line| line.strip_prefix("if-none-match: "));
        assert_eq!(tag, asked_with.map(str::to_lowercase).as_deref());
        assert_eq!(granted(&organisations, &holder).first().copied(), expected);
        assert_eq!(changes.has_changed().unwrap(), is_change);
        changes.mark_unchanged();
    }
}

#[test]
fn a_registry_is_an_https_url_or_on_loopback() {
    assert!(Registry::new("https://registry.example.no/organisations").is_ok());
    assert!(Registry::new("http://127.0.0.1:1/organisations").is_ok());
    for url in ["http://registry.example.no/", "ftp://a/", "organisations.json", "https://a/?k=v"] {
        assert!(Registry::new(url).is_err(), "{url}");
    }
}

/// A source that says what it is told to.
struct Told(Arc<Mutex<Vec<&'static str>>>);

impl Source for Told {
    fn changed(&mut self) -> Changed<'_> {
        let next = self.0.lock().unwrap().pop();
        Box::pin(async move {
            match next {
                None => Ok(None),
                Some("missing") => {
                    Err(SourceError::File(std::io::Error::from(std::io::ErrorKind::NotFound)))
                }
                Some("away") => Err(SourceError::Registry(FetchError::Status(503))),
                Some(document) => Ok(Some(document.as_bytes().to_vec())),
            }
        })
    }

    fn name(&self) -> String {
        "told".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_logged_once_for_as_long_as_it_lasts_and_another_one_again() {
    let logs = Logs::start();
    let told = [
        ("missing", 1),
        ("missing", 1),
        ("away", 2),
        ("away", 2),
        ("broken", 3),
        ("{}", 3),
        ("broken", 4),
        ("away", 5),
        (r#"{"1":[7]}"#, 5),
        ("away", 6),
    ];
    let saying = Arc::new(Mutex::new(Vec::new()));
    let organisations = Organisations::new();
    let (fresh, source) = (organisations.clone(), Told(saying.clone()));
    let _clock = hold_clock();
    let interval = WATCH_INTERVAL;
    tokio::spawn(async move {
        let mut source = source;
        fresh.keep_fresh(&mut source, interval).await;
    });
    for (next, warnings) in told {
        saying.lock().unwrap().push(next);
        advance(interval).await;
        until(|| saying.lock().unwrap().is_empty()).await;
        until(|| true).await;
        tokio::task::yield_now().await;
        assert_eq!(logs.text().matches(" WARN ").count(), warnings, "{next}");
    }
    assert!(WATCH_INTERVAL * 2 < Duration::from_secs(10));
}
