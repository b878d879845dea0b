//! Servers that come, go and are behind, at an address that stays.

use std::{fs, path::Path, sync::Arc};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Log, append, client, drafts, everything, follow};
use crate::support::{
    proxy::{End, Fault, Proxy, STREAM},
    server::Server,
};

/// Receivers with notifications; the last two are of a second run for a client that follows all of [`Wide`].
pub(super) const HER_IDS: [u32; 6] = [1, 700, 1500, 1501, 1502, 1600];
/// More than one connection takes.
pub(super) const WIDE: std::ops::RangeInclusive<u32> = 1..=1600;
/// The flags of each server here.
pub(super) const FLAGS: [&str; 4] = ["--drain", "1s", "--heartbeat", "1s"];

/// Copies a data directory whose server has stopped.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Whose notifications a client follows: some follow few, some more than one connection takes.
pub(super) fn receivers_of(which: usize) -> Vec<u32> {
    match which % 4 {
        0 => HER_IDS.to_vec(),
        1 => vec![HER_IDS[which % HER_IDS.len()]],
        2 => HER_IDS[..3].to_vec(),
        _ => WIDE.collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_stopped_and_killed_behind_one_address_loses_and_repeats_nothing() {
    const CLIENTS: usize = 8;
    const BATCHES: usize = 30;
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &FLAGS).await;
    let proxy = Arc::new(Proxy::to(server.api));

    // Appends as many batches as it is allowed, and says how many are acknowledged.
    let allowed = Arc::new(Semaphore::new(0));
    let (acknowledged, mut acknowledged_now) = watch::channel((0_usize, 0_u64));
    let producer = tokio::spawn({
        let (client, allowed) = (client(&proxy.url, "producer"), Arc::clone(&allowed));
        async move {
            while let Ok(permit) = allowed.acquire().await {
                permit.forget();
                let count = acknowledged.borrow().0;
                let newest = append(&client, &drafts(count as u64, 5, &HER_IDS)).await;
                acknowledged.send_replace((count + 1, newest));
            }
        }
    });
    let (end, end_known) = watch::channel(None);
    let mut followers = JoinSet::new();
    for which in 0..CLIENTS {
        let (client, end) = (client(&proxy.url, &which.to_string()), end_known.clone());
        followers.spawn(async move {
            (which, follow(&mut everything(&client, &receivers_of(which)), end).await)
        });
    }

    for (round, is_killed) in [false, true, false, true, true].into_iter().enumerate() {
        let asked: Vec<_> =
            (0..CLIENTS).map(|which| proxy.asked(&which.to_string(), STREAM)).collect();
        allowed.add_permits(BATCHES);
        acknowledged_now
            .wait_for(|(count, _)| *count >= BATCHES * round + BATCHES / 2)
            .await
            .unwrap();
        if is_killed {
            server.kill();
        } else {
            assert_eq!(server.stop().code(), Some(0));
        }
        server = Server::start(directory.path(), &FLAGS).await;
        proxy.switch(server.api);
        acknowledged_now.wait_for(|(count, _)| *count == BATCHES * (round + 1)).await.unwrap();
        for (which, asked) in asked.into_iter().enumerate() {
            proxy.streams_asked(&which.to_string(), asked + 1).await;
        }
    }
    allowed.close();
    producer.await.unwrap();
    end.send_replace(Some(acknowledged_now.borrow().1));
    let handed = followers.join_all().await;
    for (which, handed) in handed {
        let log = Log::of(&server, &receivers_of(which)).await;
        log.judge(&format!("client {which}"), &handed);
    }
    let stored = Log::of(&server, &HER_IDS).await.len();
    assert_eq!(stored, acknowledged_now.borrow().0 * 5, "each draft is stored once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sent_to_a_replica_that_is_behind_it_waits_there_and_goes_on_elsewhere() {
    const CLIENTS: usize = 4;
    let directory = tempfile::tempdir().unwrap();
    let (ahead, behind) = (directory.path().join("ahead"), directory.path().join("behind"));
    let server = Server::start(&ahead, &FLAGS).await;
    append(&client(&server.url(), "producer"), &drafts(1, 300, &HER_IDS)).await;
    assert!(server.stop().success());
    copy(&ahead, &behind);
    let server = Server::start(&ahead, &FLAGS).await;
    let replica = Server::start(&behind, &FLAGS).await;
    let producer = client(&server.url(), "producer");
    let middle = append(&producer, &drafts(2, 300, &HER_IDS)).await;

    // A stream of the replica that has nothing breaks off with its third heartbeat or so.
    let proxy = Proxy::start(server.api, |request, number| match number {
        1..=3 if request.target() == STREAM => Fault::Cut { at: 420, end: End::Close },
        _ => Fault::Pass,
    });
    let (end, end_known) = watch::channel(Some(middle));
    let mut followers = JoinSet::new();
    let mut old = JoinSet::new();
    for which in [0, 1, 2] {
        let client = client(&proxy.url, &which.to_string());
        let end = end_known.clone();
        old.spawn(async move {
            let mut notifications = everything(&client, &receivers_of(which));
            let handed = follow(&mut notifications, end).await;
            (which, notifications, handed)
        });
    }
    // They have all there is when the replica comes.
    let old = old.join_all().await;
    proxy.switch(replica.api);
    end.send_replace(None);
    for (which, mut notifications, mut handed) in old {
        let end = end_known.clone();
        followers.spawn(async move {
            handed.extend(follow(&mut notifications, end).await);
            (which, handed)
        });
    }
    // A newcomer begins at the replica.
    followers.spawn({
        let (client, end) = (client(&proxy.url, "3"), end_known.clone());
        async move { (3, follow(&mut everything(&client, &receivers_of(3)), end).await) }
    });
    for which in 0..CLIENTS {
        proxy.streams_asked(&which.to_string(), 4).await;
    }
    proxy.switch(server.api);
    append(&producer, &drafts(3, 300, &HER_IDS)).await;
    end.send_replace(Some(append(&producer, &drafts(4, 1, &HER_IDS)).await));
    for (which, handed) in followers.join_all().await {
        let log = Log::of(&server, &receivers_of(which)).await;
        log.judge(&format!("client {which}"), &handed);
    }
    assert_eq!(Log::of(&replica, &HER_IDS).await.len(), 300, "nobody wrote to the replica");
}
