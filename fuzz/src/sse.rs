use std::time::Duration;

use bytes::Bytes;
use herald_client::sse::{Event, Item, Parser};

/// The input is an event stream.
///
/// However it is cut, what is read from it is what the standard says.
///
/// # Panics
/// If that does not hold.
pub fn sse(stream: &[u8]) {
    let expected = by_the_standard(stream);
    for size in [1, 2, 3, 7, 64, usize::MAX] {
        assert_eq!(items(stream.chunks(size)), expected, "in pieces of {size} bytes");
    }
    assert_eq!(items(growing(stream)), expected, "in pieces that grow, with empty ones between");
}

fn items<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for piece in pieces {
        parser.push(piece);
        while let Some(item) = parser.item().expect("an input is shorter than an event may be") {
            items.push(match item {
                // As everything else is: a parser may hand out a comment as it came.
                Item::Comment(text) => Item::Comment(lossy(&text)),
                other => other,
            });
        }
    }
    items
}

fn lossy(text: &[u8]) -> Bytes {
    String::from_utf8_lossy(text).into_owned().into()
}

/// Pieces of 1, 2, 3 bytes and so on, with an empty one before each: in a long stream, a cut at every place of a line.
fn growing(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = stream;
    let pieces = (1..).map_while(move |size| {
        let (piece, behind) = rest.split_at(rest.len().min(size));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    pieces.flat_map(|piece| [&b""[..], piece])
}

/// Section 9.2.6 of the WHATWG HTML standard, word for word and without a thought for memory: the whole stream is decoded,
/// then split into lines, then read.
fn by_the_standard(stream: &[u8]) -> Vec<Item> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // It has no end.

    let mut items = Vec::new();
    let (mut data, mut name, mut last_id) = (String::new(), String::new(), String::new());
    for line in lines {
        let (field, value) = match line.split_once(':') {
            Some(("", comment)) => {
                items.push(Item::Comment(comment.to_owned().into()));
                continue;
            }
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "" => {
                if let Some(data) = data.strip_suffix('\n') {
                    let name = if name.is_empty() { "message" } else { &name };
                    items.push(Item::Event(Event {
                        name: name.into(),
                        data: data.to_owned(),
                        last_id: last_id.as_str().into(),
                    }));
                }
                data.clear();
                name.clear();
            }
            "event" => name = value.to_owned(),
            "data" => data = data + value + "\n",
            "id" if !value.contains('\0') => last_id = value.to_owned(),
            "retry" if !value.is_empty() && value.chars().all(|char| char.is_ascii_digit()) => {
                let millis = value.parse().unwrap_or(u64::MAX);
                items.push(Item::Retry(Duration::from_millis(millis)));
            }
            _ => {}
        }
    }
    items
}
