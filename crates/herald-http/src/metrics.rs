//! Every metric's name, in one place, with what it means. Labels are bounded sets, never HER-ids.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use herald_feed::OpenStreams;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{access::ACCESS, admission::Admission, lifecycle::Lifecycle, limited::Limit};

/// Streams that are open now.
pub const OPEN_STREAMS: &str = "herald_open_streams";
/// The newest offset visible here.
pub const TAIL_OFFSET: &str = "herald_tail_offset";
/// The newest offset that retention has removed.
pub const TRIM_OFFSET: &str = "herald_trim_offset";
/// Batches of the order that this replica has not applied yet.
pub const REPLICA_LAG: &str = "herald_replica_lag";
/// 1 after a failed write or sync.
pub const LOG_POISONED: &str = "herald_log_poisoned";
/// How far the slowest reader is behind the tail, in offsets.
pub const STREAM_LAG_OFFSETS: &str = "herald_stream_lag_offsets";
/// For how long the most stalled reader has taken nothing of what waits for it.
pub const STREAM_STALLED_SECONDS: &str = "herald_stream_stalled_seconds";
/// Streams that are open now, by source system.
pub const SOURCE_SYSTEM_STREAMS: &str = "herald_source_system_streams";
/// 1 when `/health/ready` is 200.
pub const READY: &str = "herald_ready";
/// 1, with the version as a label.
pub const BUILD_INFO: &str = "herald_build_info";
/// Answers, by route, method and status.
pub const HTTP_REQUESTS: &str = "herald_http_requests_total";
/// From a request's head to its answer's head, by route.
pub const HTTP_REQUEST_SECONDS: &str = "herald_http_request_seconds";
pub(crate) const HTTP_REQUEST_SECONDS_HELP: &str =
    "From a request's head to its answer's head, by route.";
/// Connections that are open now.
pub const HTTP_CONNECTIONS: &str = "herald_http_connections";
/// How many connections there may be.
pub const HTTP_CONNECTIONS_MAX: &str = "herald_http_connections_max";
/// What the bodies of requests have of the memory that they share.
pub const UPLOAD_BYTES: &str = "herald_upload_bytes";
/// Times that a peer met a limit.
pub const LIMITED: &str = "herald_limited_total";
/// Connections, and streams of HTTP/2 connections, cut because their reader took nothing.
pub const HTTP_STALLED: &str = "herald_http_stalled_total";
/// Tries to accept a connection that failed for want of file descriptors or memory.
pub const HTTP_ACCEPT_ERRORS: &str = "herald_http_accept_errors_total";

/// Calls that were not let in, by the check that failed.
pub const AUTH_REFUSED: &str = "herald_auth_refused_total";
/// Used proofs that are remembered now.
pub const AUTH_REPLAYS: &str = "herald_auth_replays";
/// 1 for each way in which the server is open to whoever is near.
pub const INSECURE: &str = "herald_insecure";
/// TLS handshakes, by outcome.
pub const TLS_HANDSHAKES: &str = "herald_tls_handshakes_total";
/// Changes of the files of TLS, by whether they are in force.
pub const TLS_RELOADS: &str = "herald_tls_reloads_total";
/// When the certificate that is served expires.
pub const TLS_CERTIFICATE_EXPIRY: &str = "herald_tls_certificate_expiry_timestamp_seconds";

/// Where seconds are counted: from a poll answered from memory to a sync on a busy disk.
pub(crate) const SECONDS_BUCKETS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// Where records are counted: from none to the largest group.
const COUNT_BUCKETS: [f64; 12] =
    [0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10000.0];
/// Where bytes are counted: from one record to the largest batch.
const BYTES_BUCKETS: [f64; 8] =
    [500.0, 2_000.0, 8_000.0, 32_000.0, 128_000.0, 512_000.0, 2_000_000.0, 8_000_000.0];

/// How often histograms are tidied when nobody scrapes: samples wait in memory until then.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The process's metrics. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    streams: Option<OpenStreams>,
    admission: Option<Arc<Admission>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Collects the metrics of this process from now on; later calls give the same.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the buckets are constants and not empty")]
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Metrics> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                let recorder = PrometheusBuilder::new()
                    .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
                    .and_then(|builder| {
                        builder.set_buckets_for_metric(
                            Matcher::Suffix("_bytes".into()),
                            &BYTES_BUCKETS,
                        )
                    })
                    .and_then(|builder| builder.set_buckets(&COUNT_BUCKETS))
                    .expect("the buckets are not empty")
                    .build_recorder();
                let handle = recorder.handle();
                // Another recorder can only be a test's own: then nothing is collected here.
                let _ = metrics::set_global_recorder(recorder);
                describe();
                Self { handle, streams: None, admission: None }
            })
            .clone()
    }

    /// The same metrics, which from now on also tell of `streams`.
    #[must_use]
    pub fn telling_of(self, streams: OpenStreams) -> Self {
        Self { streams: Some(streams), ..self }
    }

    /// The same metrics, which from now on also tell of who is let in.
    #[must_use]
    pub fn telling_of_admission(self, admission: Arc<Admission>) -> Self {
        Self { admission: Some(admission), ..self }
    }

    /// From now on tells whether nobody is asked who they are, and whether what is said can be read on the way.
    pub fn tell_insecure(&self, no_auth: bool, plain_http: bool) {
        for (what, is_so) in [("no-auth", no_auth), ("plain-http", plain_http)] {
            gauge!(INSECURE, "what" => what).set(f64::from(u8::from(is_so)));
        }
    }

    /// The text that Prometheus reads; the gauges of `lifecycle` and of the streams are set first.
    #[must_use]
    pub fn render(&self, lifecycle: &Lifecycle) -> String {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
        if let Some(log) = lifecycle.log() {
            gauge!(TAIL_OFFSET).set(log.tail().get() as f64);
            gauge!(TRIM_OFFSET).set(log.trim_point().get() as f64);
            gauge!(LOG_POISONED).set(f64::from(u8::from(log.is_poisoned())));
        }
        gauge!(READY).set(f64::from(u8::from(lifecycle.readiness().is_ok())));
        if let (Some(streams), Some(log)) = (&self.streams, lifecycle.log()) {
            let lag = streams.lag(log.tail());
            #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
            gauge!(STREAM_LAG_OFFSETS).set(lag.offsets_max as f64);
            gauge!(STREAM_STALLED_SECONDS).set(lag.stalled_max.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact to 2^53")]
        if let Some(replays) = self.admission.as_ref().and_then(|admission| admission.replays()) {
            gauge!(AUTH_REPLAYS).set(replays as f64);
        }
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        ACCESS.write_seconds(&mut text);
        if let Some(streams) = &self.streams {
            write_source_systems(&streams.by_source_system(), &mut text);
        }
        text
    }

    /// Tidies up for ever, so that memory stays bounded when nobody scrapes.
    pub async fn keep_up(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Writes the streams of each source system that has any.
///
/// By hand: a gauge of the recorder is kept for ever, and the names come from callers. What is open is bounded.
fn write_source_systems(counts: &[(Arc<str>, usize)], text: &mut String) {
    if counts.is_empty() {
        return;
    }
    text.push_str(&format!(
        "# HELP {SOURCE_SYSTEM_STREAMS} Streams that are open now, by source system.\n\
         # TYPE {SOURCE_SYSTEM_STREAMS} gauge\n"
    ));
    for (name, count) in counts {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        text.push_str(&format!("{SOURCE_SYSTEM_STREAMS}{{source_system=\"{name}\"}} {count}\n"));
    }
    text.push('\n');
}

fn describe() {
    describe_gauge!(OPEN_STREAMS, "Streams that are open now.");
    describe_gauge!(TAIL_OFFSET, "The newest offset visible here, 0 when there is none.");
    describe_gauge!(TRIM_OFFSET, "The newest offset that retention has removed, 0 for none.");
    describe_gauge!(
        LOG_POISONED,
        "1 after a failed write or sync: no append is taken until the process is started again."
    );
    describe_gauge!(READY, "1 when /health/ready is 200.");
    describe_gauge!(BUILD_INFO, "1; the version is a label.");
    describe_counter!(HTTP_REQUESTS, "Answers, by route, method and status.");
    describe_gauge!(HTTP_CONNECTIONS, "Connections that are open now, by port.");
    describe_gauge!(HTTP_CONNECTIONS_MAX, "How many connections there may be, by port.");
    describe_gauge!(
        UPLOAD_BYTES,
        Unit::Bytes,
        "What the bodies of requests have of the memory that they share, --uploads-max."
    );
    describe_counter!(LIMITED, "Times that a peer met a limit, by limit.");
    describe_counter!(
        HTTP_STALLED,
        "Connections, and streams of HTTP/2 connections, cut because their reader took nothing for \
         --stall-timeout."
    );
    describe_counter!(
        HTTP_ACCEPT_ERRORS,
        "Tries to accept a connection that failed for want of file descriptors or memory."
    );
    describe_gauge!(
        herald_auth::DOCUMENT_CURRENT,
        "1 when the organisations, or the publishers, that are in force are those at their source."
    );
    describe_gauge!(AUTH_REPLAYS, "Used proofs that are remembered now.");
    describe_counter!(AUTH_REFUSED, "Calls that were not let in, by the check that failed.");
    describe_counter!(
        herald_auth::KEY_FETCHES,
        "Fetches of the token issuer's keys, by outcome: fetched or failed."
    );
    describe_counter!(
        herald_auth::DOCUMENT_READS,
        "Readings of the organisations and the publishers that changed them, or failed, by outcome."
    );
    describe_gauge!(
        INSECURE,
        "1 for no-auth with --insecure-no-auth, and for plain-http when the API listens beyond loopback without TLS."
    );
    describe_counter!(
        TLS_HANDSHAKES,
        "TLS handshakes, by outcome: done, failed, gone (the peer went away), slow (it took too long)."
    );
    describe_counter!(
        TLS_RELOADS,
        "Changes of the files of TLS, by outcome: loaded, or refused and the last good ones kept."
    );
    describe_gauge!(
        TLS_CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "When the certificate that is served expires, in seconds since 1970."
    );
    describe_counter!("herald_problems_total", "Problems answered, by type and status.");
    describe_counter!(
        "herald_polls_total",
        "Polls answered, by what the answer held: empty, part of a page, or a full page."
    );
    describe_histogram!("herald_poll_notifications", "Notifications of one poll's answer.");
    describe_counter!("herald_events_sent_total", "Notifications handed to streams.");
    describe_counter!("herald_heartbeats_sent_total", "Heartbeats handed to streams.");
    describe_counter!(
        "herald_stream_wakeups_total",
        "Times that a stream looked because it was woken, not because of its heartbeat."
    );
    describe_gauge!(
        STREAM_LAG_OFFSETS,
        "How far the slowest reader that has not taken all is behind the tail, in offsets."
    );
    describe_gauge!(
        STREAM_STALLED_SECONDS,
        Unit::Seconds,
        "For how long the most stalled reader has taken nothing of what waits for it."
    );
    herald_log::describe_metrics();
    // What must be there before anything has happened.
    gauge!(OPEN_STREAMS).set(0.0);
    gauge!(TAIL_OFFSET).set(0.0);
    gauge!(TRIM_OFFSET).set(0.0);
    gauge!(LOG_POISONED).set(0.0);
    // An alert on the first one needs the zero before it.
    counter!(HTTP_STALLED).increment(0);
    counter!(HTTP_ACCEPT_ERRORS).increment(0);
    for limit in Limit::ALL {
        limit.met_by(0);
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_systems_name_cannot_break_out_of_its_label() {
        let mut text = String::new();
        write_source_systems(&[(Arc::from("EPJ \"1\\2\"\n"), 3)], &mut text);
        let line = text.lines().nth(2).unwrap();
        assert_eq!(line, r#"herald_source_system_streams{source_system="EPJ \"1\\2\"\n"} 3"#);
    }
}
