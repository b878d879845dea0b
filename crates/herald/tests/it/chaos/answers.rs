//! Gateways that answer for the server, and answers that never arrive.

use futures_util::{StreamExt as _, stream};
use herald_client::{
    Cursor,
    types::{Offset, PageLimit},
};
use tokio::{join, sync::watch};

use super::{Log, append, client, drafts, everything, follow};
use crate::{
    script::answer,
    support::{
        http,
        proxy::{End, Fault, Proxy},
        server::Server,
    },
};

const HER_IDS: [u32; 3] = [7, 4711, 8_139_764];

/// What a gateway says, in HTML as they do.
pub(super) fn gateway(status: &str, headers: &str) -> Fault {
    let body = format!("<html><body><h1>{status}</h1></body></html>");
    Fault::Answer(answer(status, &format!("content-type: text/html\r\n{headers}"), body))
}

/// An answer of a gateway that breaks off, by the byte at which it does.
fn broken_gateway(at: usize) -> Fault {
    let Fault::Answer(mut answer) = gateway("502 Bad Gateway", "") else { unreachable!() };
    answer.truncate(at);
    Fault::Answer(answer)
}

/// What happens to the requests of each client, one after the other; after that, nothing.
fn sequences() -> Vec<Vec<Fault>> {
    let too_many = || gateway("429 Too Many Requests", "retry-after: 1\r\n");
    let away = || gateway("503 Service Unavailable", "");
    let bad = || gateway("502 Bad Gateway", "");
    let timeout =
        || gateway("504 Gateway Timeout", "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    let cut = |at| Fault::Cut { at, end: End::Close };
    vec![
        vec![too_many(), away(), bad()],
        vec![cut(2000), too_many(), cut(3000), bad()],
        vec![away(), cut(5000), away(), cut(700)],
        vec![timeout(), gateway("408 Request Timeout", ""), cut(4000), too_many()],
        vec![broken_gateway(12), broken_gateway(40), broken_gateway(90), cut(900)],
        vec![cut(0), bad(), cut(1), away()],
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_answer_between_good_connections_cost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--heartbeat", "1s"]).await;
    let producer = client(&server.url(), "producer");
    append(&producer, &drafts(1, 60, &HER_IDS)).await;
    let proxy = Proxy::start(server.api, |request, number| {
        let which: usize = request.header("nhn-source-system").unwrap().parse().unwrap();
        sequences()[which].get(number).cloned().unwrap_or(Fault::Pass)
    });
    let (end, end_known) = watch::channel(None);
    let count = sequences().len();
    let followers = (0..count).map(|which| {
        let client = client(&proxy.url, &which.to_string());
        let end = end_known.clone();
        async move { follow(&mut everything(&client, &HER_IDS), end).await }
    });
    let tell_end = async {
        for (which, sequence) in sequences().iter().enumerate() {
            proxy.streams_asked(&which.to_string(), sequence.len() + 1).await;
        }
        end.send_replace(Some(append(&producer, &drafts(2, 60, &HER_IDS)).await));
    };
    let (handed, ()) = join!(futures_util::future::join_all(followers), tell_end);
    let log = Log::of(&server, &HER_IDS).await;
    for (which, handed) in handed.iter().enumerate() {
        log.judge(&format!("the client of sequence {which}"), handed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_appends_arrive_whole_with_three_failures_before_each() {
    const PAGE: u16 = 20;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let proxy = Proxy::start(server.api, |_, number| match number % 4 {
        0 => gateway("429 Too Many Requests", "retry-after: 1\r\n"),
        1 => Fault::Cut { at: 1000, end: End::Reset },
        2 => gateway("503 Service Unavailable", ""),
        _ => Fault::Pass,
    });
    let client = client(&proxy.url, "three failures");
    // More than one try of each is answered by the server, and the last one tells.
    append(&client, &drafts(1, 50, &HER_IDS)).await;
    let log = Log::of(&server, &HER_IDS).await;
    assert_eq!(log.len(), 50, "each draft is stored once");

    let receivers = HER_IDS.map(|her_id| her_id.to_string().parse().unwrap());
    let cursor = Cursor::new(receivers, Offset::ZERO).unwrap();
    let mut pages = client.pages(cursor, PageLimit::new(PAGE).unwrap());
    let mut handed = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        handed.extend(page.notifications);
    }
    log.judge("pages", &handed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_at_any_byte_is_stored_once() {
    /// Longer than the answer to one draft.
    const ANSWER: usize = 500;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]).await;
    let proxy = Proxy::start(server.api, |request, number| {
        let at = request.header("nhn-source-system").unwrap().parse().unwrap();
        if number == 0 { Fault::Cut { at, end: End::Close } } else { Fault::Pass }
    });
    let appends = (0..ANSWER).map(|at| {
        let client = client(&proxy.url, &at.to_string());
        async move { (at, append(&client, &drafts(at as u64, 1, &HER_IDS)).await) }
    });
    let appended: Vec<_> = stream::iter(appends).buffer_unordered(100).collect().await;
    let log = Log::of(&server, &HER_IDS).await;
    let stored = &log.runs[0].objects;
    assert_eq!(stored.len(), ANSWER, "each draft is stored once");
    for (at, offset) in appended {
        let place = stored.binary_search_by_key(&offset, |(offset, _)| *offset).unwrap();
        let id = drafts(at as u64, 1, &HER_IDS)[0].notification_id;
        assert!(stored[place].1.contains(&id.to_string()), "cut at {at}: {}", stored[place].1);
    }
    assert_eq!(http::offset_of(&stored[0].1), stored[0].0);
}
