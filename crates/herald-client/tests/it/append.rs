//! Appends: what is sent, and that sending it again is the same.

use herald_client::{
    Error,
    drafts::Batch,
    types::{Draft, HerId, NotificationType},
};
use uuid::Uuid;

use crate::{
    client, offset,
    script::{Script, answer, page, write},
};

fn draft() -> Draft {
    Draft::new(NotificationType::NewMessage, Uuid::from_u128(1), HerId::new(7).unwrap())
}

#[tokio::test]
async fn drafts_are_sent_as_json_with_an_id_each_and_lines_as_ndjson() {
    let id = Uuid::from_u128(9);
    let answers = [
        format!(
            r#"{{"notificationId":"{id}","offset":1,"createdAt":"2026-05-08T08:32:15.31+00:00","duplicate":true}}"#
        ),
        format!("{{\n\"notificationId\":\"{id}\",\n\"offset\": 2}}"),
    ];
    let server = Script::start(move |_, _, stream| {
        write(stream, page("201 Created", "", &answers));
    });
    let client = client(&server.url);
    let full = Draft {
        notification_id: Some(id),
        triggered_by: HerId::new(8),
        description: Some("\"æ\"\n".into()),
        ..draft()
    };
    let appended = client.append([full, draft()]).await.unwrap();
    let [first, second] = &appended.answers[..] else { panic!("two answers") };
    let fields = first.fields().unwrap();
    assert_eq!((fields.notification_id, fields.offset, fields.duplicate), (id, offset(1), true));
    assert_eq!(fields.created_at.unwrap().to_string(), "2026-05-08T08:32:15.31Z");
    assert_eq!(second.raw(), format!(r#"{{"notificationId":"{id}","offset":2}}"#));
    assert!(!second.fields().unwrap().duplicate);
    client.append_lines("{}\n{}\n".into()).await.unwrap();

    let [json, lines] = &server.requests()[..] else { panic!("two requests") };
    assert_eq!(json.target(), "POST /notifications");
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.header("api-version"), Some("3"));
    let body = String::from_utf8(json.body.clone()).unwrap();
    let related = "00000000-0000-0000-0000-000000000001";
    let (first, second) = body.split_once("},{").unwrap();
    assert_eq!(
        first,
        format!(
            r#"{{"notifications":[{{"notificationId":"{id}","relatedMessageId":"{related}","type":"NewMessage","notificationReceiverHerId":7,"notificationTriggeredByHerId":8,"description":"\"æ\"\n""#
        )
    );
    assert!(second.starts_with("\"notificationId\":\""), "{second}");
    assert!(second.ends_with("\"notificationReceiverHerId\":7}]}"), "{second}");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.body, b"{}\n{}\n");
}

#[tokio::test]
async fn an_append_takes_1_to_1000_drafts_and_is_not_sent_with_others() {
    let server = Script::start(|_, request, stream| {
        let drafts = request.body.windows(6).filter(|part| part == b"\"type\"").count();
        write(stream, page("201 Created", "", &vec!["{}".to_owned(); drafts]));
    });
    for (count, is_sent) in [(0, false), (1, true), (1000, true), (1001, false)] {
        let outcome = client(&server.url).append(vec![draft(); count]).await;
        assert_eq!(outcome.is_ok(), is_sent, "{count}");
        if let Err(error) = outcome {
            assert!(matches!(error, Error::Drafts { .. }) && !error.is_retryable(), "{error}");
        }
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_ids() {
    let server = Script::start(|number, _, stream| match number % 3 {
        0 => {}
        1 => write(stream, answer("503 Service Unavailable", "retry-after: 0\r\n", "")),
        _ => write(stream, page("201 Created", "", &["{}".into()])),
    });
    let client = client(&server.url);
    let mut batch = Batch::new();
    batch.push(1, b"{}");
    client.append_lines(batch.body()).await.unwrap();
    let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(bodies[0].starts_with(b"{\"notificationId\":\""));

    client.append([draft()]).await.unwrap();
    let bodies: Vec<_> = server.requests().into_iter().skip(3).map(|it| it.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn an_answer_that_does_not_say_what_became_of_each_draft_is_no_success() {
    for answers in [0, 1, 3] {
        let server = Script::start(move |_, _, stream| {
            write(stream, page("201 Created", "", &vec!["{}".to_owned(); answers]));
        });
        let client = client(&server.url);
        for outcome in [
            client.append([draft(), draft()]).await,
            client.append_lines("{}\n\n \r\n{}".into()).await,
        ] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Stored { .. }) && !error.is_retryable(), "{error}");
            assert!(error.to_string().contains("201"), "{error}");
        }
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_refused_append_is_not_tried_again() {
    for status in ["200 OK", "400 Bad Request", "409 Conflict", "413 Payload Too Large"] {
        let server = Script::start(move |_, _, stream| write(stream, answer(status, "", "{}")));
        let error = client(&server.url).append([draft()]).await.unwrap_err();
        assert!(error.to_string().contains(status), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}
