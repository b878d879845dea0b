//! Our own client, many times in this process.

use std::sync::Arc;

use herald_client::{Client, Cursor, Error, Event, Status, types::Offset};
use tokio::{sync::watch, task::JoinSet};

use super::{
    End,
    presence::{Absence, Connected, Presence},
};

/// How many followers share one client, as the readers of one system do.
const BY_CLIENT: usize = 25;

/// All that one reader of a stream was given.
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) receivers: Vec<u32>,
    /// Offsets and objects, as they came.
    pub(crate) given: Vec<(u64, String)>,
    pub(crate) absences: Vec<Absence>,
}

/// Readers with our own client.
pub(crate) struct Followers {
    url: String,
    connected: Connected,
    end: watch::Receiver<Option<Arc<End>>>,
    tasks: JoinSet<Reader>,
}

impl Followers {
    /// None yet. Each goes on until the end that `end` will tell.
    pub(crate) fn new(
        url: &str,
        connected: &Connected,
        end: watch::Receiver<Option<Arc<End>>>,
    ) -> Self {
        Self { url: url.to_owned(), connected: connected.clone(), end, tasks: JoinSet::new() }
    }

    /// Starts one for each of these receivers, from the oldest on.
    pub(crate) fn start(&mut self, whose: impl IntoIterator<Item = Vec<u32>>) {
        let whose: Vec<Vec<u32>> = whose.into_iter().collect();
        for whose in whose.chunks(BY_CLIENT) {
            let client = Client::new(&self.url, "followers").expect("a client");
            for receivers in whose {
                let name = format!("follower {}", self.tasks.len());
                let (connected, end) = (self.connected.clone(), self.end.clone());
                let follow = follow(client.clone(), name, receivers.clone(), connected, end);
                self.tasks.spawn(follow);
            }
        }
    }

    /// Waits until all have come to the end; what they were given.
    pub(crate) async fn ended(self) -> Vec<Reader> {
        self.tasks.join_all().await
    }
}

async fn follow(
    client: Client,
    name: String,
    receivers: Vec<u32>,
    connected: Connected,
    mut end: watch::Receiver<Option<Arc<End>>>,
) -> Reader {
    let her_ids = receivers.iter().map(|her_id| her_id.to_string().parse().expect("a HER-id"));
    let cursor = Cursor::new(her_ids, Offset::ZERO).expect("receivers");
    let mut notifications = client.notifications(cursor);
    let mut presence = Presence::new(connected);
    let mut given: Vec<(u64, String)> = Vec::new();
    loop {
        let last = given.last().map_or(0, |(offset, _)| *offset);
        let newest = end.borrow().as_ref().map(|end| end.of(&receivers));
        if newest.is_some_and(|newest| last >= newest) {
            return Reader { name, receivers, given, absences: presence.absences };
        }
        let event = tokio::select! {
            event = notifications.next() => event.expect("nothing ends it for good"),
            Ok(()) = end.changed() => continue,
        };
        match event {
            Event::Notification(notification) => {
                notifications.ack(&notification);
                given.push((notification.offset().get(), notification.raw().to_owned()));
            }
            Event::Status(Status::Connected { .. }) => presence.connected(),
            Event::Status(Status::Waiting { error, wait }) => {
                assert!(!is_refused(&error), "{name}: another replica was to be asked: {error}");
                presence.waits(wait);
            }
            Event::Status(status) => panic!("{name}: {status}"),
            _ => {}
        }
    }
}

/// Answers are the balancer's to repeat; connections may break, as when it takes another file.
fn is_refused(error: &Error) -> bool {
    !matches!(error, Error::Ended | Error::Transport(_))
}
