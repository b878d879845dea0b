//! What `/metrics` answers of a server that has done a little of everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{
    drafts::TYPES,
    http::{self, Events, identified, poll},
    server::Server,
};

/// The samples by name and labels, after checking that each metric is described.
async fn scrape(client: &reqwest::Client, server: &Server) -> BTreeMap<String, f64> {
    let url = format!("http://{}/metrics", server.ops);
    let text = client.get(url).send().await.expect("metrics").text().await.expect("text");
    let mut described = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            described.insert(help.split_once(' ').expect("a text").0.to_owned());
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let bare = name.split('{').next().expect("a name");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| bare.strip_suffix(end));
            let known =
                described.contains(bare) || base.is_some_and(|base| described.contains(base));
            assert!(known && name.starts_with("herald_"), "not described: {line}");
            assert!(!line.contains("8139764"), "a HER-id: {line}");
            samples.insert(name.to_owned(), value.parse().expect("a number"));
        }
    }
    samples
}

/// The body of an append of one draft of `kind` with the id `number`.
fn body(kind: &str, number: usize, description: &str) -> String {
    format!(
        r#"{{"notifications":[{{"notificationId":"00000000-0000-4000-8000-{number:012}","type":"{kind}",
        "relatedMessageId":"00000000-0000-4000-8000-000000000000","notificationReceiverHerId":8139764,
        "description":"{description}"}}]}}"#
    )
}

#[tokio::test]
async fn each_question_of_an_operator_has_an_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--drain", "0s"]).await;
    let client = http::client();
    let url = server.url();
    let append = async |body: String| {
        let request = identified(client.post(format!("{url}/notifications")));
        let request = request.header("content-type", "application/json");
        request.body(body).send().await.expect("an answer").status().as_u16()
    };
    let mut events = Events::open(&client, &url, &[8_139_764], 0).await.expect("a stream");
    for (number, kind) in TYPES.into_iter().enumerate() {
        assert_eq!(append(body(kind, number, "one")).await, 201);
        events.next().await.expect("an event");
    }
    assert_eq!(append(body("NewMessage", 0, "one")).await, 201);
    assert_eq!(append(body("NewMessage", 0, "other")).await, 409);
    assert_eq!(append("{".into()).await, 400);
    assert_eq!(poll(&client, &url, &[8_139_764], 0, 1000).await.notifications.len(), 5);
    assert_eq!(poll(&client, &url, &[8_139_764], 0, 2).await.notifications.len(), 2);
    assert_eq!(poll(&client, &url, &[1], 0, 10).await.notifications.len(), 0);

    let samples = scrape(&client, &server).await;
    let value =
        |name: &str| *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
    for kind in TYPES {
        let name = format!("herald_appends_total{{type=\"{kind}\",outcome=\"stored\"}}");
        assert_eq!(value(&name), 1.0, "{name}");
    }
    for (name, expected) in [
        ("herald_appends_total{type=\"NewMessage\",outcome=\"duplicate\"}", 1.0),
        ("herald_appends_total{type=\"NewMessage\",outcome=\"conflict\"}", 1.0),
        ("herald_tail_offset", 5.0),
        ("herald_trim_offset", 0.0),
        ("herald_replica_lag", 0.0),
        ("herald_log_poisoned", 0.0),
        ("herald_ready", 1.0),
        ("herald_open_streams", 1.0),
        ("herald_source_system_streams{source_system=\"tests/1\"}", 1.0),
        ("herald_stream_lag_offsets", 0.0),
        ("herald_stream_stalled_seconds", 0.0),
        ("herald_events_sent_total", 5.0),
        ("herald_polls_total{answer=\"full\"}", 1.0),
        ("herald_polls_total{answer=\"part\"}", 1.0),
        ("herald_polls_total{answer=\"empty\"}", 1.0),
        ("herald_poll_notifications_sum", 7.0),
        ("herald_problems_total{type=\"content-differs\",status=\"409\"}", 1.0),
        ("herald_problems_total{type=\"invalid-request\",status=\"400\"}", 1.0),
        (
            "herald_http_requests_total{route=\"/notifications\",method=\"POST\",status=\"201\"}",
            6.0,
        ),
        ("herald_http_requests_total{route=\"/notifications\",method=\"GET\",status=\"200\"}", 3.0),
        ("herald_http_request_seconds_count{route=\"/notifications/stream\"}", 1.0),
        ("herald_log_batch_records_sum", 5.0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    for name in [
        "herald_log_sync_seconds_count",
        "herald_log_append_seconds_count",
        "herald_log_batch_bytes_sum",
        "herald_wakes_total",
        "herald_stream_wakeups_total",
        "herald_recent_reads_total{result=\"hit\"}",
        "herald_log_bytes",
        "herald_http_connections{port=\"api\"}",
        "herald_build_info{version=\"0.1.0\"}",
    ] {
        assert!(value(name) >= 1.0, "{name}");
    }
    drop(events);
    while scrape(&client, &server).await["herald_open_streams"] > 0.0 {}
}
