//! Where "now" is, on Herald and on servers that do not say.

use herald_client::{Error, Start};

use crate::{
    client, cursor, her_ids, offset,
    script::{Script, answer, object, page, write},
};

const HISTORY: &str = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";

#[tokio::test]
async fn the_beginning_and_an_offset_ask_no_server() {
    let client = client("http://127.0.0.1:9");
    for (start, after) in [(Start::Beginning, 0), (Start::After(offset(7)), 7)] {
        assert_eq!(client.begin(her_ids(1..=1501), start).await.unwrap(), cursor(1..=1501, after));
    }
    let nobody = client.begin([], Start::Beginning).await.unwrap_err();
    assert!(matches!(nobody, Error::Cursor(_)) && !nobody.is_retryable());
}

#[tokio::test]
async fn now_is_where_herald_says_its_log_ends() {
    let server = Script::start(|_, _, stream| {
        let headers = format!("herald-tail: 90\r\nherald-history: {HISTORY}\r\n");
        write(stream, page("200 OK", &headers, &[object(6)]));
    });
    let now = client(&server.url).begin(her_ids(1..=1501), Start::Now).await.unwrap();
    assert_eq!(now.offsets(), [offset(90); 2]);
    assert_eq!(now.history(), HISTORY.parse().ok());
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "one of each run");
    assert_eq!(requests[0].query("NotificationsToFetch"), ["1"]);
}

#[tokio::test]
async fn now_is_behind_the_last_page_of_a_server_that_does_not_say() {
    let server = Script::start(|_, request, stream| {
        let rest = (request.after() + 1..=2500).map(object);
        let objects: Vec<_> =
            rest.take(request.query("NotificationsToFetch")[0].parse().unwrap()).collect();
        write(stream, page("200 OK", "", &objects));
    });
    let now = client(&server.url).begin(her_ids(7..=7), Start::Now).await.unwrap();
    assert_eq!((now.offsets(), now.history()), (&[offset(2500)][..], None));
    assert_eq!(server.requests().len(), 5, "1, 1000, 1000, 499, 0");
}

#[tokio::test]
async fn now_is_nowhere_while_the_server_refuses() {
    let server = Script::start(|_, _, stream| write(stream, answer("403 Forbidden", "", "")));
    let refused = client(&server.url).begin(her_ids(7..=7), Start::Now).await.unwrap_err();
    assert!(refused.to_string().contains("403"));
}
