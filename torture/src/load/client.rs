//! The project's own client, which resumes by itself: whatever it goes through, what it hands out is one stream.

use herald_client::{
    Client, Cursor, Event, Notifications, Status,
    types::{HerId, Offset},
};

use super::{Phase, RECEIVERS, World};
use crate::history::{Answered, Call, Head, Item, Seen, Stream};

pub(super) async fn run(world: World, replica: usize) {
    let (name, began) = (format!("client-{replica}"), world.recorder.now());
    world.has_come_to(&name, 0);
    let mut told = Told { answer: None, seen: Vec::new() };
    let ended = match notifications(&world.urls[replica]) {
        Ok(mut notifications) => tokio::select! {
            ended = told.listen(&world, &name, &mut notifications) => Some(ended),
            () = world.until(Phase::Over) => None,
        },
        Err(error) => Some(error),
    };
    let is_last = ended.is_none();
    let answer = match ended {
        // It goes on for ever, unless the server says what no server of this contract says.
        Some(error) => Answered::Unexpected(error),
        None => told.answer.map_or(Answered::Nothing("never".to_owned()), Answered::Told),
    };
    let stream =
        Stream { receivers: RECEIVERS.collect(), after: 0, answer, seen: told.seen, is_last };
    world.recorder.record(&name, replica, began, Call::Stream(stream));
}

fn notifications(url: &str) -> Result<Notifications, String> {
    let client = Client::new(url, "torture/1").map_err(|error| error.to_string())?;
    let receivers = RECEIVERS.map(u64::from).map(HerId::try_from).collect::<Result<Vec<_>, _>>();
    let receivers = receivers.map_err(|error| error.to_string())?;
    let cursor = Cursor::new(receivers, Offset::ZERO).map_err(|error| error.to_string())?;
    Ok(client.notifications(cursor))
}

struct Told {
    answer: Option<Head>,
    seen: Vec<Seen>,
}

impl Told {
    /// Listens until the client gives up; why it did.
    async fn listen(&mut self, world: &World, name: &str, from: &mut Notifications) -> String {
        loop {
            match from.next().await {
                Ok(Event::Notification(notification)) => {
                    let offset = notification.offset().get();
                    self.seen.push(Seen::Item(Item { offset, body: notification.raw().into() }));
                    from.ack(&notification);
                }
                Ok(Event::Moved) => {
                    let until = from.cursor().offsets().iter().copied().min();
                    self.seen.extend(until.map(|until| Seen::Until(until.get())));
                }
                Ok(Event::Status(Status::Connected { position, .. })) => {
                    let number = |offset: Option<Offset>| offset.map(Offset::get);
                    let (tail, trim) = (number(position.tail), number(position.trim));
                    if let (Some(tail), Some(trim), Some(history), None) =
                        (tail, trim, position.history, &self.answer)
                    {
                        self.answer = Some(Head { tail, trim, history: history.to_string() });
                    }
                }
                Ok(Event::Status(Status::NotAscending { offset, after })) => {
                    return format!("the client was shown {offset} after {after}");
                }
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
            let until = from.cursor().offsets().iter().copied().min();
            world.has_come_to(name, until.map_or(0, Offset::get));
        }
    }
}
