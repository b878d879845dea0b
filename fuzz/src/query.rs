use herald_types::{PollQuery, RECEIVERS_MAX, StreamQuery};

/// The first line is the part of a URL behind `?`, the second, if there is one, the header `Last-Event-ID`.
///
/// A valid query says the same again when it is written plainly; an invalid one says why.
///
/// # Panics
/// If that does not hold.
pub fn query(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (query, last_event_id) = match input.split_once('\n') {
        Some((query, last_event_id)) => (query, Some(last_event_id)),
        None => (input, None),
    };
    match PollQuery::parse(query) {
        Err(violations) => assert!(!violations.into_texts().is_empty()),
        Ok(poll) => {
            let her_ids = poll.her_ids.as_slice();
            assert!((1..=RECEIVERS_MAX).contains(&her_ids.len()));
            assert!(her_ids.is_sorted_by(|a, b| a < b));
            let her_ids: String = her_ids.iter().map(|id| format!("herids={id}&")).collect();
            let plain =
                format!("{her_ids}OFFSET={}&notificationstofetch={}", poll.after, poll.limit.get());
            assert_eq!(PollQuery::parse(&plain).as_ref(), Ok(&poll));
            let stream = StreamQuery::parse(query, None).expect("a poll's query fits a stream");
            assert_eq!((&stream.her_ids, stream.after), (&poll.her_ids, poll.after));
        }
    }
    if let Ok(stream) = StreamQuery::parse(query, last_event_id)
        && let Some(text) = last_event_id
    {
        assert_eq!(text.parse(), Ok(stream.after), "Last-Event-ID replaces Offset");
    }
}
