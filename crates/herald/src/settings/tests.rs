use std::collections::HashMap;

use super::*;

/// A value of each setting for flag, environment and file, other than its default where it can be.
fn values(key: Key) -> [&'static str; 3] {
    match key {
        Key::Listen => ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
        Key::OpsListen => ["127.0.0.1:4", "0.0.0.0:5", "[::1]:6"],
        Key::DataDir => ["/a", "/b", "/c"],
        Key::Retention => ["1d", "forever", "3d"],
        Key::Heartbeat => ["1s", "2s", "3s"],
        Key::StallTimeout => ["4s", "5s", "6s"],
        Key::StreamMaxAge => ["7s", "8s", "9s"],
        Key::HeadBytesMax => ["33KiB", "65537B", "1MiB"],
        Key::HeadTimeout => ["1s", "2s", "3s"],
        Key::ConnectionsMax => ["1000", "2000", "auto"],
        Key::ConnectionsPerAddressMax => ["10", "none", "30"],
        Key::Http2StreamsMax => ["1", "2", "3"],
        Key::Http2ResetsMax => ["4", "5", "6"],
        Key::UploadTimeout => ["1m", "2m", "3m"],
        Key::UploadsBytesMax => ["32MiB", "33MiB", "34MiB"],
        Key::ClientRequestsMax => ["7", "8", "9"],
        Key::ClientStreamsMax => ["10", "11", "12"],
        Key::IdleTimeout => ["10s", "20s", "30s"],
        Key::Drain => ["1m", "2m", "3m"],
        Key::Log => ["nats://a:1,b:2", "postgres://me@a,b:2/db", "local"],
        Key::LogCredentials | Key::LogCa => ["/a", "none", "/c"],
        // The other one needs more: see below.
        Key::Auth => ["none", "none", "none"],
        Key::Issuer => ["https://a", "http://127.0.0.1:1", "https://b/c/"],
        Key::Audience => ["a", "b", "c"],
        Key::Scope => ["a", "b", "c"],
        Key::PublishScope => ["a", "b", "c"],
        Key::Organisations => ["/a.json", "https://b", "c.json"],
        Key::Publishers => ["/a.json", "https://b", "c.json"],
        Key::PublicUrl => ["https://a", "https://b/c", "http://c:1/"],
        Key::TokenAlgorithms => ["ES256", "RS256,PS256", "ES512, ES384"],
        Key::ProofAlgorithms => ["ES256", "RS256,PS256", "ES512, ES384"],
        Key::ClockSkew => ["1s", "2s", "3s"],
        Key::ProofAgeMax => ["4s", "5s", "6s"],
        Key::ReplaysMax => ["1000", "2000", "3000"],
        Key::KeysInterval => ["1m", "2m", "3m"],
        Key::KeysPause => ["4s", "5s", "6s"],
        Key::AuthExplain => ["true", "1", "true"],
        Key::InsecureNoAuth => ["true", "1", "true"],
        // Without the others they are wrong: see below.
        Key::TlsCert | Key::TlsKeyFile | Key::TlsClientCa => ["none", "none", "none"],
        Key::LogLevel => ["debug", "warn", "error"],
        Key::LogFormat => ["text", "json", "text"],
    }
}

/// What else must be set, in the environment, for a setting that means nothing alone.
fn companions(key: Key) -> Vec<(&'static str, &'static str)> {
    let all = [
        ("HERALD_AUTH", "helseid"),
        ("HERALD_ISSUER", "https://sts.example.no"),
        ("HERALD_ORGANISATIONS", "/o.json"),
    ];
    match key {
        Key::Issuer | Key::Organisations | Key::Publishers => {
            let own = key.environment_name();
            all.into_iter().filter(|(name, _)| *name != own).collect()
        }
        _ => Vec::new(),
    }
}

fn args(line: &[&str]) -> Args {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    let line = ["serve"].iter().chain(line);
    <Cli as clap::Parser>::try_parse_from(line).unwrap().args
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

fn read(
    args: &Args,
    environment: &[(&str, &str)],
    config: Option<&str>,
) -> Result<Settings, InvalidSettings> {
    let file = config.map(file);
    let path = file.as_ref().map(|file| file.path().to_owned());
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    let mut args = args.clone();
    args.config = args.config.or(path);
    Settings::read(&args, |name| environment.get(name).map(Into::into))
}

fn refusal(line: &[&str]) -> String {
    read(&args(line), &[], None).unwrap_err().to_string()
}

fn origin(settings: &Settings, key: Key) -> (&str, &Source) {
    let (_, text, source) = settings.origins.iter().find(|(found, ..)| *found == key).unwrap();
    (text, source)
}

#[test]
fn each_setting_is_taken_from_flag_then_environment_then_file_then_default() {
    for &key in Key::ALL {
        let [flag, variable, filed] = values(key);
        let flag_name = format!("--{}", key.name());
        let mut line = vec![flag_name.as_str()];
        if !key.is_flag() {
            line.push(flag);
        }
        let by_flag = args(&line);
        let variable_name = key.environment_name();
        let others = companions(key);
        let environment = [&[(variable_name.as_str(), variable)], &others[..]].concat();
        let config = format!("{} = \"{filed}\"", key.name());

        let all = read(&by_flag, &environment, Some(&config)).unwrap();
        assert_eq!(origin(&all, key), (flag, &Source::Flag), "{key:?}");
        let two = read(&args(&[]), &environment, Some(&config)).unwrap();
        assert_eq!(origin(&two, key), (variable, &Source::Environment), "{key:?}");
        let one = read(&args(&[]), &others, Some(&config)).unwrap();
        assert_eq!(origin(&one, key).0, filed, "{key:?}");
        assert!(matches!(origin(&one, key).1, Source::File(_)), "{key:?}");
        let bare = read(&args(&[]), &[], Some(&format!("{} = true", key.name())));
        assert_eq!(bare.is_ok_and(|bare| origin(&bare, key).0 == "true"), key.is_flag(), "{key:?}");
        let none = read(&args(&[]), &[], None).unwrap();
        assert_eq!(origin(&none, key), (key.default_text(), &Source::Default), "{key:?}");
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let settings = read(&args(&[]), &[], None).unwrap();
    assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(settings.ops_listen, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(settings.data_dir, PathBuf::from("./herald-data"));
    assert_eq!(settings.retention, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(settings.heartbeat, Duration::from_secs(15));
    assert_eq!(settings.stall_timeout, Duration::from_secs(60));
    assert_eq!(settings.stream_max_age, Duration::from_secs(3_600));
    assert_eq!(settings.head_bytes_max, herald_http::server::HEAD_BYTES_MAX);
    assert_eq!(settings.idle_timeout, herald_http::server::IDLE_TIMEOUT);
    let limits = herald_http::server::ServerLimits::default();
    assert_eq!(settings.head_timeout, limits.head_timeout);
    assert_eq!(settings.connections_max, None);
    assert_eq!(settings.connections_per_address_max, limits.connections_per_address_max);
    assert_eq!(settings.http2_streams_max, limits.http2_streams_max);
    assert_eq!(settings.http2_resets_max, limits.http2_resets_max);
    let api = herald_http::api::ApiSettings::default();
    assert_eq!(settings.upload_timeout, api.upload_timeout);
    assert_eq!(settings.uploads_bytes_max, api.uploads_bytes_max);
    assert_eq!(settings.client_requests_max, api.clients.requests_per_second);
    assert_eq!(settings.client_streams_max, api.clients.streams_max);
    assert_eq!(settings.drain, Duration::from_secs(10));
    assert_eq!(settings.auth, Auth::None);
    assert_eq!((settings.tls, settings.insecure_no_auth), (None, false));
}

const HELSEID: [&str; 6] =
    ["--auth", "helseid", "--issuer", "https://sts.example.no", "--organisations", "/o.json"];

/// That line with another value of one flag.
fn helseid_line<'a>(flag: &'a str, value: &'a str) -> Vec<&'a str> {
    let given = HELSEID.chunks(2).filter(|pair| pair[0] != flag).flatten().copied();
    given.chain([flag, value]).collect()
}

fn helseid(line: &[&str]) -> HelseIdSettings {
    match read(&args(line), &[], None).unwrap().auth {
        Auth::HelseId(settings) => *settings,
        Auth::None => panic!("it was asked for"),
    }
}

#[test]
fn the_defaults_of_access_are_those_of_the_contract_and_of_the_reference() {
    let HelseIdSettings {
        issuer,
        audience,
        scope,
        publish_scope,
        organisations,
        publishers,
        public_url,
        token_algorithms,
        proof_algorithms,
        clock_skew,
        proof_age_max,
        replays_max,
        keys_interval,
        keys_pause,
        explains,
    } = helseid(&HELSEID);
    assert_eq!(issuer, "https://sts.example.no");
    assert_eq!(organisations, Document::File("/o.json".into()));
    assert_eq!([audience, scope], ["nhn:msh", "nhn:msh/api"]);
    assert_eq!(publish_scope, "nhn:msh/notifications-publish");
    assert_eq!((publishers, public_url), (None, None));
    let proof = herald_auth::ProofRules::default();
    assert_eq!([&token_algorithms, &proof_algorithms], [&proof.algorithms; 2]);
    assert_eq!([clock_skew, proof_age_max], [proof.skew, proof.age_max]);
    assert_eq!(replays_max, herald_auth::REPLAYS_MAX);
    let keys = herald_auth::KeysSettings::default();
    assert_eq!([keys_interval, keys_pause], [keys.refresh_interval, keys.refresh_pause]);
    assert!(!explains);
}

#[test]
fn tokens_need_an_issuer_and_organisations_and_may_be_listened_for_anywhere() {
    let text = refusal(&["--auth", "helseid"]);
    assert!(text.contains("issuer: --auth helseid needs"), "{text}");
    assert!(text.contains("organisations: --auth helseid needs"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    helseid(&helseid_line("--listen", "0.0.0.0:8080"));
    let url = "https://registry.example.no/organisations";
    let registry = helseid(&helseid_line("--organisations", url));
    assert_eq!(registry.organisations, Document::Url(url.to_owned()));
    for (flag, value, text) in [
        ("--issuer", "http://sts.example.no", "http:// is for loopback only"),
        ("--issuer", "sts.example.no", "must be a URL"),
        ("--organisations", "http://registry.example.no", "http:// is for loopback only"),
        ("--organisations", "ftp://registry.example.no", "must begin with https://"),
        (
            "--organisations",
            "https://u:word@registry.example.no",
            "\"https://…@registry.example.no\"",
        ),
        ("--public-url", "notifications.example.no", "must be a URL"),
        ("--public-url", "https://a/?x", "without query"),
        ("--audience", "", "must be visible ASCII"),
        ("--scope", "a b", "must be visible ASCII"),
        ("--publish-scope", "a\"b", "must be visible ASCII"),
        ("--token-algorithms", "RS256,none", "must be some of"),
        ("--proof-algorithms", "HS256", "must be some of"),
        ("--proof-algorithms", "", "must be some of"),
        ("--auth", "Helseid", "must be none or helseid"),
        ("--auth", "none", "issuer: is set, and --auth is none"),
        ("--auth", "none", "organisations: is set, and --auth is none"),
    ] {
        let told = refusal(&helseid_line(flag, value));
        assert!(told.contains(text), "{flag} {value}: {told}");
    }
}

#[test]
fn help_names_each_variable_and_default_under_its_heading() {
    use clap::CommandFactory;
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        _args: Args,
    }
    let help = Cli::command().term_width(0).render_long_help().to_string();
    // Up to the next line without indentation, which is a heading.
    let section = |heading: &str| -> String {
        let lines = help.lines().skip_while(|line| *line != format!("{heading}:")).skip(1);
        lines.take_while(|line| line.is_empty() || line.starts_with(' ')).collect()
    };
    for &key in Key::ALL {
        let section = section(key.heading());
        assert!(section.contains(&format!("[env: {}]", key.environment_name())), "{key:?}");
        let shows_default = section.contains(&format!(
            "[env: {}] [default: {}]",
            key.environment_name(),
            key.default_text()
        ));
        assert_eq!(shows_default, !key.is_flag(), "{key:?}");
    }
}

#[test]
fn an_unknown_key_is_refused_naming_the_nearest_known_one() {
    for (slip, known) in [
        ("heart-beat", "heartbeat"),
        ("stall_timeout", "stall-timeout"),
        ("ops_listen", "ops-listen"),
        ("datadir", "data-dir"),
        ("retenton", "retention"),
        ("max-age", "stream-max-age"),
        ("level", "log-level"),
        ("bytes-max", "head-bytes-max"),
        ("lgo", "log"),
        ("drian", "drain"),
    ] {
        let error = read(&args(&[]), &[], Some(&format!("{slip} = \"1s\""))).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("{slip} is not a setting, did you mean {known}?")),
            "{text}"
        );
    }
    let error = read(&args(&[]), &[], Some("config = \"x\"")).unwrap_err().to_string();
    assert!(error.contains("config is not a setting"), "{error}");
    let error = read(&args(&[]), &[], Some("colour = \"x\"")).unwrap_err().to_string();
    assert!(error.ends_with("colour is not a setting"), "{error}");
}

#[test]
fn every_violation_is_told_at_once_and_where_it_was_written() {
    let environment = [("HERALD_HEARTBEAT", "never")];
    let config = "drain = 10\nstall-timeout = \"2h\"\nfoo = 1";
    let error = read(&args(&["--retention", "1y"]), &environment, Some(config)).unwrap_err();
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(text.contains("--retention \"1y\": must be a duration"), "{text}");
    assert!(text.contains("HERALD_HEARTBEAT \"never\": must be a duration"), "{text}");
    assert!(text.contains("drain must be a text, such as \"10s\""), "{text}");
    assert!(text.contains("stall-timeout \"2h\": must be from 100ms to 1h"), "{text}");
}

#[test]
fn what_cannot_be_read_is_not_told_a_second_time_with_what_it_stands_in_for() {
    // The default of --listen would be the same address.
    let text = refusal(&["--listen", "8080", "--ops-listen", "127.0.0.1:8080"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let text = refusal(&["--listen", "0.0.0.0:1", "--auth", "x", "--drain", "never"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    let text = refusal(&["--listen", "0.0.0.0:1", "--ops-listen", "0.0.0.0:1", "--drain", "never"]);
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn durations_have_bounds() {
    for (flag, inside, outside) in [
        ("--retention", ["1s", "36500d"], ["999ms", "36500d1ms"]),
        ("--heartbeat", ["10ms", "1h"], ["9ms", "1h1ms"]),
        ("--stall-timeout", ["100ms", "1h"], ["99ms", "1h1ms"]),
        ("--stream-max-age", ["1s", "7d"], ["999ms", "7d1ms"]),
        ("--head-timeout", ["1s", "10m"], ["999ms", "10m1ms"]),
        ("--idle-timeout", ["1s", "1h"], ["999ms", "1h1ms"]),
        ("--clock-skew", ["0s", "60s"], ["60001ms", "1h"]),
        ("--proof-age-max", ["0s", "5m"], ["301s", "1h"]),
        ("--keys-interval", ["1s", "1d"], ["999ms", "25h"]),
        ("--keys-pause", ["1s", "1h"], ["999ms", "2h"]),
        ("--upload-timeout", ["1s", "1h"], ["999ms", "1h1ms"]),
        ("--drain", ["0s", "1h"], ["1h1ms", "2h"]),
    ] {
        for value in inside {
            assert!(read(&args(&[flag, value]), &[], None).is_ok(), "{flag} {value}");
        }
        for value in outside {
            assert!(refusal(&[flag, value]).contains("must be from"), "{flag} {value}");
        }
    }
    assert_eq!(read(&args(&["--retention", "forever"]), &[], None).unwrap().retention, None);
}

#[test]
fn sizes_have_bounds() {
    for (flag, inside, outside) in [
        ("--head-bytes-max", ["32KiB", "1MiB"], ["32767B", "1048577B"]),
        ("--uploads-bytes-max", ["32MiB", "64GiB"], ["31MiB", "65GiB"]),
    ] {
        for value in inside {
            assert!(read(&args(&[flag, value]), &[], None).is_ok(), "{flag} {value}");
        }
        for value in outside {
            assert!(refusal(&[flag, value]).contains("must be from"), "{flag} {value}");
        }
    }
    assert!(refusal(&["--head-bytes-max", "65536"]).contains("must be a size such as"));
}

#[test]
fn counts_have_bounds() {
    for (flag, inside, outside) in [
        ("--connections-max", ["16", "1000000"], ["15", "1000001"]),
        ("--connections-per-address-max", ["1", "1000000"], ["0", "1000001"]),
        ("--http2-streams-max", ["1", "1000"], ["0", "1001"]),
        ("--http2-resets-max", ["1", "1000"], ["0", "1001"]),
        ("--client-requests-max", ["1", "1000000"], ["0", "1000001"]),
        ("--client-streams-max", ["1", "1000000"], ["0", "1000001"]),
        ("--replays-max", ["1000", "100000000"], ["999", "100000001"]),
    ] {
        for value in inside {
            assert!(read(&args(&[flag, value]), &[], None).is_ok(), "{flag} {value}");
        }
        for value in outside.into_iter().chain(["+20", "2e1", "", "many"]) {
            assert!(refusal(&[flag, value]).contains("must be a whole number"), "{flag} {value}");
        }
    }
}

#[test]
fn without_authentication_only_loopback_is_listened_on_unless_told_so() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"] {
        assert!(refusal(&["--listen", address]).contains("--insecure-no-auth"), "{address}");
        let told = args(&["--listen", address, "--insecure-no-auth"]);
        assert!(read(&told, &[], None).is_ok(), "{address}");
    }
    for address in ["127.0.0.1:0", "127.9.9.9:8080", "[::1]:8080", "localhost:8080"] {
        assert!(read(&args(&["--listen", address]), &[], None).is_ok(), "{address}");
    }
    let filed = read(&args(&["--listen", "0.0.0.0:1"]), &[], Some("insecure-no-auth = true"));
    assert!(filed.is_ok());
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    assert!(refusal(&["--log", "redis://127.0.0.1:4222"]).contains("must be local, nats://"));
    assert!(refusal(&["--auth", "basic"]).contains("must be none or helseid"));
    assert!(refusal(&["--log-level", "a=b=c"]).contains("must be error, warn"));
    assert!(refusal(&["--log-format", "xml"]).contains("must be auto, text or json"));
    assert!(refusal(&["--data-dir", ""]).contains("must name a directory"));
    assert!(refusal(&["--listen", "8080"]).contains("must be an address and a port"));
    assert!(refusal(&["--ops-listen", "127.0.0.1:8080"]).contains("must not be the address"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    assert!(refusal(&["--config", "/nowhere/herald.toml"]).contains("/nowhere/herald.toml"));
    let error = read(&args(&[]), &[], Some("listen = ")).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
    let by_variable = file("drain = \"3s\"");
    let settings = Settings::read(&Args::default(), |name| {
        (name == "HERALD_CONFIG").then(|| by_variable.path().into())
    });
    assert_eq!(settings.unwrap().drain, Duration::from_secs(3));
}

#[test]
fn tls_needs_a_certificate_and_its_key_and_issuers_of_clients_need_tls() {
    let pair = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];
    let tls = read(&args(&pair), &[], None).unwrap().tls.unwrap();
    assert_eq!(tls, TlsSettings::new("c.pem", "k.pem"));
    let with = [&pair[..], &["--tls-client-ca", "a.pem"]].concat();
    let tls = read(&args(&with), &[], None).unwrap().tls.unwrap();
    assert_eq!(tls.client_ca, Some("a.pem".into()));
    for half in [&pair[..2], &pair[2..]] {
        assert_eq!(refusal(half), "tls-cert, tls-key: both or neither");
    }
    let text = refusal(&["--tls-client-ca", "a.pem"]);
    assert!(text.starts_with("tls-client-ca: clients show certificates only over TLS"), "{text}");
    assert_eq!(refusal(&["--tls-cert", ""]), "--tls-cert \"\": must name a file, or none");
}
