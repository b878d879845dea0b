//! What the API's handlers share.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use herald_feed::OpenStreams;
use herald_types::{Grant, Offset};
use http::{HeaderMap, HeaderName, HeaderValue};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::{sync::watch, task::spawn_blocking, time::Instant};
use tracing::info;

use crate::{
    admission::Admission,
    edge::Edge,
    lifecycle::Lifecycle,
    limits::{ClientLimits, Clients},
    upload::Rooms,
};
pub use crate::{
    compression::COMPRESSED_BYTES_MIN,
    extract::{API_VERSION, SOURCE_SYSTEM_CHARS_MAX},
    request_id::REQUEST_ID_CHARS_MAX,
    routes::append::{
        JSON_BYTES_MAX, LINE_BYTES_MAX, LINES_MAX, NDJSON_DRAFTS_MAX, PIECE_BYTES_MAX,
        PIECE_DRAFTS_MAX,
    },
    upload::{
        LINGER_BYTES_MAX, LINGER_MAX, ROOM_KEPT_MIN, ROOM_WAIT_MAX, UPLOAD_PAUSE_MAX,
        UPLOAD_TIMEOUT, UPLOADS_BYTES_MAX,
    },
};

/// The part of its largest age that a stream reaches at least: streams opened together do not end together.
const STREAM_AGE_MIN: f64 = 0.8;

const UNTIL_HEADER: HeaderName = HeaderName::from_static("herald-until");
const TAIL_HEADER: HeaderName = HeaderName::from_static("herald-tail");
const TRIM_HEADER: HeaderName = HeaderName::from_static("herald-trim");
const HISTORY_HEADER: HeaderName = HeaderName::from_static("herald-history");

/// How the API answers.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// How often a silent stream says how far it has looked.
    pub heartbeat: Duration,
    /// How old a stream may become; each ends between 0.8 and 1.0 of it.
    pub stream_max_age: Duration,
    /// Whom it lets in. Shared: who looks after grants holds it too.
    pub admission: Arc<Admission>,
    /// How long the server waits for a request's body in all; [`UPLOAD_TIMEOUT`].
    pub upload_timeout: Duration,
    /// How much memory the bodies of all requests may have, at least [`JSON_BYTES_MAX`]; [`UPLOADS_BYTES_MAX`].
    pub uploads_bytes_max: usize,
    /// What one client may ask for.
    pub clients: ClientLimits,
    /// Whether an append needs a connection whose client has shown a certificate.
    pub append_needs_certificate: bool,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            stream_max_age: Duration::from_secs(60 * 60),
            admission: Arc::new(Admission::Everybody(Grant::everything())),
            upload_timeout: UPLOAD_TIMEOUT,
            uploads_bytes_max: UPLOADS_BYTES_MAX,
            clients: ClientLimits::default(),
            append_needs_certificate: false,
        }
    }
}

/// The API of one server: what its handlers share.
#[derive(Debug)]
pub struct Api {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) streams: OpenStreams,
    pub(crate) settings: ApiSettings,
    pub(crate) metrics: ApiMetrics,
    pub(crate) edge: Edge,
    pub(crate) limits: Clients,
    pub(crate) rooms: Rooms,
    history: OnceLock<HeaderValue>,
}

/// Handles made once: making one costs a lookup.
#[derive(Debug)]
pub(crate) struct ApiMetrics {
    pub(crate) polls_empty: Counter,
    pub(crate) polls_part: Counter,
    pub(crate) polls_full: Counter,
    pub(crate) poll_notifications: Histogram,
}

impl Api {
    /// The API behind `lifecycle`. Install the metrics recorder first: the handles are made here. Call it inside a
    /// runtime: it waits there for a stop, to move the ends of the streams.
    #[must_use]
    pub fn new(lifecycle: Lifecycle, streams: OpenStreams, settings: ApiSettings) -> Self {
        let polls = |answer: &'static str| counter!("herald_polls_total", "answer" => answer);
        let metrics = ApiMetrics {
            polls_empty: polls("empty"),
            polls_part: polls("part"),
            polls_full: polls("full"),
            poll_notifications: histogram!("herald_poll_notifications"),
        };
        let (stopping, draining) = (lifecycle.clone(), streams.clone());
        // Ends with the stop; nobody needs its handle.
        tokio::spawn(async move {
            let drain = stopping.stop_begun().await;
            draining.drain(drain.stream_end_window());
        });
        if let Some(organisations) = settings.admission.organisations() {
            // Ends with the process; nobody needs its handle.
            tokio::spawn(recheck(organisations.changes(), streams.clone()));
        }
        let (edge, history) = (Edge::new(), OnceLock::new());
        let limits = Clients::new(settings.clients);
        let rooms = Rooms::new(settings.uploads_bytes_max.max(JSON_BYTES_MAX));
        Self { lifecycle, streams, settings, metrics, edge, limits, rooms, history }
    }

    /// The clients, and what each has used of its requests and streams.
    #[must_use]
    pub const fn limits(&self) -> &Clients {
        &self.limits
    }

    /// When a stream that begins now ends at the latest.
    pub(crate) fn stream_ends_at(&self) -> Instant {
        let part = rand::random_range(STREAM_AGE_MIN..1.0);
        Instant::now() + self.settings.stream_max_age.mul_f64(part)
    }

    /// Adds `herald-history`.
    pub(crate) fn name_history(&self, log: &herald_log::Log, headers: &mut HeaderMap) {
        let history = self.history.get_or_init(|| {
            HeaderValue::try_from(log.history().to_string()).expect("a UUID is visible ASCII")
        });
        headers.insert(HISTORY_HEADER, history.clone());
    }

    /// Adds `herald-history`, `herald-tail` and `herald-trim`, as they are now.
    pub(crate) fn name_place(&self, log: &herald_log::Log, headers: &mut HeaderMap) {
        headers.insert(TAIL_HEADER, HeaderValue::from(log.tail().get()));
        headers.insert(TRIM_HEADER, HeaderValue::from(log.trim_point().get()));
        self.name_history(log, headers);
    }
}

/// Ends the streams that have lost a HER-id, at each change of what is granted.
async fn recheck(mut changes: watch::Receiver<()>, streams: OpenStreams) {
    while changes.changed().await.is_ok() {
        let streams = streams.clone();
        // Ten thousand streams of 1500 receivers are a second's work.
        let ended = spawn_blocking(move || streams.recheck()).await.unwrap_or_default();
        info!(ended, "looked at what streams may see");
    }
}

/// Adds `herald-until`.
pub(crate) fn name_until(until: Offset, headers: &mut HeaderMap) {
    headers.insert(UNTIL_HEADER, HeaderValue::from(until.get()));
}
