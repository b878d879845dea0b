//! The stream's settings: how it is made, and what is checked of one that is there.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::{
    Position,
    engine::{EngineError, Identity, Look},
};

/// What a log's metadata says of its format.
const FORMAT: &str = "1";
/// A log is kept by so many servers if there are so many.
pub(super) const REPLICAS: u64 = 3;
/// The engine keeps batches for longer than any view shows them: by a quarter of the retention, and at least this.
const AGE_MARGIN_MIN: Duration = Duration::from_secs(60 * 60);
/// The shortest that JetStream takes. Nothing relies on it: no message has an id of the kind it is about.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// A leader that has not heard from most of the stream's servers for so long may not be the leader any more. They
/// choose another one after at least 4 s, and are heard from each second.
const CONTACT_MAX: Duration = Duration::from_millis(3500);

const HISTORY: &str = "herald-history";
const LOG: &str = "herald-log";
const SALT: &str = "herald-salt";
const SEEDING: &str = "herald-seeding";
const FORMAT_KEY: &str = "herald-format";

/// How long the stream must keep a batch; `None` is for ever.
pub(super) fn age(retention: Option<Duration>) -> Option<Duration> {
    retention.map(|retention| retention.saturating_add((retention / 4).max(AGE_MARGIN_MIN)))
}

/// JetStream's way to say how long: nanoseconds, of which 0 are for ever.
pub(super) fn nanos(age: Option<Duration>) -> i64 {
    // What does not fit is nearly 300 years.
    age.map_or(0, |age| i64::try_from(age.as_nanos()).unwrap_or(0))
}

/// The settings of a new stream.
pub(super) fn settings(
    name: &str,
    subject: &str,
    identity: &Identity,
    age: Option<Duration>,
    replicas: u64,
) -> Value {
    json!({
        "name": name,
        "description": "Herald's log of notifications",
        "subjects": [subject],
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_age": nanos(age),
        "duplicate_window": nanos(Some(DUPLICATE_WINDOW)),
        "deny_delete": true,
        "deny_purge": true,
        "allow_direct": false,
        "metadata": {
            FORMAT_KEY: FORMAT,
            HISTORY: identity.history.to_string(),
            LOG: identity.log_id.to_string(),
            SALT: format!("{:016x}", identity.salt),
            SEEDING: identity.is_seeding.to_string(),
        },
    })
}

/// The settings of a stream whose seeding has ended.
pub(super) fn seeded(mut config: Value) -> Value {
    config["metadata"][SEEDING] = json!("false");
    config
}

/// Whose stream it is.
pub(super) fn identity(name: &str, config: &Value) -> Result<Identity, EngineError> {
    let metadata = &config["metadata"];
    let text = |key: &str| metadata[key].as_str().unwrap_or("");
    match text(FORMAT_KEY) {
        FORMAT => {}
        "" => {
            return Err(EngineError::Unfit(format!(
                "the stream {name} is not a log of Herald: its metadata has no {FORMAT_KEY}. Name another one with \
                 ?stream=NAME in the URL"
            )));
        }
        other => {
            return Err(EngineError::Unfit(format!(
                "the stream {name} has {FORMAT_KEY}: {other} in its metadata, and this Herald knows {FORMAT}: it needs a \
                 newer one"
            )));
        }
    }
    let damaged = |key: &str| {
        EngineError::Unfit(format!(
            "the stream {name} has {key}: {:?} in its metadata, which Herald did not write: put back what was there",
            text(key)
        ))
    };
    let id = |key: &str| text(key).parse::<Uuid>().map_err(|_| damaged(key));
    Ok(Identity {
        history: id(HISTORY)?,
        log_id: id(LOG)?,
        salt: u64::from_str_radix(text(SALT), 16).map_err(|_| damaged(SALT))?,
        is_seeding: text(SEEDING).parse().map_err(|_| damaged(SEEDING))?,
    })
}

/// What a stream's state says.
pub(super) fn look(name: &str, info: &Value) -> Result<Look, EngineError> {
    let unreadable =
        || EngineError::Away(format!("an answer about {name} that can not be read").into());
    let number = |key: &str| info["state"][key].as_u64().ok_or_else(unreadable);
    let time: jiff::Timestamp =
        info["ts"].as_str().and_then(|ts| ts.parse().ok()).ok_or_else(unreadable)?;
    let newest = number("last_seq")?;
    // An empty stream says 0 before the first batch, and the place of the next one after the last has gone.
    let first = if number("messages")? == 0 { newest + 1 } else { number("first_seq")? };
    Ok(Look {
        identity: identity(name, &info["config"])?,
        first: Position(first),
        newest: Position(newest),
        time_ms: time.as_millisecond().try_into().map_err(|_| unreadable())?,
        term: 0,
    })
}

/// Whether the one who answered can still be the leader: after it was cut off or stopped, it may take itself for that
/// for a while, and know less than it should.
pub(super) fn is_led(info: &Value) -> bool {
    let Some(others) = info["cluster"]["replicas"].as_array() else { return true };
    let heard = others.iter().filter(|other| {
        let silent_ns = other["active"].as_u64().unwrap_or(0);
        !other["offline"].as_bool().unwrap_or(false)
            && u128::from(silent_ns) <= CONTACT_MAX.as_nanos()
    });
    heard.count() + 1 > others.len().div_ceil(2)
}

/// Whether a server has what the stream's leader has: one that was away catches up first.
pub(super) fn is_current(info: &Value, server: &str) -> bool {
    let others = info["cluster"]["replicas"].as_array().map_or(&[][..], Vec::as_slice);
    others.iter().all(|other| {
        let is_behind = other["current"] == false || other["offline"] == true;
        other["name"] != server || !is_behind
    })
}

/// One setting, and how it must be.
struct Rule {
    key: &'static str,
    is_met: fn(&Value) -> bool,
    needed: &'static str,
    /// The option of `nats stream edit`, where it can be changed there.
    edit: Option<&'static str>,
}

const fn rule(
    key: &'static str,
    is_met: fn(&Value) -> bool,
    needed: &'static str,
    edit: Option<&'static str>,
) -> Rule {
    Rule { key, is_met, needed, edit }
}

fn is_true(value: &Value) -> bool {
    value == true
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(true) | Value::String(_) => false,
    }
}

fn is_unlimited(value: &Value) -> bool {
    value.as_i64().unwrap_or(-1) <= 0
}

fn is_large_enough(value: &Value) -> bool {
    is_unlimited(value) || value.as_u64() >= Some(super::link::PAYLOAD_MIN as u64)
}

/// What would let a log lose, change or refuse batches.
const RULES: [Rule; 22] = [
    rule("retention", |v| v == "limits", "limits", None),
    rule("storage", |v| v == "file", "file", None),
    rule("discard", |v| v == "new", "new", Some("--discard=new")),
    rule("deny_delete", is_true, "true", Some("--deny-delete")),
    rule("deny_purge", is_true, "true", Some("--deny-purge")),
    rule("max_bytes", is_unlimited, "-1", Some("--max-bytes=-1")),
    rule("max_msgs", is_unlimited, "-1", Some("--max-msgs=-1")),
    rule("max_msgs_per_subject", is_unlimited, "-1", Some("--max-msgs-per-subject=-1")),
    rule("max_msg_size", is_large_enough, "-1, or at least 8000000", Some("--max-msg-size=-1")),
    rule("max_consumers", is_unlimited, "-1, for each replica has one", None),
    rule("no_ack", is_off, "false", Some("--ack")),
    rule("sealed", is_off, "false", None),
    rule("allow_rollup_hdrs", is_off, "false", Some("--no-allow-rollup")),
    rule("allow_msg_ttl", is_off, "false", None),
    rule("allow_msg_counter", is_off, "false", None),
    rule("allow_msg_schedules", is_off, "false", None),
    rule("subject_delete_marker_ttl", is_off, "none", Some("--subject-del-markers-ttl=0")),
    rule("mirror", is_off, "none", None),
    rule("sources", is_off, "none", None),
    rule("republish", is_off, "none", Some("--no-republish")),
    rule("subject_transform", is_off, "none", None),
    rule("persist_mode", |v| v.is_null() || v == "" || v == "default", "default", None),
];

/// Refuses settings that would let the log lose something, by name.
pub(super) fn check(name: &str, subject: &str, config: &Value) -> Result<(), EngineError> {
    let complain = |key: &str, needed: &str, edit: Option<&str>| {
        let found = &config[key];
        let how = edit.map_or_else(
            || {
                "it can not be changed: name another stream with ?stream=NAME in the URL and fill it by herald log seed"
                    .to_owned()
            },
            |edit| format!("nats stream edit {name} {edit}"),
        );
        EngineError::Unfit(format!(
            "the stream {name} has {key}: {}, and Herald needs {needed} ({how})",
            if found.is_null() { "none".to_owned() } else { found.to_string() },
        ))
    };
    for Rule { key, is_met, needed, edit } in &RULES {
        if !is_met(&config[*key]) {
            return Err(complain(key, needed, *edit));
        }
    }
    let threshold = &config["consumer_limits"]["inactive_threshold"];
    if threshold
        .as_u64()
        .is_some_and(|ns| ns > 0 && u128::from(ns) < super::follow::IDLE_MAX.as_nanos())
    {
        return Err(complain("consumer_limits", "no inactive_threshold, or one of 30 s", None));
    }
    if config["subjects"] != json!([subject]) {
        return Err(complain("subjects", subject, Some(&format!("--subjects={subject}"))));
    }
    Ok(())
}

/// What may be changed for the better in a stream's settings, and what to say of the rest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mend {
    /// The replicas that it has, when these are too few.
    pub(super) few_replicas: Option<u64>,
    /// How long it keeps batches, when this is too short.
    pub(super) short_age: Option<Duration>,
    /// How long it keeps batches, when this is longer than need be; `None` in it is for ever.
    pub(super) long_age: Option<Option<Duration>>,
}

/// Compares what may be mended.
pub(super) fn mend(config: &Value, age: Option<Duration>) -> Mend {
    let replicas = config["num_replicas"].as_u64().unwrap_or(1);
    let kept = match config["max_age"].as_u64() {
        None | Some(0) => None,
        Some(ns) => Some(Duration::from_nanos(ns)),
    };
    let (mut short_age, mut long_age) = (None, None);
    match (kept, age) {
        (Some(kept), None) => short_age = Some(kept),
        (Some(kept), Some(age)) if kept < age => short_age = Some(kept),
        (None, Some(_)) => long_age = Some(None),
        (Some(kept), Some(age)) if kept > age => long_age = Some(Some(kept)),
        _ => {}
    }
    Mend { few_replicas: (replicas < REPLICAS).then_some(replicas), short_age, long_age }
}

/// The settings with one changed.
pub(super) fn with(config: &Value, key: &str, value: Value) -> Value {
    let mut config = config.as_object().cloned().unwrap_or_else(Map::new);
    config.insert(key.to_owned(), value);
    Value::Object(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        history: Uuid::from_u128(1),
        log_id: Uuid::from_u128(2),
        salt: u64::MAX,
        is_seeding: true,
    };

    fn config() -> Value {
        settings("HERALD", "herald.batches.2", &IDENTITY, Some(Duration::from_secs(9)), 3)
    }

    #[test]
    fn what_herald_makes_is_what_it_accepts() {
        let config = config();
        check("HERALD", "herald.batches.2", &config).unwrap();
        assert_eq!(identity("HERALD", &config).unwrap(), IDENTITY);
        assert_eq!(mend(&config, Some(Duration::from_secs(9))), Mend::default());
        let seeded = identity("HERALD", &seeded(config)).unwrap();
        assert_eq!(seeded, Identity { is_seeding: false, ..IDENTITY });
    }

    #[test]
    fn each_wrong_setting_is_refused_by_its_name() {
        let wrong = [
            ("retention", json!("workqueue")),
            ("storage", json!("memory")),
            ("discard", json!("old")),
            ("deny_delete", json!(false)),
            ("deny_purge", Value::Null),
            ("max_bytes", json!(1)),
            ("max_msgs", json!(1)),
            ("max_msgs_per_subject", json!(1)),
            ("max_msg_size", json!(7_999_999)),
            ("max_consumers", json!(1)),
            ("no_ack", json!(true)),
            ("sealed", json!(true)),
            ("allow_rollup_hdrs", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("allow_msg_counter", json!(true)),
            ("allow_msg_schedules", json!(true)),
            ("subject_delete_marker_ttl", json!(1)),
            ("mirror", json!({"name": "A"})),
            ("sources", json!([{"name": "A"}])),
            ("republish", json!({"src": ">", "dest": "a.>"})),
            ("subject_transform", json!({"src": ">", "dest": "a.>"})),
            ("persist_mode", json!("async")),
            ("consumer_limits", json!({"inactive_threshold": 29_999_999_999_u64})),
            ("subjects", json!(["herald.batches.3"])),
        ];
        assert_eq!(wrong.len(), RULES.len() + 2, "each rule has its case");
        for (key, value) in wrong {
            let config = with(&config(), key, value.clone());
            let error = check("HERALD", "herald.batches.2", &config).unwrap_err().to_string();
            let shown = if value.is_null() { "none".to_owned() } else { value.to_string() };
            assert!(
                error.starts_with(&format!("the stream HERALD has {key}: {shown}, and")),
                "{error}"
            );
        }
        for (key, value) in [
            ("max_msg_size", json!(8_000_000)),
            ("max_bytes", json!(0)),
            ("sources", json!([])),
            ("persist_mode", json!("default")),
            ("consumer_limits", json!({"inactive_threshold": 30_000_000_000_u64})),
            ("consumer_limits", json!({})),
        ] {
            check("HERALD", "herald.batches.2", &with(&config(), key, value)).unwrap();
        }
    }

    #[test]
    fn another_ones_stream_and_damaged_metadata_are_refused() {
        for (key, value, complaint) in [
            (FORMAT_KEY, Value::Null, "is not a log of Herald"),
            (FORMAT_KEY, json!("2"), "has herald-format: 2"),
            (HISTORY, json!("x"), "has herald-history: \"x\""),
            (LOG, Value::Null, "has herald-log: \"\""),
            (SALT, json!("0x1"), "has herald-salt"),
            (SEEDING, json!("no"), "has herald-seeding: \"no\""),
        ] {
            let mut config = config();
            config["metadata"][key] = value;
            let error = identity("HERALD", &config).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn the_engine_keeps_batches_for_longer_than_views_show_them() {
        let hour = Duration::from_secs(3600);
        assert_eq!(age(None), None);
        assert_eq!(age(Some(hour)), Some(2 * hour), "an hour more");
        assert_eq!(age(Some(8 * hour)), Some(10 * hour), "a quarter more");
        assert_eq!(
            nanos(age(Some(Duration::MAX))),
            0,
            "what is longer than it can say is for ever"
        );
        let kept = |ns: u64| with(&config(), "max_age", json!(ns));
        let second = Duration::from_secs(1);
        for (max_age, age, mended) in [
            (999_999_999, Some(second), (true, false)),
            (1_000_000_000, Some(second), (false, false)),
            (1_000_000_001, Some(second), (false, true)),
            (0, Some(second), (false, true)),
            (1, None, (true, false)),
            (0, None, (false, false)),
        ] {
            let mend = mend(&kept(max_age), age);
            assert_eq!((mend.short_age.is_some(), mend.long_age.is_some()), mended, "{max_age}");
        }
        for (replicas, few) in [(1, Some(1)), (2, Some(2)), (3, None), (5, None)] {
            let config = with(&config(), "num_replicas", json!(replicas));
            assert_eq!(mend(&config, Some(9 * second)).few_replicas, few);
        }
    }

    #[test]
    fn an_emptied_stream_knows_where_its_next_batch_goes() {
        let info = |messages: u64, first: u64, last: u64| {
            json!({
                "config": config(),
                "ts": "2026-01-02T03:04:05.678901Z",
                "state": {"messages": messages, "first_seq": first, "last_seq": last},
            })
        };
        for ((messages, first, last), places) in
            [((0, 0, 0), (1, 0)), ((0, 8, 7), (8, 7)), ((3, 5, 7), (5, 7))]
        {
            let look = look("HERALD", &info(messages, first, last)).unwrap();
            assert_eq!((look.first.0, look.newest.0), places);
            assert_eq!(look.time_ms, 1_767_323_045_678);
            assert_eq!(look.is_hollow(), (messages, last) == (0, 7));
        }
    }

    #[test]
    fn a_leader_without_a_majority_is_not_believed_and_who_is_behind_not_followed() {
        let led = |silent_ms: &[u64]| {
            let others: Vec<Value> =
                silent_ms.iter().map(|ms| json!({"active": ms * 1_000_000})).collect();
            is_led(&json!({"cluster": {"leader": "n1", "replicas": others}}))
        };
        assert!(is_led(&json!({})) && is_led(&json!({"cluster": {"leader": "n1"}})));
        assert!(led(&[0, 1000]) && led(&[3500, 9000]) && !led(&[3501, 3501]));
        assert!(led(&[10, 10, 9000, 9000]) && !led(&[10, 9000, 9000, 9000]));
        assert!(!led(&[9000]), "of two, both are needed");
        let replicas = json!({"cluster": {"leader": "n1", "replicas": [
            {"name": "n2", "current": true}, {"name": "n3", "current": false}, {"name": "n4", "offline": true},
        ]}});
        for (server, current) in
            [("n1", true), ("n2", true), ("n3", false), ("n4", false), ("", true)]
        {
            assert_eq!(is_current(&replicas, server), current, "{server}");
        }
        assert!(is_current(&json!({}), ""));
        let offline = json!({"active": 1, "offline": true});
        assert!(!is_led(&json!({"cluster": {"replicas": [offline, offline]}})));
    }
}
