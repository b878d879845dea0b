//! The standard's own examples and each of its rules, whole and cut at every byte.
//!
//! By section 9.2.6 of the WHATWG HTML standard, in its order: decoding and the byte order mark, line ends, empty lines,
//! comments, the split into field and value, each field, dispatch, the end of the stream. What a browser and public
//! conformance vectors say about the same rules is compared elsewhere: crates/herald/tests/it/foreign, fuzz/tests.

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
    Item::Event(Event { name: name.into(), data: data.into(), last_id: last_id.into() })
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
fn an_id_counts_from_the_next_blank_line_on_even_without_an_event() {
    assert_eq!(
        items("id: 1\n\ndata: a\n\nevent: x\nid: 2\n\ndata: b\n\nid\n\ndata: c\n\n"),
        [with_id("message", "a", "1"), with_id("message", "b", "2"), event("message", "c")]
    );
    assert_eq!(items("id: 1\ndata: a\nid: 2\n\n"), [with_id("message", "a", "2")]);
}

#[test]
fn an_event_s_name_is_the_last_one_and_message_if_that_is_empty() {
    assert_eq!(items("event: a\nevent: b\ndata: 1\n\n"), [event("b", "1")]);
    assert_eq!(items("data: 1\nevent: a\n\ndata: 2\n\n"), [event("a", "1"), event("message", "2")]);
    for empty in ["event", "event:", "event: "] {
        assert_eq!(items(format!("event: a\n{empty}\ndata: 1\n\n")), [event("message", "1")]);
    }
    assert_eq!(items("event:  a \ndata: 1\n\n"), [event(" a ", "1")]);
}

#[test]
fn only_the_first_colon_parts_a_field_from_its_value() {
    assert_eq!(items("data: a:b: c\ndata::\n\n"), [event("message", "a:b: c\n:")]);
    assert_eq!(items("data : 1\n\n"), []);
}

#[test]
fn many_events_at_once_come_in_their_order() {
    let stream: String = (0..100).map(|number| format!("data: {number}\n\n")).collect();
    let expected: Vec<_> = (0..100).map(|number| event("message", &number.to_string())).collect();
    assert_eq!(items(stream), expected);
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
    assert_eq!(items("data: 1\r\n\ndata: 2\r\r\n"), [event("message", "1"), event("message", "2")]);
}

#[test]
fn a_crlf_cut_in_two_ends_one_line() {
    let pieces = [&b"data: 1\r"[..], b"\ndata: 2\r", b"\n\r\ndata: 3\r", b"\n", b"\r", b"", b"\n"];
    assert_eq!(read(&pieces), [event("message", "1\n2"), event("message", "3")]);
}

#[test]
fn empty_lines_in_a_row_are_no_events() {
    for end in ["\n", "\r", "\r\n"] {
        let stream = ["", "", "data: 1", "", "", "", "", "data: 2", "", ""].join(end);
        assert_eq!(items(&stream), [event("message", "1"), event("message", "2")], "{end:?}");
    }
}

#[test]
fn nothing_else_ends_a_line() {
    let text = "a\u{2028}b\u{2029}c\u{85}d\u{B}e\u{C}f\0g";
    assert_eq!(items(format!("data: {text}\n\n")), [event("message", text)]);
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
fn a_byte_order_mark_hides_nothing_behind_it_and_half_of_one_is_text() {
    assert_eq!(items("\u{FEFF}"), []);
    assert_eq!(items("\u{FEFF}\n\ndata: 1\n\n"), [event("message", "1")]);
    assert_eq!(items("\u{FEFF}:c\ndata: 1\n\n"), [comment("c"), event("message", "1")]);
    assert_eq!(items(b"\xEF\xBB\ndata: 1\n\n"), [event("message", "1")]);
    assert_eq!(items(b"\xEF\xBBdata: 1\n\ndata: 2\n\n"), [event("message", "2")]);
    assert_eq!(items("data: 1\n\u{FEFF}data: 2\n\n"), [event("message", "1")]);
    assert_eq!(items("id: \u{FEFF}\ndata: 1\n\n"), [with_id("message", "1", "\u{FEFF}")]);
    assert_eq!(items(b"\xFE\xFFdata: 1\n\ndata: 2\n\n"), [event("message", "2")]);
}

#[test]
fn text_cut_inside_a_character_is_whole_again_and_what_is_not_utf8_is_replaced() {
    assert_eq!(items("event: blåbær\ndata: 🫐 på 山\n\n"), [event("blåbær", "🫐 på 山")]);
    assert_eq!(items(b"data: a\xFFb\xC3\n\n"), [event("message", "a\u{FFFD}b\u{FFFD}")]);
}

#[test]
fn what_is_not_utf8_is_replaced_as_the_encoding_standard_says() {
    // A truncated sequence is one replacement and ends where it goes wrong, at the latest at the line's end.
    for (bytes, text) in [
        (&b"\xC3"[..], "\u{FFFD}"),
        (b"\xE2\x82", "\u{FFFD}"),
        (b"\xF0\x9F\xAB", "\u{FFFD}"),
        (b"\xF0\x9F\xABa", "\u{FFFD}a"),
        (b"\xF0\x9F\xC3\xA5", "\u{FFFD}å"),
        (b"\x80\xBF", "\u{FFFD}\u{FFFD}"),
        (b"\xC0\xAF", "\u{FFFD}\u{FFFD}"),
        (b"\xED\xA0\x80", "\u{FFFD}\u{FFFD}\u{FFFD}"),
        (b"\xF4\x90\x80\x80", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
    ] {
        for end in ["\n", "\r", "\r\n"] {
            let end = end.as_bytes();
            let stream = [b"id:", bytes, end, b"event:", bytes, end, b"data:", bytes, end, end];
            assert_eq!(items(stream.concat()), [with_id(text, text, text)], "{bytes:?}");
        }
    }
}

#[test]
fn a_field_s_name_that_is_not_utf8_is_unknown() {
    assert_eq!(
        items(b"data\xFF: 1\n\xFFdata: 2\n\xE2\x82data: 3\ndata\xC3\ndata: 4\n\n"),
        [event("message", "4")]
    );
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
    assert_eq!(items("retry: 007\n"), [retry(7)], "and at once, not with an event");
    for huge in ["18446744073709551615", "18446744073709551616", &"9".repeat(1000)] {
        assert_eq!(items(format!("retry: {huge}\n")), [retry(u64::MAX)], "{huge}");
    }
    let zeros = format!("retry: {}1\n", "0".repeat(1000));
    assert_eq!(items(zeros), [retry(1)]);
    for none in [
        "", "-1", "+1", "1.5", "1e3", "0x1", "1s", "1_000", " 1", "1 ", "\t1", "1\0", "\u{661}",
        "\u{FF11}",
    ] {
        assert_eq!(items(format!("retry: {none}\n\n")), [], "{none:?}");
    }
    assert_eq!(items("retry\n\n"), []);
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
    parser.push(format!("data:{}\ndata:xxx\n", fill(EVENT_BYTES_MAX - 5)).as_bytes());
    assert_eq!(parser.item(), Ok(None));
    parser.push(b"data:\n");
    assert_eq!(parser.item(), Err(TooLong));
}

/// What comes out in pieces of `size` bytes, or that it is too long.
fn outcome(stream: &[u8], size: usize) -> Result<Vec<Item>, TooLong> {
    let mut parser = Parser::new();
    let mut items = Vec::new();
    for piece in stream.chunks(size) {
        parser.push(piece);
        while let Some(item) = parser.item()? {
            items.push(item);
        }
    }
    Ok(items)
}

#[test]
fn a_line_of_any_kind_may_be_just_so_long_however_it_comes() {
    for start in [":", "data:", "event:", "id:", "retry:", "other:", "data"] {
        for (bytes, fits) in [(EVENT_BYTES_MAX, true), (EVENT_BYTES_MAX + 1, false)] {
            let line = start.to_owned() + &"1".repeat(bytes - start.len());
            for end in ["\n", "\r\n"] {
                let stream = ["data: 1", "", &line, "data: 2", "", ""].join(end);
                let whole = outcome(stream.as_bytes(), usize::MAX);
                assert_eq!(whole.is_ok(), fits, "{start} {bytes} {end:?}");
                for size in [4096, EVENT_BYTES_MAX] {
                    assert!(outcome(stream.as_bytes(), size) == whole, "{start} {bytes} {size}");
                }
            }
        }
    }
}

#[test]
fn a_parser_that_is_never_given_an_end_holds_a_few_events_at_most() {
    let held = |parser: &Parser| {
        let data = parser.data.as_ref().map_or(0, String::len);
        parser.buffer.len() + parser.name.len() + parser.usual.len() + data + parser.last_id.len()
    };
    let endless = ["x", "data", "data\n", "data:x\n", ":", "event: ", "id:\u{FEFF}", "\u{FEFF}"];
    let not_utf8 = [&b"\xFF"[..], b"data:\xFF\xFF\xFF\xFF\n"];
    for unit in endless.map(str::as_bytes).into_iter().chain(not_utf8) {
        let piece = unit.repeat(64 * 1024 / unit.len());
        let mut parser = Parser::new();
        let mut pushed = 0;
        while parser.item().is_ok_and(|item| item.is_none()) {
            parser.push(&piece);
            pushed += piece.len();
            // One replacement takes the place of one byte, and is three.
            assert!(held(&parser) <= 4 * EVENT_BYTES_MAX + piece.len(), "{unit:?}");
            assert!(pushed <= 6 * EVENT_BYTES_MAX, "{unit:?} goes on");
        }
    }
}

#[test]
fn events_of_every_size_around_common_buffers_come_whole() {
    for size in [1, 1023, 1024, 1025, 4094, 4096, 4098, 8189, 8192, 8195, 16_384, 65_536, 262_144] {
        let data = "x".repeat(size);
        let stream = format!("data: {data}\n\n");
        for piece in [1000, 4096, 8192, usize::MAX] {
            let outcome = outcome(stream.as_bytes(), piece);
            assert!(outcome == Ok(vec![event("message", &data)]), "{size} in pieces of {piece}");
        }
    }
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
