use herald_client::sse::{Item, Parser};
use herald_types::{
    Draft, HerId, NotificationType, Offset,
    wire::{self, Events},
};
use uuid::Uuid;

/// The first byte says how the stream is cut, the rest is a stream, and the descriptions of notifications, one a line.
///
/// Any bytes give the same items however they are cut; and what is written for notifications with any descriptions reads
/// back as exactly those events.
///
/// # Panics
/// If that does not hold.
pub fn framing(input: &[u8]) {
    let Some((&cut, rest)) = input.split_first() else { return };
    let cut = usize::from(cut).max(1);
    assert_eq!(items(rest, cut), items(rest, rest.len().max(1)), "cut after {cut} bytes");
    written_reads_back(rest, cut);
}

fn items(stream: &[u8], cut: usize) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for piece in stream.chunks(cut) {
        parser.push(piece);
        while let Some(item) = parser.item().expect("an input is shorter than an event may be") {
            items.push(item);
        }
    }
    items
}

fn written_reads_back(lines: &[u8], cut: usize) {
    let mut stream = Events::default();
    stream.connected();
    let mut bodies = Vec::new();
    for (line, number) in lines.split(|byte| *byte == b'\n').zip(1..) {
        let offset = Offset::new(number).expect("an input has few lines");
        let body = body(&String::from_utf8_lossy(line), offset);
        stream.push(offset, &body);
        stream.heartbeat(offset);
        bodies.push((offset, body));
    }
    stream.retry(500);

    let mut items = items(&stream.0, cut).into_iter();
    let connected = items.next();
    assert!(matches!(connected, Some(Item::Event(event)) if &*event.name == "connected"));
    for (offset, body) in bodies {
        let Some(Item::Event(event)) = items.next() else { panic!("no event for {offset}") };
        assert_eq!((&*event.name, event.data.as_bytes()), ("notification", &body[..]));
        assert_eq!(*event.last_id, *offset.to_string());
        let comment = items.next();
        assert_eq!(comment, Some(Item::Comment(format!(" until {offset}").into())));
    }
    assert_eq!(items.next(), Some(Item::Retry(std::time::Duration::from_millis(500))));
    assert_eq!(items.next(), None);
}

fn body(description: &str, offset: Offset) -> Vec<u8> {
    let draft = Draft {
        notification_id: None,
        related_message_id: Uuid::nil(),
        kind: NotificationType::NewMessage,
        receiver: HerId::MAX,
        triggered_by: None,
        description: Some(description.to_owned()),
    };
    let mut body = wire::body_start(&draft, Uuid::nil(), "2026-05-08T08:32:15.31+00:00");
    wire::finish_body(&mut body, offset);
    body
}
