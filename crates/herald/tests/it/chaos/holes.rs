//! Connections that fall silent without a word. The client's patience is real time here: 15 s until it polls, 45 s until
//! it takes a connection that was good for dead, 5 s between polls.

use futures_util::future::join_all;
use herald_client::POLL_INTERVAL;
use tokio::{join, sync::watch};

use super::{Log, append, client, drafts, everything, follow, follow_connected, stream_until};
use crate::support::{
    proxy::{End, Fault, POLL, Proxy},
    server::Server,
};

const HER_IDS: [u32; 2] = [7, 8_139_764];
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent_anywhere_are_replaced_and_polls_bridge_those_that_never_were()
{
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--heartbeat", "1s"]).await;
    let producer = client(&server.url(), "producer");
    append(&producer, &drafts(1, 40, &HER_IDS)).await;
    let head = stream_until(&server, HER_IDS[0], b"\r\n\r\n").await.len();
    // In the head, behind it, in `connected`; then in the midst of a notification, and behind some.
    let (before, behind) = ([0, head / 2, head, head + 10], [head + 1000, head + 6000]);
    let silent_at = [&before[..], &behind].concat();
    let proxy = Proxy::start(server.api, |request, number| {
        let at = request.header("nhn-source-system").unwrap().parse().unwrap();
        match (request.target(), number) {
            // A poll may meet a gateway, too.
            (POLL, 1) => Fault::Cut { at: 900, end: End::Reset },
            (POLL, _) => Fault::Pass,
            (_, 0) => Fault::Cut { at, end: End::Silence },
            // Late enough for a poll to bring first what this stream brings, too.
            (_, 1) => Fault::Late(POLL_INTERVAL + POLL_INTERVAL / 2),
            _ => Fault::Pass,
        }
    });
    let (end, end_known) = watch::channel(None);
    let followers = silent_at.iter().map(|at| {
        let client = client(&proxy.url, &at.to_string());
        let end = end_known.clone();
        let connections = if before.contains(at) { 1 } else { 2 };
        async move {
            let mut notifications = everything(&client, &HER_IDS);
            let handed = follow_connected(&mut notifications, end, connections).await;
            (notifications, handed)
        }
    });
    let live = async {
        // Some come while all streams are silent, some while they are polled for or streamed again, some at the end.
        for (number, at) in silent_at.iter().enumerate() {
            proxy.streams_asked(&at.to_string(), 1).await;
            append(&producer, &drafts(2 + number as u64, 10, &HER_IDS)).await;
        }
        for (number, at) in silent_at.iter().enumerate() {
            proxy.streams_asked(&at.to_string(), 2).await;
            append(&producer, &drafts(20 + number as u64, 10, &HER_IDS)).await;
        }
        end.send_replace(Some(append(&producer, &drafts(40, 10, &HER_IDS)).await));
    };
    let (followers, ()) = join!(join_all(followers), live);
    // All are streamed to now, and might be handed again what polls have brought before.
    end.send_replace(Some(append(&producer, &drafts(41, 10, &HER_IDS)).await));
    let log = Log::of(&server, &HER_IDS).await;
    for (at, (mut notifications, mut handed)) in silent_at.iter().zip(followers) {
        handed.extend(follow(&mut notifications, end_known.clone()).await);
        log.judge(&format!("the client of a stream silent at {at}"), &handed);
        let has_polled = proxy.asked(&at.to_string(), POLL) > 0;
        assert_eq!(has_polled, before.contains(at), "who has no `connected` polls: silent at {at}");
    }
}
