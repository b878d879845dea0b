//! Appends: what is sent, and that sending it again is the same.

use herald_client::drafts::Batch;

use crate::{
    client,
    script::{Script, answer, page, write},
};

#[tokio::test]
async fn drafts_are_sent_as_json_and_lines_as_ndjson() {
    let answers = ["{\"offset\":1}".to_owned(), "{\n\"offset\": 2}".to_owned()];
    let server = Script::start(move |_, _, stream| {
        write(stream, page("201 Created", "", &answers));
    });
    let client = client(&server.url);
    let appended = client.append(&[r#"{"a":1}"#, r#"{"b":2}"#]).await.unwrap();
    assert_eq!(appended.answers, [r#"{"offset":1}"#, r#"{"offset":2}"#]);
    client.append_lines("{}\n{}\n".into()).await.unwrap();

    let [json, lines] = &server.requests()[..] else { panic!("two requests") };
    assert_eq!(json.target(), "POST /notifications");
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.body, br#"{"notifications":[{"a":1},{"b":2}]}"#);
    assert_eq!(json.header("api-version"), Some("3"));
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.body, b"{}\n{}\n");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_ids() {
    let server = Script::start(|number, _, stream| match number {
        0 => {}
        1 => write(stream, answer("503 Service Unavailable", "retry-after: 0\r\n", "")),
        _ => write(stream, page("201 Created", "", &["{}".into()])),
    });
    let mut batch = Batch::new();
    batch.push(1, b"{}");
    client(&server.url).append_lines(batch.body()).await.unwrap();
    let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 3);
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(bodies[0].starts_with(b"{\"notificationId\":\""));
}

#[tokio::test]
async fn a_refused_append_is_not_tried_again() {
    for status in ["200 OK", "400 Bad Request", "409 Conflict", "413 Payload Too Large"] {
        let server = Script::start(move |_, _, stream| write(stream, answer(status, "", "{}")));
        let error = client(&server.url).append(&["{}"]).await.unwrap_err();
        assert!(error.to_string().contains(status), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}
