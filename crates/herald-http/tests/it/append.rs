//! Appending as JSON and as NDJSON.

use herald_http::api::{JSON_BYTES_MAX, LINE_BYTES_MAX, NDJSON_DRAFTS_MAX, PIECE_DRAFTS_MAX};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::herald::{Answer, Herald, answer, draft, draft_with_id, id, offsets};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn batch(drafts: &[Value]) -> String {
    json!({ "notifications": drafts }).to_string()
}

fn line(her_id: u32, number: u128) -> String {
    draft_with_id(her_id, number).to_string()
}

async fn stored(herald: &Herald) -> u64 {
    herald.poll("HerIds=1&Offset=0").await.header("herald-tail").parse().unwrap()
}

#[track_caller]
fn assert_refused(answer: &Answer, status: StatusCode, start: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    let texts = answer.json()["validationErrors"].as_array().cloned().unwrap_or_default();
    let first = texts.first().and_then(Value::as_str).unwrap_or(&detail).to_owned();
    assert!(first.starts_with(start), "{first}");
}

#[tokio::test]
async fn drafts_are_answered_in_their_order_with_ascending_offsets() {
    let herald = Herald::start();
    let drafts = [draft_with_id(1, 7), draft(2), draft_with_id(1, 5)];
    let answers = herald.append(&drafts).await;
    assert_eq!(offsets(&answers), [1, 2, 3]);
    assert_eq!(answers[0]["notificationId"], id(7));
    assert_eq!(answers[2]["notificationId"], id(5));
    for one in &answers {
        assert_eq!(one["duplicate"], false);
        assert_eq!(one.as_object().unwrap().len(), 4, "{one}");
    }
    let page = herald.poll("HerIds=2&Offset=0").await.notifications();
    assert_eq!(page[0]["notificationId"], answers[1]["notificationId"]);
    assert_eq!(page[0]["createdAt"], answers[1]["createdAt"]);
}

#[tokio::test]
async fn a_repeated_id_is_a_duplicate_with_the_first_ones_offset() {
    let herald = Herald::start();
    let first = herald.append(&[draft_with_id(1, 7)]).await;
    let again =
        herald.append(&[draft_with_id(1, 8), draft_with_id(1, 7), draft_with_id(1, 8)]).await;
    assert_eq!(offsets(&again), [2, 1, 2]);
    assert_eq!(again[1]["createdAt"], first[0]["createdAt"]);
    let duplicates: Vec<_> = again.iter().map(|one| one["duplicate"].as_bool().unwrap()).collect();
    assert_eq!(duplicates, [false, true, true]);
    assert_eq!(stored(&herald).await, 2);
}

#[tokio::test]
async fn other_content_under_a_stored_id_is_409_and_names_the_id() {
    let herald = Herald::start();
    herald.append(&[draft_with_id(1, 7)]).await;
    let body = batch(&[draft_with_id(1, 8), draft_with_id(2, 7)]);
    let refused = herald.post(JSON, body).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(
        refused.violations(),
        [format!("notifications[1].notificationId: {} is stored with other content", id(7))]
    );
    assert_eq!(stored(&herald).await, 1);
    let lines = format!("{}\n\n{}\n", line(1, 9), line(2, 7));
    let refused = herald.post(NDJSON, lines).await;
    assert_refused(&refused, StatusCode::CONFLICT, "line 3: notificationId: ");
}

#[tokio::test]
async fn a_json_request_is_all_or_nothing_and_reports_every_violation() {
    let herald = Herald::start();
    let body = batch(&[draft(1), json!({"type": "x", "more": 1}), draft(1)]);
    let refused = herald.post(JSON, body).await;
    assert_eq!(refused.violations().len(), 4, "{}", refused.text());
    assert_eq!(stored(&herald).await, 0);
}

#[tokio::test]
async fn a_json_request_has_1_to_1000_drafts() {
    let herald = Herald::start();
    for (count, status) in [(0, 400), (1, 201), (1000, 201), (1001, 400)] {
        let answer = herald.post(JSON, batch(&vec![draft(1); count])).await;
        assert_eq!(answer.status, status, "{count}");
    }
    assert_eq!(stored(&herald).await, 1001);
}

#[tokio::test]
async fn a_json_body_of_16_mib_is_taken_and_one_byte_more_is_413() {
    let herald = Herald::start();
    let of = |bytes: usize| {
        let mut body = batch(&[draft(1)]);
        body.push_str(&" ".repeat(bytes - body.len()));
        body
    };
    assert_eq!(herald.post(JSON, of(JSON_BYTES_MAX)).await.status, StatusCode::CREATED);
    let refused = herald.post(JSON, of(JSON_BYTES_MAX + 1)).await;
    assert_refused(&refused, StatusCode::PAYLOAD_TOO_LARGE, "The body is larger");
}

#[tokio::test]
async fn a_description_has_1024_characters_at_most_whatever_they_are() {
    let herald = Herald::start();
    for character in ["x", "å", "😀", "\0", "\n"] {
        for (count, status) in [(1024, 201), (1025, 400)] {
            let mut one = draft(1);
            one["description"] = character.repeat(count).into();
            assert_eq!(herald.post(JSON, batch(&[one])).await.status, status, "{character:?}");
        }
    }
    let page = herald.poll("HerIds=1&Offset=3").await.notifications();
    assert_eq!(page[0]["description"], "\0".repeat(1024));
    let mut events = herald.stream("HerIds=1&Offset=4").await.connected().await;
    let body: Value = serde_json::from_str(&events.notification().await).unwrap();
    assert_eq!(body["description"], "\n".repeat(1024));
}

#[tokio::test]
async fn content_types_other_than_the_two_and_encodings_are_415() {
    let herald = Herald::start();
    for content_type in ["text/plain", "application/jsonx", "application/ndjson", ""] {
        let refused = herald.post(content_type, batch(&[draft(1)])).await;
        assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let request = herald.request(Method::POST, "/notifications").body(batch(&[draft(1)]));
    assert_eq!(answer(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let request = herald.request(Method::POST, "/notifications").header("content-type", JSON);
    let request = request.header("content-encoding", "gzip").body(batch(&[draft(1)]));
    let refused = answer(request).await;
    assert_refused(&refused, StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be sent as it is");
    let taken = herald.post("application/JSON; charset=utf-8", batch(&[draft(1)])).await;
    assert_eq!(taken.status, StatusCode::CREATED);
}

#[tokio::test]
async fn ndjson_skips_blank_lines_and_takes_any_line_end() {
    let herald = Herald::start();
    let body = format!("\n{}\r\n \t\r\n\n{}\n{}", line(1, 1), line(1, 2), line(1, 3));
    let answer = herald.post(NDJSON, body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    assert_eq!(answer.offsets(), [1, 2, 3]);
}

#[tokio::test]
async fn ndjson_without_a_draft_is_400() {
    let herald = Herald::start();
    for body in ["", "\n", " \r\n\n"] {
        assert_refused(
            &herald.post(NDJSON, body).await,
            StatusCode::BAD_REQUEST,
            "the body has no",
        );
    }
}

#[tokio::test]
async fn a_bad_line_ends_ndjson_and_sending_all_again_is_safe() {
    let herald = Herald::start();
    let mut lines: Vec<_> = (1..=PIECE_DRAFTS_MAX as u128 + 20).map(|n| line(1, n)).collect();
    let good = lines.join("\n");
    lines[PIECE_DRAFTS_MAX + 16] = r#"{"type":"x"}"#.to_owned();
    let refused = herald.post(NDJSON, lines.join("\n")).await;
    assert_refused(&refused, StatusCode::BAD_REQUEST, "line 1017: ");
    assert_eq!(refused.violations().len(), 3, "{}", refused.text());
    assert!(refused.text().contains("1000 drafts of this request were stored"));
    assert_eq!(stored(&herald).await, 1000);
    let again = herald.post(NDJSON, good).await;
    assert_eq!(again.offsets(), (1..=1020).collect::<Vec<_>>());
    assert_eq!(again.notifications().iter().filter(|one| one["duplicate"] == true).count(), 1000);
}

#[tokio::test]
async fn an_ndjson_line_of_64_kib_is_taken_and_one_byte_more_is_413() {
    let herald = Herald::start();
    let of = |bytes: usize| {
        let short = line(1, 1);
        format!("{}\n{}{short}\n", line(1, 2), " ".repeat(bytes - short.len()))
    };
    assert_eq!(herald.post(NDJSON, of(LINE_BYTES_MAX)).await.status, StatusCode::CREATED);
    let refused = herald.post(NDJSON, of(LINE_BYTES_MAX + 1)).await;
    assert_refused(&refused, StatusCode::PAYLOAD_TOO_LARGE, "line 2: ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ndjson_takes_100_000_drafts_and_one_more_is_413() {
    let herald = Herald::start();
    let mut body = format!("{}\n", draft(1)).repeat(NDJSON_DRAFTS_MAX);
    let answer = herald.post(NDJSON, body.clone()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.offsets(), (1..=NDJSON_DRAFTS_MAX as u64).collect::<Vec<_>>());
    body.push_str(&draft(1).to_string());
    let refused = herald.post(NDJSON, body).await;
    assert_refused(&refused, StatusCode::PAYLOAD_TOO_LARGE, "line 100001: ");
}

#[tokio::test]
async fn headers_and_body_are_reported_together_and_nothing_is_stored() {
    let herald = Herald::start();
    for (content_type, body, count) in
        [(JSON, "{}".to_owned(), 3), (NDJSON, format!("{}\n{{}}\n", line(1, 1)), 5)]
    {
        let request = herald.bare(Method::POST, "/notifications");
        let refused = answer(request.header("content-type", content_type).body(body)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert_eq!(refused.violations().len(), count, "{}", refused.text());
    }
    assert_eq!(stored(&herald).await, 0);
}

#[tokio::test]
async fn both_forms_are_appended_over_http_2() {
    let herald = Herald::start().over_http2();
    assert_eq!(offsets(&herald.append(&[draft(1)]).await), [1]);
    let body = format!("{}\n", draft(1)).repeat(5000);
    assert_eq!(herald.post(NDJSON, body).await.offsets().len(), 5000);
}
