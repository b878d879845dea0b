//! The standard's own examples and each of its rules, whole and cut at every byte.

use proptest::prelude::*;

use super::*;

fn read(pieces: &[&[u8]]) -> Vec<Item> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for piece in pieces {
        parser.push(piece);
        while let Some(item) = parser.item().unwrap() {
            items.push(item);
        }
    }
    items
}

/// Reads `stream` whole, cut in two at every byte, and byte by byte: all must agree.
fn items(stream: impl AsRef<[u8]>) -> Vec<Item> {
    let stream = stream.as_ref();
    let whole = read(&[stream]);
    for cut in 0..=stream.len() {
        assert_eq!(read(&[&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(read(&bytes), whole, "byte by byte");
    whole
}

fn event(name: &str, data: &str) -> Item {
    with_id(name, data, "")
}

fn with_id(name: &str, data: &str, last_id: &str) -> Item {
    let data = Bytes::copy_from_slice(data.as_bytes());
    Item::Event(Event { name: name.into(), data, last_id: last_id.into() })
}

fn comment(text: &str) -> Item {
    Item::Comment(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn the_page_s_example_gives_connected_with_empty_data_and_a_notification() {
    let stream = "event: connected\ndata:\n\nevent: notification\ndata: {\"offset\":45459}\n\n";
    let expected = [event("connected", ""), event("notification", "{\"offset\":45459}")];
    assert_eq!(items(stream), expected);
}

#[test]
fn several_data_lines_are_joined_by_line_feeds() {
    assert_eq!(items("data: YHOO\ndata: +2\ndata: 10\n\n"), [event("message", "YHOO\n+2\n10")]);
}

#[test]
fn an_event_without_data_is_dropped_and_one_with_an_empty_line_is_not() {
    assert_eq!(
        items("data\n\ndata\ndata\n\ndata:"),
        [event("message", ""), event("message", "\n")]
    );
    assert_eq!(items("event: lost\n\ndata: x\n\n"), [event("message", "x")]);
}

#[test]
fn one_space_after_the_colon_is_taken_away_and_no_more() {
    assert_eq!(
        items("data:test\n\ndata: test\n\ndata:  test\n\ndata:\ttest\n\n"),
        ["test", "test", " test", "\ttest"].map(|data| event("message", data))
    );
}

#[test]
fn ids_last_until_the_next_one_and_an_empty_one_resets() {
    let stream = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
    assert_eq!(
        items(stream),
        [
            comment(" test stream"),
            with_id("message", "first event", "1"),
            event("message", "second event"),
            event("message", " third event"),
        ]
    );
    assert_eq!(
        items("id: 7\ndata: a\n\ndata: b\n\n"),
        [with_id("message", "a", "7"), with_id("message", "b", "7")]
    );
}

#[test]
fn an_id_with_nul_is_ignored() {
    assert_eq!(
        items("id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n"),
        [with_id("message", "a", "1"), with_id("message", "b", "1")]
    );
}

#[test]
fn lines_end_with_lf_cr_or_crlf_even_mixed() {
    for end in ["\n", "\r", "\r\n"] {
        let stream = ["event: a", "data: 1", "data: 2", "", "data: 3", "", ""].join(end);
        assert_eq!(items(&stream), [event("a", "1\n2"), event("message", "3")], "{end:?}");
    }
    assert_eq!(items("data: 1\r\ndata: 2\rdata: 3\n\r\n"), [event("message", "1\n2\n3")]);
    assert_eq!(items("data: 1\n\rdata: 2\r\n\r\n"), [event("message", "1"), event("message", "2")]);
}

#[test]
fn an_event_comes_out_with_the_cr_of_its_blank_line_without_waiting_for_a_lf() {
    assert_eq!(read(&[b"data: 1\r\r"]), [event("message", "1")]);
}

#[test]
fn one_byte_order_mark_is_skipped_and_only_at_the_start() {
    assert_eq!(items("\u{FEFF}data: 1\n\n"), [event("message", "1")]);
    assert_eq!(items("\u{FEFF}\u{FEFF}data: 1\n\n"), []);
    assert_eq!(items("data: 1\n\n\u{FEFF}data: 2\n\n"), [event("message", "1")]);
    assert_eq!(items("data: \u{FEFF}1\n\n"), [event("message", "\u{FEFF}1")]);
}

#[test]
fn text_cut_inside_a_character_is_whole_again_and_what_is_not_utf8_is_replaced() {
    assert_eq!(items("event: blåbær\ndata: 🫐 på 山\n\n"), [event("blåbær", "🫐 på 山")]);
    assert_eq!(items(b"data: a\xFFb\xC3\n\n"), [event("message", "a\u{FFFD}b\u{FFFD}")]);
}

#[test]
fn comments_come_out_with_everything_behind_the_colon() {
    assert_eq!(
        items(":\n\n: until 45460\n\n::\ndata: 1\n:within\n\n"),
        [
            comment(""),
            comment(" until 45460"),
            comment(":"),
            comment("within"),
            event("message", "1")
        ]
    );
}

#[test]
fn retry_takes_plain_digits_only() {
    let retry = |millis| Item::Retry(Duration::from_millis(millis));
    assert_eq!(items("retry: 1500\n\nretry:0\n\n"), [retry(1500), retry(0)]);
    assert_eq!(items("retry: 99999999999999999999\n\n"), [retry(u64::MAX)]);
    assert_eq!(items("retry: -1\nretry: 1.5\nretry\nretry: 1s\nretry:  1\nretry: 1 \n"), []);
}

#[test]
fn unknown_fields_are_ignored_and_names_are_compared_exactly() {
    assert_eq!(
        items("Data: 1\n data: 2\ndatax: 3\nfoo\nEVENT: a\ndata: 4\n\n"),
        [event("message", "4")]
    );
}

#[test]
fn what_is_not_finished_when_the_stream_ends_never_comes_out() {
    assert_eq!(items("data: 1\n\ndata: 2\n"), [event("message", "1")]);
    assert_eq!(items("data: 1"), []);
}

#[test]
fn an_event_may_be_just_so_long_and_not_longer() {
    let fill = |bytes: usize| "x".repeat(bytes);
    let mut parser = Parser::new();
    parser.push(format!("data:{}", fill(EVENT_BYTES_MAX - 5)).as_bytes());
    assert_eq!(parser.item(), Ok(None));
    parser.push(b"x");
    assert_eq!(parser.item(), Err(TooLong));

    let mut parser = Parser::new();
    parser.push(format!("data:{}\n", fill(EVENT_BYTES_MAX - 1)).as_bytes());
    assert_eq!(parser.item(), Ok(None));
    parser.push(b"data:\n");
    assert_eq!(parser.item(), Err(TooLong));
}

proptest! {
    #[test]
    fn no_cut_changes_what_is_read(
        stream in proptest::collection::vec(
            proptest::sample::select(b"\r\n: \0adetivnry1\xEF\xBB\xBF".to_vec()), 0..80),
        cuts in proptest::collection::vec(0_usize..80, 0..6),
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&pieces), read(&[&stream]));
    }
}
