use herald_http::metrics::Metrics;

use crate::serving::{Config, Serving, ask};

#[tokio::test]
async fn readiness_follows_the_phases_and_says_why_not() {
    let serving = Serving::starting(&Config::default());
    let starting = ask(serving.ops, "/health/ready").await;
    assert!(starting.starts_with("HTTP/1.1 503 "), "{starting}");
    assert!(starting.contains("retry-after: 1\r\n"), "{starting}");
    assert!(starting.ends_with(r#"{"status":"not-ready","reason":"starting"}"#), "{starting}");

    let serving = Serving::start(&Config::default());
    let ready = ask(serving.ops, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(ready.ends_with(r#"{"status":"ready"}"#), "{ready}");

    serving.lifecycle.stop();
    let stopping = ask(serving.ops, "/health/ready").await;
    assert!(stopping.starts_with("HTTP/1.1 503 "), "{stopping}");
    assert!(stopping.contains("retry-after: 10\r\n"), "{stopping}");
    assert!(stopping.ends_with(r#"{"status":"not-ready","reason":"stopping"}"#), "{stopping}");
}

#[tokio::test]
async fn liveness_is_200_in_every_phase() {
    let starting = Serving::starting(&Config::default());
    assert!(ask(starting.ops, "/health/live").await.starts_with("HTTP/1.1 200 "));
    let serving = Serving::start(&Config::default());
    assert!(ask(serving.ops, "/health/live").await.starts_with("HTTP/1.1 200 "));
    serving.lifecycle.stop();
    assert!(ask(serving.ops, "/health/live").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_metrics_that_the_contract_names_are_there_from_the_start() {
    let serving = Serving::starting(&Config::default());
    let answer = ask(serving.ops, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    for name in [
        "herald_open_streams",
        "herald_tail_offset",
        "herald_trim_offset",
        "herald_replica_lag",
        "herald_log_poisoned",
    ] {
        assert!(answer.contains(&format!("\n{name} 0\n")), "{name}: {answer}");
        assert!(answer.contains(&format!("\n# HELP {name} ")), "{name}: {answer}");
    }
}

#[tokio::test]
async fn every_metric_begins_with_herald_and_is_described() {
    let serving = Serving::start(&Config::default());
    ask(serving.api, "/ping").await;
    ask(serving.api, "/notifications?HerIds=8139764&Offset=0").await;
    let text = Metrics::install().render(&serving.lifecycle);
    let mut described = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            described = help.split_once(' ').unwrap().0;
        } else if !line.starts_with('#') && !line.is_empty() {
            assert!(line.starts_with("herald_"), "{line}");
            assert!(line.starts_with(described) && !described.is_empty(), "no help: {line}");
            assert!(!line.contains("8139764"), "a HER-id: {line}");
        }
    }
}

#[tokio::test]
async fn the_operations_port_has_no_api_and_the_api_port_no_operations() {
    let serving = Serving::start(&Config::default());
    assert!(ask(serving.ops, "/ping").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(serving.api, "/metrics").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(serving.api, "/health/ready").await.starts_with("HTTP/1.1 404 "));
}
