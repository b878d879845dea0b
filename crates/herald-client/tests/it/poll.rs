//! Pages: what is asked, what is kept, what is tried again.

use herald_client::{BODY_BYTES_MAX, Error, types::PageLimit};

use crate::{
    client, cursor, her_ids, offset,
    script::{Script, answer, object, page, write},
};

const HISTORY: &str = "herald-history: 6f9619ff-8b86-d011-b42d-00cf4fc964ff\r\n";

#[tokio::test]
async fn a_poll_says_who_is_asking_and_what_for() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[object(8)])));
    let limit = PageLimit::new(10).unwrap();
    let page = client(&server.url).poll(&her_ids(7..=8), offset(5), limit).await.unwrap();
    assert_eq!(page.notifications[0].raw(), object(8));
    assert_eq!((page.until, page.position.tail, page.position.history), (None, None, None));

    let request = &server.requests()[0];
    assert_eq!(request.target(), "GET /notifications");
    assert_eq!(request.query("HerIds"), ["7", "8"]);
    assert_eq!((request.after(), request.query("NotificationsToFetch")), (5, vec!["10"]));
    assert_eq!(request.header("api-version"), Some("3"));
    assert_eq!(request.header("nhn-source-system"), Some("Journal, v2.4"));
    assert_eq!(request.header("accept"), Some("application/json"));
}

#[tokio::test]
async fn a_page_of_1500_receivers_is_one_request() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[])));
    let receivers = her_ids(2_147_482_148..=2_147_483_647);
    client(&server.url).poll(&receivers, offset(5), PageLimit::MAX).await.unwrap();
    assert_eq!(server.requests()[0].query("HerIds").len(), 1500);
}

#[tokio::test]
async fn the_headers_of_herald_are_read_and_an_object_over_several_lines_becomes_one() {
    let headers = format!("herald-until: 20\r\nherald-tail: 30\r\nherald-trim: 3\r\n{HISTORY}");
    let pretty = object(8).replace(',', ",\n  ");
    let server = Script::start(move |_, _, stream| {
        write(stream, page("200 OK", &headers, std::slice::from_ref(&pretty)));
    });
    let page = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await.unwrap();
    assert_eq!(page.notifications[0].raw(), object(8));
    assert_eq!(page.until, Some(offset(20)));
    assert_eq!((page.position.tail, page.position.trim), (Some(offset(30)), Some(offset(3))));
    assert!(page.position.history.is_some());
}

#[tokio::test]
async fn only_an_empty_page_is_the_last_and_until_moves_the_next_request() {
    let server = Script::start(|number, _, stream| {
        let (headers, objects) = match number {
            0 => ("", vec![object(6), object(7)]),
            1 => ("herald-until: 20\r\n", vec![object(8)]),
            2 => ("", vec![object(20), object(21)]),
            _ => ("", vec![]),
        };
        write(stream, page("200 OK", headers, &objects));
    });
    let mut pages = client(&server.url).pages(cursor(7..=7, 5), PageLimit::MAX);
    let mut offsets = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        offsets.extend(page.notifications.iter().map(|notification| notification.offset().get()));
    }
    assert_eq!(offsets, [6, 7, 8, 21], "20 was said to be looked at already");
    let asked: Vec<_> = server.requests().iter().map(|request| request.after()).collect();
    assert_eq!(asked, [5, 7, 20, 21]);
}

#[tokio::test]
async fn the_cursor_of_pages_moves_only_by_acknowledging_and_then_to_where_the_server_has_looked() {
    let server = Script::start(|number, _, stream| {
        let (headers, objects) = match number {
            0 => ("herald-until: 8\r\n", vec![object(6), object(7)]),
            1 => ("herald-until: 20\r\n", vec![object(9)]),
            _ => ("herald-until: 30\r\n", vec![]),
        };
        write(stream, page("200 OK", headers, &objects));
    });
    let mut pages = client(&server.url).pages(cursor(7..=7, 5), PageLimit::MAX);
    let first = pages.next().await.unwrap().unwrap();
    let second = pages.next().await.unwrap().unwrap();
    assert_eq!(pages.cursor().offsets(), [offset(5)]);
    pages.ack(&first);
    assert_eq!(pages.cursor().offsets(), [offset(7)]);
    assert!(pages.next().await.unwrap().is_none());
    assert_eq!(pages.cursor().offsets(), [offset(7)], "the second page is not handled");
    pages.ack(&second);
    assert_eq!(pages.cursor().offsets(), [offset(30)]);
}

#[tokio::test]
async fn pages_of_more_than_1500_receivers_come_run_after_run_with_an_offset_each() {
    let server = Script::start(|_, request, stream| {
        let first = if request.query("HerIds").len() == 1500 { 10 } else { 20 };
        let objects: Vec<_> =
            (first..first + 3).filter(|it| *it > request.after()).map(object).take(2).collect();
        write(stream, page("200 OK", "", &objects));
    });
    let mut pages = client(&server.url).pages(cursor(1..=1501, 5), PageLimit::MAX);
    let mut offsets = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        offsets.extend(page.notifications.iter().map(|notification| notification.offset().get()));
        pages.ack(&page);
    }
    assert_eq!(offsets, [10, 11, 12, 20, 21, 22]);
    assert_eq!(pages.cursor().offsets(), [offset(12), offset(22)]);
}

#[tokio::test]
async fn a_call_takes_1_to_1500_receivers_and_is_not_sent_with_others() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[])));
    for count in [0, 1501] {
        let poll = client(&server.url);
        let error = poll.poll(&her_ids(1..=count), offset(5), PageLimit::MAX).await.unwrap_err();
        assert!(matches!(error, Error::Receivers { .. }) && !error.is_retryable(), "{error}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_server_that_repeats_itself_does_not_keep_a_client_for_ever() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[object(6)])));
    let mut pages = client(&server.url).pages(cursor(7..=7, 5), PageLimit::MAX);
    assert!(pages.next().await.unwrap().is_some());
    assert!(pages.next().await.unwrap().is_none());
}

#[tokio::test]
async fn pages_of_two_logs_are_not_mixed() {
    let server = Script::start(|number, _, stream| {
        let headers = if number == 0 { HISTORY } else { "" };
        write(stream, page("200 OK", headers, &[object(6 + number as u64)]));
    });
    let mut pages = client(&server.url).pages(cursor(7..=7, 5), PageLimit::MAX);
    assert!(pages.next().await.unwrap().is_some());
    assert!(matches!(pages.next().await, Err(Error::OtherHistory { .. })));
}

#[tokio::test]
async fn a_transient_failure_is_tried_again_three_times_and_no_more() {
    let server = Script::start(|number, _, stream| match number {
        0 => write(stream, answer("502 Bad Gateway", "", "<html>")),
        1 => write(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        2 => {}
        _ => write(stream, page("200 OK", "", &[object(8)])),
    });
    let poll = client(&server.url);
    assert!(poll.poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await.is_ok());
    assert_eq!(server.requests().len(), 4);

    let server = Script::start(|_, _, stream| write(stream, answer("503 No", "", "")));
    let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
    assert!(poll.unwrap_err().is_retryable());
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn what_does_not_pass_by_itself_is_not_tried_again() {
    let problem = r#"{"detail":"no","errorCode":1202,"validationErrors":null}"#;
    for (answer, text) in [
        (answer("403 Forbidden", "", problem), "403 Forbidden: no"),
        (answer("204 No Content", "", ""), "204"),
        (answer("307 Temporary Redirect", "location: /\r\n", ""), "307"),
        (answer("200 OK", "", "<html>"), "cannot be read"),
        (answer("200 OK", "", "[]"), "cannot be read"),
        (answer("200 OK", "", "{}"), "cannot be read"),
        (page("200 OK", "", &["{}".into()]), "cannot be read"),
    ] {
        let server = Script::start(move |_, _, stream| write(stream, &answer));
        let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
        let error = poll.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_401_says_why_and_whether_the_clocks_differ() {
    for (description, told) in [("", ""), ("Not accepted.", ""), ("too old", ": too old")] {
        let headers = format!(
            "www-authenticate: DPoP error=\"invalid_dpop_proof\", algs=\"ES256\", \
             error_description=\"{description}\"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        );
        let problem = r#"{"detail":"Not accepted.","requestId":"r1"}"#;
        let server = Script::start(move |_, _, stream| {
            write(stream, answer("401 Unauthorized", &headers, problem));
        });
        let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
        let error = poll.unwrap_err().to_string();
        let (why, clock) = error.split_once("; ").unwrap();
        let told =
            format!("401 Unauthorized: invalid_dpop_proof{told}: Not accepted. [request r1]");
        assert_eq!(why, format!("the server answered {told}"));
        assert!(
            clock.starts_with("the clock here is ") && clock.ends_with(" s ahead of the one there")
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_64_mib_and_no_further() {
    for (bytes, text) in [(BODY_BYTES_MAX, "EOF"), (BODY_BYTES_MAX + 1, "more than 67108864")] {
        let server = Script::start(move |_, _, stream| {
            write(stream, answer("200 OK", "", vec![b' '; bytes]));
        });
        let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
        let error = poll.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(text), "{source}");
    }
}

#[tokio::test]
async fn a_problem_is_read_up_to_256_kib_and_its_status_counts_beyond() {
    const PROBLEM_BYTES_MAX: usize = 256 * 1024;
    for (bytes, read) in [(PROBLEM_BYTES_MAX, true), (PROBLEM_BYTES_MAX + 1, false)] {
        let detail = "x".repeat(bytes - r#"{"detail":""}"#.len());
        let problem = format!(r#"{{"detail":"{detail}"}}"#);
        let server = Script::start(move |_, _, stream| {
            write(stream, answer("404 Not Found", "", &problem));
        });
        let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
        let error = poll.unwrap_err().to_string();
        assert!(error.starts_with("the server answered 404 Not Found"));
        assert_eq!(error.contains("xxx"), read);
    }
}

#[cfg(feature = "compression")]
mod compression {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        answer("200 OK", "content-encoding: gzip\r\n", encoder.finish().unwrap())
    }

    #[tokio::test]
    async fn a_page_is_asked_for_as_gzip_and_read() {
        let server = Script::start(|_, _, stream| {
            let body = format!("{{\"notifications\":[{},{}]}}", object(8), object(9));
            write(stream, gzip(body.as_bytes()));
        });
        let page = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
        let raw = page.unwrap().notifications;
        assert_eq!(raw.iter().map(|n| n.raw()).collect::<Vec<_>>(), [object(8), object(9)]);
        assert_eq!(server.requests()[0].header("accept-encoding"), Some("gzip"));
    }

    #[tokio::test]
    async fn the_bound_on_a_body_is_for_what_it_becomes() {
        for (bytes, text) in [(BODY_BYTES_MAX, "EOF"), (BODY_BYTES_MAX + 1, "more than 67108864")] {
            let body = gzip(&vec![b' '; bytes]);
            assert!(body.len() < BODY_BYTES_MAX / 100, "what comes is small");
            let server = Script::start(move |_, _, stream| write(stream, &body));
            let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
            let error = poll.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(text), "{source}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_or_no_gzip_is_an_error_that_may_pass() {
        let whole = gzip(b"{\"notifications\":[]}");
        let cut = whole[..whole.len() - 9].to_vec();
        let other = answer("200 OK", "content-encoding: gzip\r\n", "{\"notifications\":[]}");
        for broken in [cut, other] {
            let whole = whole.clone();
            let server = Script::start(move |number, _, stream| {
                write(stream, if number == 0 { &broken } else { &whole });
            });
            let poll = client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await;
            assert!(poll.unwrap().notifications.is_empty());
            assert_eq!(server.requests().len(), 2);
        }
    }
}

#[cfg(not(feature = "compression"))]
#[tokio::test]
async fn without_the_feature_no_compression_is_asked_for() {
    let server = Script::start(|_, _, stream| write(stream, page("200 OK", "", &[object(8)])));
    client(&server.url).poll(&her_ids(7..=7), offset(5), PageLimit::MAX).await.unwrap();
    assert_eq!(server.requests()[0].header("accept-encoding"), None);
}
