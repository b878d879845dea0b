//! Settings of the stream and the servers: what is refused, mended, warned of and only told.

use async_nats::ServerInfo;

use super::*;

#[tokio::test]
async fn a_stream_with_a_wrong_setting_is_refused_by_name() {
    let cluster = Cluster::start(1).await.unwrap();
    let engine = engine(&cluster.url());
    let other = json!({"name": "OTHER", "subjects": ["other"], "retention": "limits", "storage": "file", "num_replicas": 1});
    ask(&engine, "STREAM.CREATE.OTHER", other).await;
    let subject = engine.link.target.subject(identity(1).log_id);
    let good = stream::settings("HERALD", &subject, &identity(1), stream::age(DAY), 1);
    // As far as the server itself lets such a stream be made.
    let wrong = [
        ("retention", json!("interest")),
        ("storage", json!("memory")),
        ("discard", json!("old")),
        ("deny_delete", json!(false)),
        ("deny_purge", json!(false)),
        ("max_bytes", json!(1_000_000)),
        ("max_msgs", json!(1000)),
        ("max_msgs_per_subject", json!(1000)),
        ("max_msg_size", json!(1000)),
        ("max_consumers", json!(3)),
        ("no_ack", json!(true)),
        ("allow_msg_ttl", json!(true)),
        ("sources", json!([{"name": "OTHER"}])),
        ("republish", json!({"src": ">", "dest": "copy.>"})),
        ("subject_transform", json!({"src": ">", "dest": "changed.>"})),
        ("persist_mode", json!("async")),
        ("consumer_limits", json!({"inactive_threshold": 1_000_000_000})),
        ("subjects", json!([subject, "another"])),
    ];
    for (key, value) in wrong {
        ask(&engine, "STREAM.CREATE.HERALD", stream::with(&good, key, value)).await;
        let error = unfit(engine.look().await);
        assert!(error.starts_with(&format!("the stream HERALD has {key}: ")), "{key}: {error}");
        assert!(error.contains("HERALD --") || error.contains("?stream=NAME"), "{error}");
        ask(&engine, "STREAM.DELETE.HERALD", json!({})).await;
    }
    let nobodys = stream::with(&good, "metadata", json!({"made-by": "hand"}));
    ask(&engine, "STREAM.CREATE.HERALD", nobodys).await;
    let error = unfit(engine.look().await);
    assert!(error.contains("not a log of Herald") && error.contains("?stream=NAME"), "{error}");
    engine.create(&identity(1)).await.unwrap();
    assert!(unfit(engine.look().await).contains("not a log of Herald"), "it is left as it is");

    let beside = engine_at(&cluster, "?stream=Second");
    beside.create(&identity(2)).await.unwrap();
    assert_eq!(beside.look().await.unwrap().unwrap().identity, identity(2));
    let taken = json!({"name": "GREEDY", "subjects": ["third.>"], "retention": "limits", "storage": "file", "num_replicas": 1});
    ask(&engine, "STREAM.CREATE.GREEDY", taken).await;
    let error = unfit(engine_at(&cluster, "?stream=THIRD").create(&identity(3)).await);
    assert!(error.contains("THIRD could not be made: subjects overlap"), "{error}");
}

fn engine_at(cluster: &Cluster, parameters: &str) -> Jetstream {
    engine(&format!("{}{parameters}", cluster.url()))
}

fn engine_for(cluster: &Cluster, retention: Option<Duration>) -> Jetstream {
    engine_with(
        &cluster.url(),
        &EngineSettings { ca_file: None, credentials_file: None, retention },
    )
}

#[tokio::test]
async fn the_stream_keeps_batches_as_long_as_the_longest_retention_asks() {
    let (logged, _guard) = Logged::start();
    let (cluster, day) = single().await;
    let max_age = async || {
        ask(&day, "STREAM.INFO.HERALD", json!({})).await["config"]["max_age"].as_i64().unwrap()
    };
    assert_eq!(max_age().await, stream::nanos(stream::age(DAY)));
    let month = Some(Duration::from_secs(30 * 86_400));
    let longer = engine_for(&cluster, month);
    longer.look().await.unwrap();
    assert_eq!(max_age().await, stream::nanos(stream::age(month)), "raised");
    for _ in 0..3 {
        day.look().await.unwrap();
    }
    assert_eq!(max_age().await, stream::nanos(stream::age(month)), "kept");
    assert_eq!(logged.lines_with("longer than it needs").len(), 1, "said once");
    engine_for(&cluster, None).look().await.unwrap();
    assert_eq!(max_age().await, 0, "for ever");
    longer.look().await.unwrap();
    assert_eq!(max_age().await, 0);
    assert_eq!(logged.lines_with("raised a setting").len(), 2);
}

#[tokio::test]
async fn too_small_a_max_payload_is_refused_by_name() {
    let settings = Settings { nodes: 1, max_payload: "7MB".to_owned(), ..Settings::default() };
    let cluster = settings.start().await.unwrap();
    let error = unfit(engine(&cluster.url()).look().await);
    assert!(
        error.contains("max_payload: 7340032") && error.contains("max_payload: 8MB"),
        "{error}"
    );
}

#[test]
fn servers_that_are_too_old_or_take_too_little_are_told_by_name() {
    let judged = |version: &str, max_payload: usize| {
        let info = ServerInfo {
            server_name: "n1".to_owned(),
            version: version.to_owned(),
            max_payload,
            ..ServerInfo::default()
        };
        link::check(&info).map_err(|error| error.to_string())
    };
    for version in ["2.11.0", "2.15.1", "2.12.0-RC.1", "3.0.0"] {
        assert_eq!(judged(version, 8_000_000), Ok(()), "{version}");
    }
    for version in ["2.10.26", "1.99.0", "", "dev"] {
        let error = judged(version, 8_000_000).unwrap_err();
        assert!(error.contains(&format!("n1 is version {version}; Herald needs 2.11")), "{error}");
    }
    assert!(judged("2.15.1", 7_999_999).unwrap_err().contains("max_payload: 7999999"));
}

#[tokio::test]
async fn what_servers_show_of_their_syncing_is_said_once() {
    const LAX: &str = "what a power cut can take away";
    const UNSEEN: &str = "do not show whether they sync";
    let unsynced = Settings { sync_interval: "2m".to_owned(), ..Settings::default() };
    let hidden = Settings { access: herald_rig::nats::Access::Token, ..Settings::default() };
    for (settings, lax, unseen) in [(Settings::default(), 0, 0), (unsynced, 1, 0), (hidden, 0, 1)] {
        let (logged, _guard) = Logged::start();
        let cluster = Settings { nodes: 1, ..settings }.start().await.unwrap();
        let engine = engine(&cluster.url());
        engine.create(&identity(1)).await.unwrap();
        for _ in 0..3 {
            engine.look().await.unwrap();
        }
        let lines = logged.lines_with(LAX);
        assert_eq!((lines.len(), logged.lines_with(UNSEEN).len()), (lax, unseen));
        assert!(lines.iter().all(|line| line.contains("n1") && line.contains("WARN")), "{lines:?}");
        // One server is too few as well.
        let few = logged.lines_with("survive the loss of one");
        assert_eq!(few.len(), 1, "{few:?}");
        assert!(few[0].contains("num_replicas") && few[0].contains("WARN"), "{few:?}");
        // It is not asked to keep more, later either: some say yes, and lose the stream when they start again.
        self::engine(&cluster.url()).look().await.unwrap();
        assert_eq!(logged.lines_with("the NATS server is alone").len(), 1);
    }
}
