//! Each row of the page's tables, and its example stream.

use http::{Method, StatusCode};
use serde_json::json;

use crate::herald::{EVENT_STREAM, Events, Herald, MESSAGE, answer, draft};

// "Fetch Notifications (Polling)", request headers.

#[tokio::test]
async fn polling_header_api_version_must_be_3() {
    let herald = Herald::start();
    for (version, status) in [("3", 200), ("2", 400), ("03", 400), ("3.0", 400), ("", 400)] {
        let request = herald.bare(Method::GET, "/notifications?HerIds=1&Offset=0");
        let request = request.header("api-version", version).header("nhn-source-system", "x");
        assert_eq!(answer(request).await.status, status, "{version:?}");
    }
    let request = herald.bare(Method::GET, "/notifications?HerIds=1&Offset=0");
    let refused = answer(request.header("nhn-source-system", "x")).await;
    assert_eq!(refused.violations(), ["api-version is required"]);
}

#[tokio::test]
async fn polling_header_nhn_source_system_is_required() {
    let herald = Herald::start();
    let with = |value: String| {
        let request = herald.bare(Method::GET, "/notifications?HerIds=1&Offset=0");
        answer(request.header("api-version", "3").header("nhn-source-system", value))
    };
    assert_eq!(with("MyJournal, v2.4".into()).await.status, 200);
    assert_eq!(with("x".repeat(512)).await.status, 200);
    assert_eq!(with("å".repeat(512)).await.status, 200);
    assert_eq!(with("x".repeat(513)).await.status, 400);
    assert_eq!(with("   ".into()).await.status, 400);
    let request = herald.bare(Method::GET, "/notifications?HerIds=1&Offset=0");
    let refused = answer(request.header("api-version", "3")).await;
    assert_eq!(refused.violations(), ["nhn-source-system is required"]);
}

// "Fetch Notifications (Polling)", query parameters.

#[tokio::test]
async fn polling_parameter_her_ids_is_one_or_more_receivers() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(2), draft(3)]).await;
    assert_eq!(herald.poll("HerIds=1&Offset=0").await.offsets(), [1]);
    assert_eq!(herald.poll("HerIds=1&HerIds=3&Offset=0").await.offsets(), [1, 3]);
    assert_eq!(herald.poll("Offset=0").await.status, 400);
}

#[tokio::test]
async fn polling_parameter_notifications_to_fetch_is_100_by_default_and_1_to_1000() {
    let herald = Herald::start();
    for _ in 0..2 {
        herald.append(&vec![draft(1); 550]).await;
    }
    let count = async |query: &str| herald.poll(query).await.offsets().len();
    assert_eq!(count("HerIds=1&Offset=0").await, 100);
    assert_eq!(count("HerIds=1&Offset=0&NotificationsToFetch=1").await, 1);
    assert_eq!(count("HerIds=1&Offset=0&NotificationsToFetch=1000").await, 1000);
    for bad in ["0", "1001", "", "ten"] {
        let query = format!("HerIds=1&Offset=0&NotificationsToFetch={bad}");
        assert_eq!(herald.poll(&query).await.status, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn polling_parameter_offset_gives_only_newer_notifications() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(1), draft(1)]).await;
    assert_eq!(herald.poll("HerIds=1&Offset=0").await.offsets(), [1, 2, 3]);
    assert_eq!(herald.poll("HerIds=1&Offset=2").await.offsets(), [3]);
    assert_eq!(herald.poll("HerIds=1&Offset=3").await.text(), r#"{"notifications":[]}"#);
    assert_eq!(herald.poll("HerIds=1").await.status, 400);
}

// "Response".

#[tokio::test]
async fn a_notification_has_the_fields_of_the_page() {
    let herald = Herald::start();
    let mut full = draft(8_139_764);
    full["type"] = "MessageSentStateUpdated".into();
    full["notificationTriggeredByHerId"] = 90_215.into();
    full["description"] = "Message sent to receiver.".into();
    let stored = herald.append(&[full]).await;
    let page = herald.poll("HerIds=8139764&Offset=0").await;
    let created_at = stored[0]["createdAt"].as_str().unwrap();
    assert!(created_at.ends_with("+00:00"), "{created_at}");
    assert_eq!(
        page.notifications(),
        [json!({
            "notificationId": stored[0]["notificationId"],
            "relatedMessageId": MESSAGE,
            "type": "MessageSentStateUpdated",
            "notificationReceiverHerId": 8_139_764,
            "notificationTriggeredByHerId": 90_215,
            "description": "Message sent to receiver.",
            "createdAt": created_at,
            "offset": stored[0]["offset"],
        })]
    );
}

#[tokio::test]
async fn offsets_are_global_so_a_client_sees_gaps() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(2), draft(1)]).await;
    assert_eq!(herald.poll("HerIds=1&Offset=0").await.offsets(), [1, 3]);
}

// "Stream Notifications".

#[tokio::test]
async fn streaming_headers_are_required_like_those_of_polling() {
    let herald = Herald::start();
    let path = "/notifications/stream?HerIds=1&Offset=0";
    let request = herald.bare(Method::GET, path).header("accept", EVENT_STREAM);
    let refused = answer(request).await;
    assert_eq!(refused.violations(), ["api-version is required", "nhn-source-system is required"]);
}

#[tokio::test]
async fn streaming_header_accept_must_be_text_event_stream() {
    let herald = Herald::start();
    let path = "/notifications/stream?HerIds=1&Offset=0";
    for accept in ["application/json", "text/html, text/plain", "text/event-stream;q=0", "*/*;q=0"]
    {
        let refused = answer(herald.request(Method::GET, path).header("accept", accept)).await;
        assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE, "{accept}");
    }
    for accept in [EVENT_STREAM, "TEXT/Event-Stream", "text/*", "application/json, */*;q=0.1"] {
        let request = herald.request(Method::GET, path).header("accept", accept);
        Events::open(request).await.connected().await;
    }
}

#[tokio::test]
async fn streaming_parameters_are_her_ids_and_offset() {
    let herald = Herald::start();
    herald.append(&[draft(1), draft(2), draft(3), draft(1)]).await;
    let mut events = herald.stream("HerIds=1&HerIds=2&Offset=1").await.connected().await;
    let bodies = events.notifications(2).await;
    assert!(bodies[0].ends_with("\"offset\":2}") && bodies[1].ends_with("\"offset\":4}"));
    let refused = herald.refused_stream("HerIds=1").await;
    assert!(refused.violations()[0].contains("herald-tail"), "{}", refused.text());
    assert_eq!(herald.refused_stream("Offset=1").await.status, 400);
}

// "Example Stream".

#[tokio::test]
async fn the_example_stream_comes_as_on_the_page() {
    let herald = Herald::start();
    let mut sent = draft(8_139_764);
    sent["type"] = "MessageSentStateUpdated".into();
    sent["notificationTriggeredByHerId"] = 90_215.into();
    herald.append(&[sent.clone(), sent]).await;
    let mut events = herald.stream("HerIds=8139764&Offset=0").await;
    let head = events.response.headers();
    assert_eq!(head["content-type"], "text/event-stream");
    assert_eq!(head["cache-control"], "no-store");
    assert_eq!(head["x-accel-buffering"], "no");
    let (connected, first) = (events.next().await.unwrap(), events.next().await.unwrap());
    assert_eq!(connected, "event: connected\ndata:");
    let page = herald.poll("HerIds=8139764&Offset=0&NotificationsToFetch=1").await;
    let body = page.text().strip_prefix(r#"{"notifications":["#).unwrap();
    let body = body.strip_suffix("]}").unwrap();
    assert_eq!(first, format!("id: 1\nevent: notification\ndata: {body}"));
    assert!(events.next().await.unwrap().starts_with("id: 2\nevent: notification\ndata: {"));
}

// "Notification Types": each can be appended, polled and streamed, with a description of its own.

async fn round_trip(kind: &str, description: &str) {
    let herald = Herald::start();
    let mut one = draft(1);
    one["type"] = kind.into();
    herald.append(&[one]).await;
    let page = herald.poll("HerIds=1&Offset=0").await.notifications();
    assert_eq!(page[0]["type"], kind);
    assert_eq!(page[0]["description"], description);
    let mut events = herald.stream("HerIds=1&Offset=0").await.connected().await;
    let body: serde_json::Value = serde_json::from_str(&events.notification().await).unwrap();
    assert_eq!(body, page[0]);
}

#[tokio::test]
async fn type_new_message() {
    round_trip("NewMessage", "New message ready for download.").await;
}

#[tokio::test]
async fn type_refused_message() {
    round_trip("RefusedMessage", "Message refused and not delivered.").await;
}

#[tokio::test]
async fn type_message_sent_state_updated() {
    round_trip("MessageSentStateUpdated", "Message sent to receiver.").await;
}

#[tokio::test]
async fn type_message_delivery_state_updated() {
    round_trip("MessageDeliveryStateUpdated", "Delivery state updated.").await;
}

#[tokio::test]
async fn type_message_apprec_info_updated() {
    round_trip("MessageApprecInfoUpdated", "Application receipt updated.").await;
}
