//! Polling beyond the page's tables: bounds, headers, encodings, both versions of HTTP.

use http::{Method, StatusCode};

use crate::herald::{Herald, answer, draft};

fn her_ids(count: u32) -> String {
    (0..count).map(|number| format!("HerIds={}&", 2_147_483_647 - number)).collect()
}

#[tokio::test]
async fn her_ids_are_1500_at_most_over_both_versions() {
    for herald in [Herald::start(), Herald::start().over_http2()] {
        let most = herald.poll(&format!("{}Offset=0", her_ids(1500))).await;
        assert_eq!(most.status, StatusCode::OK);
        let repeated = format!("{}{}Offset=0", her_ids(1500), her_ids(1));
        assert_eq!(herald.poll(&repeated).await.status, StatusCode::OK);
        let more = herald.poll(&format!("{}Offset=0", her_ids(1501))).await;
        assert_eq!(
            more.violations(),
            ["HerIds: must be 1 to 1500 distinct HER-ids, there are 1501"]
        );
    }
}

#[tokio::test]
async fn a_her_id_is_1_to_2_to_the_31_minus_1() {
    let herald = Herald::start();
    for (her_id, status) in [
        ("1", 200),
        ("2147483647", 200),
        ("0", 400),
        ("2147483648", 400),
        ("-1", 400),
        ("1,2", 400),
    ] {
        let query = format!("HerIds={her_id}&Offset=0");
        assert_eq!(herald.poll(&query).await.status, status, "{her_id}");
    }
}

#[tokio::test]
async fn an_offset_is_0_to_2_to_the_63_minus_1() {
    let herald = Herald::start();
    herald.append(&[draft(1)]).await;
    let most = herald.poll("HerIds=1&Offset=9223372036854775807").await;
    assert_eq!(most.text(), r#"{"notifications":[]}"#);
    assert_eq!(most.header("herald-until"), "9223372036854775807");
    assert_eq!(most.header("herald-tail"), "1");
    for bad in ["9223372036854775808", "-1", "", "x", "1.0", "%2B1"] {
        let refused = herald.poll(&format!("HerIds=1&Offset={bad}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
}

#[tokio::test]
async fn names_of_parameters_are_matched_without_regard_to_case() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(2)]).await;
    let query = "herids=1&HERIDS=2&offset=0&NOTIFICATIONSTOFETCH=1&unknown=x";
    assert_eq!(herald.poll(query).await.offsets(), [1]);
}

#[tokio::test]
async fn offset_or_notifications_to_fetch_twice_is_refused() {
    let herald = Herald::start();
    let query = "HerIds=1&Offset=0&offset=0&NotificationsToFetch=1&NotificationsToFetch=1";
    assert_eq!(herald.poll(query).await.violations().len(), 2);
}

#[tokio::test]
async fn every_violation_is_reported_at_once() {
    let herald = Herald::start();
    let request = herald
        .bare(Method::GET, "/notifications?HerIds=0&HerIds=x&Offset=-1&NotificationsToFetch=0");
    let refused = answer(request.header("api-version", "4")).await;
    assert_eq!(refused.violations().len(), 6, "{}", refused.text());
}

#[tokio::test]
async fn until_is_the_last_offset_of_a_full_page_and_else_the_tail() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(1), draft(2), draft(2)]).await;
    let full = herald.poll("HerIds=1&Offset=0&NotificationsToFetch=1").await;
    assert_eq!((full.header("herald-until"), full.header("herald-tail")), ("1", "4"));
    assert_eq!(herald.poll("HerIds=1&Offset=0").await.header("herald-until"), "4");
    assert_eq!(herald.poll("HerIds=3&Offset=0").await.header("herald-until"), "4");
    let beyond = herald.poll("HerIds=1&Offset=9").await;
    assert_eq!((beyond.header("herald-until"), beyond.header("herald-trim")), ("9", "0"));
}

#[tokio::test]
async fn history_is_one_uuid_on_polls_streams_and_appends() {
    let herald = Herald::start();
    let poll = herald.poll("HerIds=1&Offset=0").await;
    let history = poll.header("herald-history");
    assert!(uuid::Uuid::try_parse(history).is_ok(), "{history}");
    let body = format!(r#"{{"notifications":[{}]}}"#, draft(1));
    let appended = herald.post("application/json", body).await;
    assert_eq!(appended.header("herald-history"), history);
    let events = herald.stream("HerIds=1&Offset=0").await;
    assert_eq!(events.response.headers()["herald-history"], history);
    assert_eq!(events.response.headers()["herald-tail"], "1");
    assert_eq!(events.response.headers()["herald-trim"], "0");
}

#[tokio::test]
async fn a_page_is_compressed_when_asked_for() {
    let herald = Herald::start();
    herald.append(&vec![draft(1); 100]).await;
    let path = "/notifications?HerIds=1&Offset=0";
    let plain = herald.get(path).await;
    assert_eq!(plain.header("content-encoding"), "(none)");
    for (asked, encoding) in
        [("gzip", "gzip"), ("zstd", "zstd"), ("gzip;q=0", "(none)"), ("br", "(none)")]
    {
        let request = herald.request(Method::GET, path).header("accept-encoding", asked);
        let page = answer(request).await;
        assert_eq!(page.header("content-encoding"), encoding, "{asked}");
        if encoding == "(none)" {
            assert_eq!(page.body, plain.body);
        } else {
            assert!(page.body.len() < plain.body.len() / 4, "{asked}");
            let magic: &[u8] = if encoding == "gzip" { &[0x1f, 0x8b] } else { &[0x28, 0xb5] };
            assert!(page.body.starts_with(magic));
        }
    }
    let empty = herald.request(Method::GET, "/notifications?HerIds=2&Offset=0");
    let empty = answer(empty.header("accept-encoding", "gzip")).await;
    assert_eq!(empty.text(), r#"{"notifications":[]}"#);
}

#[tokio::test]
async fn head_of_a_page_is_its_head() {
    let herald = Herald::start();
    herald.append(&[draft(1)]).await;
    let path = "/notifications?HerIds=1&Offset=0";
    let page = herald.get(path).await;
    let head = answer(herald.request(Method::HEAD, path)).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), page.body.len().to_string());
    assert_eq!(head.header("herald-until"), "1");
}

#[tokio::test]
async fn every_page_size_gives_the_same_notifications() {
    let herald = Herald::start();
    herald.append(&(0..200).map(|number| draft(1 + number % 3)).collect::<Vec<_>>()).await;
    let all = herald.poll("HerIds=1&HerIds=3&Offset=0&NotificationsToFetch=1000").await;
    for size in [1, 7, 100] {
        let (mut after, mut pages) = ("0".to_owned(), Vec::new());
        loop {
            let query = format!("HerIds=1&HerIds=3&Offset={after}&NotificationsToFetch={size}");
            let page = herald.poll(&query).await;
            if page.notifications().is_empty() {
                break;
            }
            after = page.header("herald-until").to_owned();
            pages.extend(page.notifications());
        }
        assert_eq!(pages, all.notifications(), "{size}");
    }
}

#[tokio::test]
async fn a_thousand_of_the_longest_notifications_are_one_page() {
    let herald = Herald::start();
    let mut longest = draft(2_147_483_647);
    longest["type"] = "MessageDeliveryStateUpdated".into();
    longest["notificationTriggeredByHerId"] = 2_147_483_647.into();
    longest["description"] = "\u{1}".repeat(1024).into();
    herald.append(&vec![longest; 1000]).await;
    let page = herald.poll("HerIds=2147483647&Offset=0&NotificationsToFetch=1000").await;
    assert_eq!(page.offsets().len(), 1000);
    assert!(page.body.len() > 6_000_000);
}
