//! Streams over sockets that are cut, reset, throttled and answered for by gateways.

use std::{sync::mpsc, thread, time::Duration};

use futures_util::future::join_all;
use herald_client::{Cursor, Event, Notification, Notifications};

use crate::{
    client, her_ids, offset,
    script::{Script, answer, connected, event, object, wait_for_close, write},
};

fn follow(server: &Script) -> Notifications {
    client(&server.url).notifications(Cursor::new(her_ids(7..=7), offset(5)).unwrap())
}

async fn take(notifications: &mut Notifications, count: usize) -> Vec<Notification> {
    let mut taken = Vec::new();
    while taken.len() < count {
        if let Event::Notification(notification) = notifications.next().await.unwrap() {
            notifications.ack(&notification);
            taken.push(notification);
        }
    }
    taken
}

fn offsets(taken: &[Notification]) -> Vec<u64> {
    taken.iter().map(|notification| notification.offset().get()).collect()
}

/// What a server of notifications 6 to 9 writes to one who asks for what is after `after`.
fn transcript(after: u64) -> String {
    let events: String = (after + 1..=9).map(event).collect();
    connected("") + ": a comment\n\n" + &events
}

#[tokio::test]
async fn a_stream_says_who_is_asking_and_hands_out_the_server_s_objects() {
    let server = Script::start(|_, request, stream| {
        write(stream, transcript(request.after()));
        wait_for_close(stream);
    });
    let taken = take(&mut follow(&server), 4).await;
    assert_eq!(taken[0].raw(), object(6));
    let request = &server.requests()[0];
    assert_eq!(request.target(), "GET /notifications/stream");
    assert_eq!((request.query("HerIds"), request.after()), (vec!["7"], 5));
    assert_eq!(request.header("accept"), Some("text/event-stream"));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("cache-control"), Some("no-cache"));
    assert_eq!(request.header("api-version"), Some("3"));
    assert_eq!(request.header("nhn-source-system"), Some("Journal, v2.4"));
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_is_resumed_without_gap_or_repeat() {
    let length = transcript(5).len();
    let all = (0..=length).map(|cut| async move {
        let server = Script::start(move |number, request, stream| {
            let transcript = transcript(request.after());
            let cut = if number == 0 { cut } else { transcript.len() };
            write(stream, &transcript[..cut]);
            if number > 0 {
                wait_for_close(stream);
            }
        });
        let mut notifications = follow(&server);
        assert_eq!(offsets(&take(&mut notifications, 4).await), [6, 7, 8, 9], "cut at {cut}");
        assert_eq!(notifications.cursor().offsets(), [offset(9)]);
    });
    join_all(all).await;
}

#[tokio::test]
async fn a_chunked_body_cut_short_and_a_reset_are_resumed() {
    let server = Script::start(|number, request, stream| match number {
        0 => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        transfer-encoding: chunked\r\n\r\n";
            let body = "event: connected\ndata:\n\n".to_owned() + &event(6) + &event(7)[..20];
            write(stream, format!("{head}{:x}\r\n{body}", body.len() + 500));
        }
        1 => {
            write(stream, connected("") + &event(7));
            // Closing with unread bytes in the socket resets the connection.
        }
        _ => {
            write(stream, transcript(request.after()));
            wait_for_close(stream);
        }
    });
    assert_eq!(offsets(&take(&mut follow(&server), 4).await), [6, 7, 8, 9]);
}

#[tokio::test]
async fn gateways_that_answer_for_the_server_are_waited_out() {
    let server = Script::start(|number, request, stream| match number {
        0 => write(stream, answer("502 Bad Gateway", "content-type: text/html\r\n", "<html>")),
        1 => write(stream, answer("429 Too Many Requests", "retry-after: 0\r\n", "")),
        2 => write(stream, answer("503 Service Unavailable", "", "{\"detail\":5}")),
        _ => {
            write(stream, transcript(request.after()));
            wait_for_close(stream);
        }
    });
    assert_eq!(offsets(&take(&mut follow(&server), 4).await), [6, 7, 8, 9]);
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_stream_that_comes_byte_by_byte_is_read_all_the_same() {
    let server = Script::start(|_, request, stream| {
        stream.set_nodelay(true).unwrap();
        for byte in transcript(request.after()).as_bytes() {
            write(stream, [*byte]);
            thread::sleep(Duration::from_micros(50));
        }
        wait_for_close(stream);
    });
    assert_eq!(offsets(&take(&mut follow(&server), 4).await), [6, 7, 8, 9]);
}

#[tokio::test]
async fn parameters_and_case_of_the_content_type_do_not_matter_and_another_type_does() {
    for (content_type, is_stream) in [
        ("text/event-stream; charset=utf-8", true),
        ("Text/Event-Stream ;x bogus", true),
        ("text/event-stream;", true),
        ("text/event-stream-bogus", false),
        ("text/x-event-stream", false),
        ("text/event-stream, text/html", false),
    ] {
        let server = Script::start(move |_, request, stream| {
            let text = transcript(request.after());
            write(stream, text.replace("text/event-stream", content_type));
            wait_for_close(stream);
        });
        let mut notifications = follow(&server);
        if is_stream {
            assert_eq!(offsets(&take(&mut notifications, 1).await), [6], "{content_type}");
        } else {
            let error = notifications.next().await.unwrap_err();
            assert!(error.to_string().contains(content_type), "{error}");
        }
    }
}

#[tokio::test]
async fn a_wrong_content_type_and_204_end_it_for_good() {
    for (wrong, text) in [
        (answer("200 OK", "content-type: application/json\r\n", "{}"), "application/json"),
        (answer("200 OK", "", ""), "content type"),
        (answer("204 No Content", "", ""), "204"),
        (answer("403 Forbidden", "", "{\"detail\":\"not yours\"}"), "not yours"),
    ] {
        let server = Script::start(move |_, _, stream| write(stream, &wrong));
        let error = follow(&server).next().await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn dropping_the_handle_closes_the_connection() {
    let (closed, told) = mpsc::channel();
    let server = Script::start(move |_, request, stream| {
        write(stream, transcript(request.after()));
        wait_for_close(stream);
        closed.send(()).unwrap();
    });
    let mut notifications = follow(&server);
    take(&mut notifications, 1).await;
    drop(notifications);
    let closed = tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(30)));
    assert_eq!(closed.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn more_than_1500_receivers_are_followed_over_several_connections_with_a_cursor_each() {
    let server = Script::start(|_, request, stream| {
        let first = if request.query("HerIds").len() == 1500 { 10 } else { 20 };
        let events: String =
            (first..first + 3).filter(|offset| *offset > request.after()).map(event).collect();
        write(stream, connected("") + &events);
        if request.after() > 5 {
            wait_for_close(stream);
        }
    });
    let cursor = Cursor::new(her_ids(1..=1501), offset(5)).unwrap();
    let mut notifications = client(&server.url).notifications(cursor);
    let mut taken = offsets(&take(&mut notifications, 6).await);
    let runs: (Vec<_>, Vec<_>) = taken.iter().partition(|offset| **offset < 20);
    assert_eq!(runs, (vec![10, 11, 12], vec![20, 21, 22]), "in order within a run");
    assert_eq!(notifications.cursor().offsets(), [offset(12), offset(22)]);

    taken.clear();
    let mut counts: Vec<_> =
        server.requests().iter().map(|request| request.query("HerIds").len()).collect();
    counts.sort_unstable();
    counts.dedup();
    assert_eq!(counts, [1, 1500]);
}

#[tokio::test]
async fn until_moves_the_cursor_of_quiet_receivers() {
    let server = Script::start(|_, _, stream| {
        write(stream, connected("") + &event(6) + ": until 45\n\n");
        wait_for_close(stream);
    });
    let mut notifications = follow(&server);
    let six = loop {
        if let Event::Notification(six) = notifications.next().await.unwrap() {
            break six;
        }
    };
    // The comment may be read now, or together with whatever is asked next.
    let looked = tokio::time::timeout(Duration::from_millis(200), notifications.next()).await;
    assert!(looked.is_err(), "nothing is to be told while 6 is not handled");
    assert_eq!(notifications.cursor().offsets(), [offset(5)]);
    notifications.ack(&six);
    assert_eq!(notifications.cursor().offsets(), [offset(45)]);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let (sender, receiver) = mpsc::channel();
    let begun = thread::spawn(move || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        sender.send(listener.local_addr().unwrap()).unwrap();
        // Nobody listens here any more.
    });
    let address = receiver.recv().unwrap();
    begun.join().unwrap();
    let cursor = Cursor::new(her_ids(7..=7), offset(5)).unwrap();
    let mut notifications = client(&format!("http://{address}")).notifications(cursor);
    let Event::Status(status) = notifications.next().await.unwrap() else { panic!("a status") };
    assert!(status.to_string().contains("trying again in"), "{status}");
}
