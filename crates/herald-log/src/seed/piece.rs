//! Some records on their way from one log into another: what becomes one frame there.

use crate::{
    frame::{
        FRAME_BYTES_MAX, Frame, HEADER_BYTES, Header, RECORD_HEADER_BYTES, RecordAt, length, link,
        record_checksum,
    },
    order::engine::Place,
};

/// Small frames are joined up to so many bytes, so that a log of many small batches is seeded at the speed of its bytes; and
/// large ones are cut.
pub(crate) const PIECE_BYTES_MAX: usize = 1 << 20;
/// Frames are joined whose times are less than this apart. A frame has one time, the newest; retention may so come late by as
/// much, and must still hide a notification within 10 s: it looks every 5 s, at times that are told apart by seconds.
pub(crate) const PIECE_TIME_MAX_MS: u64 = 3000;

/// Records with offsets one after the other. None at all: the offset that the next one has.
pub(crate) struct Piece {
    pub(crate) first_offset: u64,
    trim_point: u64,
    from_ms: u64,
    time_ms: u64,
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    pub(crate) records: Vec<RecordAt>,
}

impl Piece {
    pub(crate) fn new(first_offset: u64, trim_point: u64, time_ms: u64) -> Self {
        let (bytes, records) = (vec![0; HEADER_BYTES], Vec::new());
        Self { first_offset, trim_point, from_ms: time_ms, time_ms, bytes, records }
    }

    /// Whether it may have this record, of a frame with this time, too.
    pub(crate) fn has_room(&self, record: &RecordAt, time_ms: u64) -> bool {
        let record_bytes = RECORD_HEADER_BYTES + record.body_bytes as usize;
        self.bytes.len() + record_bytes <= PIECE_BYTES_MAX
            && time_ms - self.from_ms < PIECE_TIME_MAX_MS
    }

    /// Adds a record that stands in the frame `bytes`.
    pub(crate) fn push(&mut self, record: &RecordAt, bytes: &[u8], time_ms: u64, salt: u64) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&bytes[record.at as usize..record.body_range().end]);
        let copied = &mut self.bytes[at..];
        let checksum = record_checksum(salt, record.offset, copied);
        copied[0..4].copy_from_slice(&checksum.to_le_bytes());
        self.records.push(RecordAt { at: length(at), ..*record });
        self.time_ms = time_ms;
    }

    /// The body of one of its records.
    pub(crate) fn body(&self, record: &RecordAt) -> &[u8] {
        &self.bytes[record.body_range()]
    }

    /// The frame right behind `after`.
    pub(crate) fn into_frame(mut self, after: Place, batch_id: u128, salt: u64) -> Frame {
        assert!(self.bytes.len() <= FRAME_BYTES_MAX, "a piece is smaller than a frame");
        let header = Header {
            bytes: length(self.bytes.len()),
            count: length(self.records.len()),
            batch_id,
            position: after.position.next(),
            first_offset: self.first_offset,
            trim_point: self.trim_point,
            time_ms: self.time_ms,
            safe_through: link(after.batch_id),
        };
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.encode(salt));
        Frame { header, bytes: self.bytes.into(), records: self.records }
    }
}
