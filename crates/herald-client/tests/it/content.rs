//! What notifications may contain, by polling and by streaming: whatever it is, it is handed out as it came.

use herald_client::{Event, types::PageLimit};

use crate::{
    client, cursor, her_ids, offset,
    script::{Script, connected, page, wait_for_close, write},
};

/// Serves these objects by both ways: streamed, and as one page.
fn serve(objects: &[String]) -> Script {
    let objects = objects.to_vec();
    Script::start(move |_, request, stream| {
        if request.target() == "GET /notifications" {
            write(stream, page("200 OK", "", &objects));
            return;
        }
        let events = objects.iter().map(|it| format!("event: notification\ndata: {it}\n\n"));
        write(stream, connected("") + &events.collect::<String>());
        wait_for_close(stream);
    })
}

/// What comes by both ways, which must be the same.
async fn receive(objects: &[String], count: usize) -> Vec<herald_client::Notification> {
    let server = serve(objects);
    let client = client(&server.url);
    let mut streamed = Vec::new();
    let mut notifications = client.notifications(cursor(7..=7, 5));
    while streamed.len() < count {
        if let Event::Notification(notification) = notifications.next().await.unwrap() {
            streamed.push(notification);
        }
    }
    let mut pages = client.pages(cursor(7..=7, 5), PageLimit::MAX);
    let polled = pages.next().await.unwrap().unwrap().notifications;
    assert_eq!(polled, streamed);
    streamed
}

fn described(offset: u64, description: &str) -> String {
    format!(
        r#"{{"type":"NewMessage","notificationReceiverHerId":7,"description":{description},"offset":{offset}}}"#
    )
}

#[tokio::test]
async fn descriptions_come_through_as_they_are() {
    let long = "🩺".repeat(1024);
    let descriptions = [
        "Message sent to receiver.",
        "",
        " leading and trailing ",
        "æøå ÆØÅ 漢字 🩺 e\u{301}",
        "data: no field\nevent: neither\r\n\r\n: nor a comment",
        "\"quotes\", \\backslashes\\, {braces} and [brackets],\"offset\":1",
        "\u{0} \u{7f} \u{2028} \u{2029} \u{feff}",
        &long,
    ];
    let written = |text: &str| serde_json::to_string(text).unwrap();
    let mut objects: Vec<_> =
        (6..).zip(descriptions).map(|(at, it)| described(at, &written(it))).collect();
    // The same letters, escaped by a server that writes ASCII only.
    objects.push(described(14, r#""\u00e6\u00f8\u00e5 \ud83e\ude7a \/""#));
    objects.push(described(15, "null"));
    let received = receive(&objects, objects.len()).await;
    let raw: Vec<_> = received.iter().map(|notification| notification.raw()).collect();
    assert_eq!(raw, objects);
    let read: Vec<_> = received.iter().map(|it| it.fields().unwrap().description).collect();
    let expected = descriptions.into_iter().chain(["æøå 🩺 /"]).map(|it| Some(it.to_owned()));
    assert_eq!(read, expected.chain([None]).collect::<Vec<_>>());
}

#[tokio::test]
async fn offsets_beyond_2_to_the_31_and_53_are_exact() {
    let offsets = [
        (1 << 31) - 1,
        1 << 31,
        (1 << 53) - 1,
        1 << 53,
        // A double would make the one before of this.
        (1 << 53) + 1,
        i64::MAX.unsigned_abs() - 1,
        i64::MAX.unsigned_abs(),
    ];
    let objects: Vec<_> = offsets.iter().map(|at| described(*at, "null")).collect();
    let received = receive(&objects, objects.len()).await;
    let expected = offsets.map(offset);
    assert_eq!(
        received.iter().map(herald_client::Notification::offset).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(received.iter().map(|it| it.fields().unwrap().offset).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn what_is_delivered_again_is_handed_out_once() {
    let of = |offsets: &[u64]| offsets.iter().map(|at| described(*at, "null")).collect::<Vec<_>>();
    let received = receive(&of(&[4, 5, 6, 6, 7, 6, 7, 9, 7, 9, 10]), 4).await;
    let offsets: Vec<_> = received.iter().map(|it| it.offset().get()).collect();
    assert_eq!(offsets, [6, 7, 9, 10]);
}

#[tokio::test]
async fn types_and_fields_that_nobody_knows_end_nothing() {
    let objects = [
        r#"{"type":"MessageShredded","notificationReceiverHerId":7,"offset":6}"#,
        r#"{"type":"NewMessage","notificationReceiverHerId":7,"weight":{"kg":[1e3,null]},"offset":7}"#,
        r#"{"type":17,"notificationReceiverHerId":"seven","offset":8}"#,
        r#"{"offset":9}"#,
    ]
    .map(str::to_owned);
    let received = receive(&objects, 4).await;
    let raw: Vec<_> = received.iter().map(|notification| notification.raw()).collect();
    assert_eq!(raw, objects);
    let kinds: Vec<_> = received.iter().map(|it| it.fields().map(|it| it.kind).ok()).collect();
    assert_eq!(kinds, [Some("MessageShredded".to_owned()), Some("NewMessage".into()), None, None]);
    // A single call polls as well.
    let server = serve(&objects);
    let page = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
    assert_eq!(page.unwrap().notifications, received);
}
