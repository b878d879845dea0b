//! What the log counts. Handles are made once, so that counting costs an atomic addition.

use herald_types::{Draft, NotificationType};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::{AppendError, Appended};

const APPENDS: &str = "herald_appends_total";
const APPEND_SECONDS: &str = "herald_log_append_seconds";
const SYNC_SECONDS: &str = "herald_log_sync_seconds";
const BATCH_RECORDS: &str = "herald_log_batch_records";
const BATCH_BYTES: &str = "herald_log_batch_bytes";
const CONFLICTS: &str = "herald_log_conflicts_total";
const WAKES: &str = "herald_wakes_total";
const RECENT_READS: &str = "herald_recent_reads_total";
const BYTES: &str = "herald_log_bytes";
const SEGMENTS: &str = "herald_log_segments";
const RECEIVERS: &str = "herald_log_receivers";

/// Says what each of the log's metrics means. Call it once, when the recorder is in place.
pub fn describe_metrics() {
    describe_counter!(
        APPENDS,
        "Drafts by type and outcome: stored, duplicate, conflict (its id is stored with other content, or another \
         draft's of its request), refused (nothing happened) or unknown (it may still appear)."
    );
    describe_histogram!(
        APPEND_SECONDS,
        Unit::Seconds,
        "From handing a batch to the order until it is safe and visible."
    );
    describe_histogram!(SYNC_SECONDS, Unit::Seconds, "One sync of the disk.");
    describe_histogram!(BATCH_RECORDS, "Records of one batch: what shared one sync.");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes of one batch.");
    describe_counter!(
        CONFLICTS,
        "Batches that another replica's came before; they were numbered again and tried again."
    );
    crate::order::condition::describe();
    describe_counter!(WAKES, "Streams woken because something new came for them.");
    describe_counter!(
        RECENT_READS,
        "Reads by result: hit (answered from recent memory) or miss (the disk was asked)."
    );
    describe_gauge!(BYTES, Unit::Bytes, "Bytes of the segment files, reserved room included.");
    describe_gauge!(SEGMENTS, "Segment files.");
    describe_gauge!(RECEIVERS, "Receivers that have a notification.");
}

/// Drafts by type and outcome.
pub(crate) struct AppendMeters {
    stored: [Counter; NotificationType::ALL.len()],
    duplicate: [Counter; NotificationType::ALL.len()],
    conflict: [Counter; NotificationType::ALL.len()],
    refused: [Counter; NotificationType::ALL.len()],
    unknown: [Counter; NotificationType::ALL.len()],
}

impl AppendMeters {
    pub(crate) fn new() -> Self {
        let by_type = |outcome: &'static str| {
            NotificationType::ALL
                .map(|kind| counter!(APPENDS, "type" => kind.as_str(), "outcome" => outcome))
        };
        Self {
            stored: by_type("stored"),
            duplicate: by_type("duplicate"),
            conflict: by_type("conflict"),
            refused: by_type("refused"),
            unknown: by_type("unknown"),
        }
    }

    pub(crate) fn count(
        &self,
        kinds: &[NotificationType],
        outcome: &Result<Vec<Appended>, AppendError>,
    ) {
        for (at, kind) in kinds.iter().enumerate() {
            let counters = match outcome {
                Ok(answers) if answers[at].duplicate => &self.duplicate,
                Ok(_) => &self.stored,
                Err(AppendError::ContentDiffers { .. }) => &self.conflict,
                Err(error) if error.is_refused() => &self.refused,
                Err(_) => &self.unknown,
            };
            counters[*kind as usize].increment(1);
        }
    }
}

/// The types of a request's drafts, in their order.
pub(crate) fn kinds_of(drafts: &[Draft]) -> Vec<NotificationType> {
    drafts.iter().map(|draft| draft.kind).collect()
}

/// Batches and whom they woke.
pub(crate) struct BatchMeters {
    pub(crate) append_seconds: Histogram,
    pub(crate) records: Histogram,
    pub(crate) bytes: Histogram,
    pub(crate) wakes: Counter,
    pub(crate) conflicts: Counter,
}

impl BatchMeters {
    pub(crate) fn new() -> Self {
        Self {
            append_seconds: histogram!(APPEND_SECONDS),
            records: histogram!(BATCH_RECORDS),
            bytes: histogram!(BATCH_BYTES),
            wakes: counter!(WAKES),
            conflicts: counter!(CONFLICTS),
        }
    }
}

/// Where reads were answered from.
pub(crate) struct ReadMeters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
}

impl ReadMeters {
    pub(crate) fn new() -> Self {
        let read = |result| counter!(RECENT_READS, "result" => result);
        Self { hits: read("hit"), misses: read("miss") }
    }
}

/// What is on disk.
pub(crate) struct HeldMeters {
    pub(crate) bytes: Gauge,
    pub(crate) segments: Gauge,
    pub(crate) receivers: Gauge,
}

impl HeldMeters {
    pub(crate) fn new() -> Self {
        Self { bytes: gauge!(BYTES), segments: gauge!(SEGMENTS), receivers: gauge!(RECEIVERS) }
    }
}

/// How long syncs of the real disk take.
pub(crate) fn sync_seconds() -> Histogram {
    histogram!(SYNC_SECONDS)
}

/// A size as metrics take it.
#[expect(clippy::cast_precision_loss, reason = "exact to 2^53, and nothing here is larger")]
pub(crate) const fn size(size: usize) -> f64 {
    size as f64
}
