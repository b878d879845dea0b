//! One batch to the byte: the same in a segment file, a message of an engine, a row of a table.
//!
//! docs/storage.md §3 has the table. Every checksum begins with a random salt that only the file (the stream, the
//! table) knows, so that no body can pass for a frame.

use bytes::Bytes;
use herald_types::{HerId, Offset, wire};
use uuid::Uuid;

use crate::order::Position;

/// The most bytes of a frame: a JSON request of 1000 drafts at their longest fits.
pub(crate) const FRAME_BYTES_MAX: usize = 7 << 20;
/// The bytes before the records.
pub(crate) const HEADER_BYTES: usize = 72;
/// The bytes of a record before its body.
pub(crate) const RECORD_HEADER_BYTES: usize = 28;
/// What a frame begins with; the digit is the format version.
pub(crate) const MAGIC: [u8; 4] = *b"HFR1";
/// The most digits that an offset adds to a body, with its name and the closing brace.
const BODY_END_BYTES_MAX: usize = r#""offset":9223372036854775807}"#.len();

/// A record that has no offset yet: the body up to the comma before it.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) notification_id: Uuid,
    pub(crate) receiver: HerId,
    pub(crate) body_start: Vec<u8>,
}

impl Prepared {
    /// The most bytes that this record takes in a frame.
    pub(crate) fn bytes_max(&self) -> usize {
        RECORD_HEADER_BYTES + self.body_start.len() + BODY_END_BYTES_MAX
    }
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its length with this header.
    pub(crate) bytes: u32,
    pub(crate) count: u32,
    pub(crate) batch_id: u128,
    /// 0 in an end mark, which has no place of its own.
    pub(crate) position: Position,
    /// The first record's offset; where there is none, the offset that the next record gets.
    pub(crate) first_offset: u64,
    /// The trim point from this frame on.
    pub(crate) trim_point: u64,
    /// Milliseconds since 1970, never less than the frame's before.
    pub(crate) time_ms: u64,
    /// In a file: the disk was synced up to this position when the frame was written. In an engine, where all that can be
    /// read is safe: [which batch](link) it stands right behind.
    pub(crate) safe_through: Position,
}

/// What an engine's frame says of the batch that it stands behind: half of that one's random id. So a follower notices
/// when the engine has taken back what it had, and has gone on.
pub(crate) fn link(batch_id: u128) -> Position {
    Position(u64::try_from(batch_id & u128::from(u64::MAX)).expect("it is half of it"))
}

impl Header {
    /// The offset that the next frame's first record gets.
    pub(crate) const fn next_offset(&self) -> u64 {
        self.first_offset + self.count as u64
    }

    /// Whether it only says that what stands before it was answered for.
    pub(crate) const fn is_end_mark(&self) -> bool {
        self.position.0 == 0
    }

    pub(crate) fn encode(&self, salt: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.batch_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_offset.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.trim_point.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.safe_through.0.to_le_bytes());
        let checksum = checksum(salt, &[&bytes[8..]]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header, or says why it is none.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], salt: u64) -> Result<Self, &'static str> {
        if bytes[0..4] != MAGIC {
            return Err("there is no frame");
        }
        if u32_at(bytes, 4) != checksum(salt, &[&bytes[8..]]) {
            return Err("the frame header's checksum is wrong");
        }
        let header = Self {
            bytes: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            batch_id: u128::from_le_bytes(array_at(bytes, 16)),
            position: Position(u64_at(bytes, 32)),
            first_offset: u64_at(bytes, 40),
            trim_point: u64_at(bytes, 48),
            time_ms: u64_at(bytes, 56),
            safe_through: Position(u64_at(bytes, 64)),
        };
        let fits = (HEADER_BYTES..=FRAME_BYTES_MAX).contains(&(header.bytes as usize))
            && Offset::new(header.first_offset)
                .is_some_and(|_| Offset::new(header.next_offset()).is_some());
        if fits { Ok(header) } else { Err("the frame header's numbers are impossible") }
    }

    /// The header of a whole frame as an engine stores it; its records have not been looked at.
    pub(crate) fn of_frame(bytes: &[u8], salt: u64) -> Result<Self, &'static str> {
        let header = bytes.first_chunk().ok_or("a frame header is cut short")?;
        let header = Self::decode(header, salt)?;
        if header.is_end_mark() || header.bytes as usize != bytes.len() {
            return Err("a frame is not as long as it says");
        }
        Ok(header)
    }
}

/// Where a record stands and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordAt {
    pub(crate) offset: u64,
    pub(crate) receiver: HerId,
    pub(crate) notification_id: Uuid,
    /// The first byte of its header, counted from the frame's first.
    pub(crate) at: u32,
    pub(crate) body_bytes: u32,
}

impl RecordAt {
    /// The body among the bytes of its frame.
    pub(crate) fn body_range(&self) -> std::ops::Range<usize> {
        let start = self.at as usize + RECORD_HEADER_BYTES;
        start..start + self.body_bytes as usize
    }
}

/// A whole frame: its bytes, and where its records are among them.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) bytes: Bytes,
    pub(crate) records: Vec<RecordAt>,
}

/// What the sequencer decides about a batch; the rest of a frame's header follows from its place.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: u128,
    pub(crate) first_offset: u64,
    pub(crate) trim_point: u64,
    pub(crate) time_ms: u64,
    pub(crate) records: Vec<Prepared>,
}

impl Batch {
    /// Writes the frame.
    pub(crate) fn encode(&self, position: Position, safe_through: Position, salt: u64) -> Frame {
        let bytes_max: usize = self.records.iter().map(Prepared::bytes_max).sum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + bytes_max);
        bytes.resize(HEADER_BYTES, 0);
        let mut records = Vec::with_capacity(self.records.len());
        for (prepared, offset) in self.records.iter().zip(self.first_offset..) {
            let at = bytes.len();
            bytes.resize(at + RECORD_HEADER_BYTES, 0);
            bytes.extend_from_slice(&prepared.body_start);
            wire::finish_body(
                &mut bytes,
                Offset::new(offset).expect("offsets end in 292 million years"),
            );
            let body_bytes = length(bytes.len() - at - RECORD_HEADER_BYTES);
            let record = &mut bytes[at..];
            record[4..8].copy_from_slice(&prepared.receiver.get().to_le_bytes());
            record[8..12].copy_from_slice(&body_bytes.to_le_bytes());
            record[12..28].copy_from_slice(prepared.notification_id.as_bytes());
            let checksum = record_checksum(salt, offset, record);
            record[0..4].copy_from_slice(&checksum.to_le_bytes());
            let (receiver, notification_id) = (prepared.receiver, prepared.notification_id);
            records.push(RecordAt {
                offset,
                receiver,
                notification_id,
                at: length(at),
                body_bytes,
            });
        }
        let header = Header {
            bytes: length(bytes.len()),
            count: length(records.len()),
            batch_id: self.id,
            position,
            first_offset: self.first_offset,
            trim_point: self.trim_point,
            time_ms: self.time_ms,
            safe_through,
        };
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode(salt));
        assert!(bytes.len() <= FRAME_BYTES_MAX, "the sequencer bounds a group");
        Frame { header, bytes: bytes.into(), records }
    }
}

impl Frame {
    /// Reads a whole frame as an engine stores it.
    pub(crate) fn decode(bytes: Bytes, salt: u64) -> Result<Self, &'static str> {
        let header = Header::of_frame(&bytes, salt)?;
        let records = decode_records(&header, &bytes, salt)?;
        Ok(Self { header, bytes, records })
    }

    /// The same batch as a file keeps it: under the file's salt, saying what its disk has synced, and with a trim point
    /// that is not below `trim_point`.
    pub(crate) fn kept(&self, salt: u64, safe_through: Position, trim_point: u64) -> Self {
        let mut bytes = self.bytes.to_vec();
        for record in &self.records {
            let start = record.at as usize;
            let record_bytes =
                &mut bytes[start..start + RECORD_HEADER_BYTES + record.body_bytes as usize];
            let checksum = record_checksum(salt, record.offset, record_bytes);
            record_bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
        }
        let trim_point = self.header.trim_point.max(trim_point);
        let header = Header { safe_through, trim_point, ..self.header };
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode(salt));
        Self { header, bytes: bytes.into(), records: self.records.clone() }
    }
}

/// The mark behind an answered frame when nothing else waits: then the end is known to have been answered for.
pub(crate) fn end_mark(last: &Header, salt: u64) -> [u8; HEADER_BYTES] {
    Header {
        bytes: length(HEADER_BYTES),
        count: 0,
        batch_id: 0,
        position: Position(0),
        first_offset: last.next_offset(),
        safe_through: last.position,
        ..*last
    }
    .encode(salt)
}

/// Finds and checks the records of a frame whose header is good.
pub(crate) fn decode_records(
    header: &Header,
    bytes: &[u8],
    salt: u64,
) -> Result<Vec<RecordAt>, &'static str> {
    let mut records =
        Vec::with_capacity((header.count as usize).min(bytes.len() / RECORD_HEADER_BYTES));
    let mut at = HEADER_BYTES;
    for offset in header.first_offset..header.next_offset() {
        let record = bytes.get(at..).ok_or("a record is cut short")?;
        let (record_at, record_bytes) = decode_record(record, offset, salt)?;
        records.push(RecordAt { at: length(at), ..record_at });
        at += record_bytes;
    }
    if at == bytes.len() { Ok(records) } else { Err("there are bytes behind the last record") }
}

/// Checks the record at the beginning of `bytes` and says how many of them it has.
pub(crate) fn decode_record(
    bytes: &[u8],
    offset: u64,
    salt: u64,
) -> Result<(RecordAt, usize), &'static str> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Err("a record is cut short");
    }
    let body_bytes = u32_at(bytes, 8);
    let record_bytes = RECORD_HEADER_BYTES + body_bytes as usize;
    let record = bytes.get(..record_bytes).ok_or("a record is cut short")?;
    if u32_at(record, 0) != record_checksum(salt, offset, record) {
        return Err("a record's checksum is wrong");
    }
    let receiver = HerId::new(u32_at(record, 4)).ok_or("a record's receiver is impossible")?;
    let notification_id = Uuid::from_bytes(array_at(record, 12));
    Ok((RecordAt { offset, receiver, notification_id, at: 0, body_bytes }, record_bytes))
}

/// CRC-32C over salt and parts.
pub(crate) fn checksum(salt: u64, parts: &[&[u8]]) -> u32 {
    let salted = crc32c::crc32c(&salt.to_le_bytes());
    parts.iter().fold(salted, |sum, part| crc32c::crc32c_append(sum, part))
}

/// The offset counts in, so that a record cannot stand for another.
pub(crate) fn record_checksum(salt: u64, offset: u64, record: &[u8]) -> u32 {
    checksum(salt, &[&offset.to_le_bytes(), &record[4..]])
}

/// A length within a frame or a page of an index, which fits by [`FRAME_BYTES_MAX`].
pub(crate) fn length(len: usize) -> u32 {
    u32::try_from(len).expect("lengths within a segment fit 32 bits")
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn prepared(number: u64, receiver: u32, description: &str) -> Prepared {
        let draft = herald_types::Draft {
            notification_id: None,
            related_message_id: Uuid::from_u128(number.into()),
            kind: herald_types::NotificationType::NewMessage,
            receiver: HerId::new(receiver).unwrap(),
            triggered_by: None,
            description: Some(description.to_owned()),
        };
        let notification_id = Uuid::from_u128(u128::from(number) << 64 | 7);
        let body_start = wire::body_start(&draft, notification_id, "2026-05-08T08:32:15.31+00:00");
        Prepared { notification_id, receiver: draft.receiver, body_start }
    }

    fn batch(descriptions: &[String], first_offset: u64) -> Batch {
        let records = descriptions.iter().zip(1..);
        let records = records.map(|(text, number)| prepared(number, 5, text)).collect();
        Batch { id: 9, first_offset, trim_point: first_offset - 1, time_ms: 11, records }
    }

    fn decode(bytes: &[u8], salt: u64) -> Result<(Header, Vec<RecordAt>), &'static str> {
        let header = bytes.first_chunk().ok_or("short")?;
        let header = Header::decode(header, salt)?;
        let frame = bytes.get(..header.bytes as usize).ok_or("short")?;
        Ok((header, decode_records(&header, frame, salt)?))
    }

    #[test]
    fn a_json_request_at_its_longest_fits_a_frame() {
        let longest = "\0".repeat(herald_types::DESCRIPTION_CHARS_MAX);
        let bytes = prepared(u64::MAX >> 1, HerId::MAX.get(), &longest).bytes_max() + 20;
        assert!(HEADER_BYTES + herald_types::draft::DRAFTS_MAX * bytes <= FRAME_BYTES_MAX);
    }

    #[test]
    fn an_end_mark_is_a_header_without_a_place() {
        let frame = batch(&["x".to_owned()], 8).encode(Position(3), Position(2), 1);
        let mark = Header::decode(&end_mark(&frame.header, 1), 1).unwrap();
        assert!(mark.is_end_mark() && !frame.header.is_end_mark());
        assert_eq!((mark.safe_through, mark.next_offset()), (Position(3), 9));
    }

    proptest! {
        #[test]
        fn a_frame_reads_back(
            descriptions in proptest::collection::vec(".{0,40}", 0..5),
            first_offset in 1_u64..1 << 40,
            salt: u64,
        ) {
            let frame = batch(&descriptions, first_offset).encode(Position(4), Position(3), salt);
            let (header, records) = decode(&frame.bytes, salt).unwrap();
            prop_assert_eq!(header, frame.header);
            prop_assert_eq!(&records, &frame.records);
            for record in records {
                let body: herald_types::Notification =
                    serde_json::from_slice(&frame.bytes[record.body_range()]).unwrap();
                prop_assert_eq!(body.offset.get(), record.offset);
                prop_assert_eq!(body.notification_id, record.notification_id);
            }
        }

        #[test]
        fn any_cut_or_flipped_byte_or_other_salt_is_noticed(
            descriptions in proptest::collection::vec(".{0,40}", 0..3),
            at: prop::sample::Index,
            flip in 1_u8..,
            salt: u64,
        ) {
            let frame = batch(&descriptions, 5).encode(Position(4), Position(3), salt);
            let mut bytes = frame.bytes.to_vec();
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at], salt).is_err());
            prop_assert!(decode(&bytes, salt ^ 1).is_err());
            bytes[at] ^= flip;
            prop_assert!(decode(&bytes, salt).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes, 0);
            let _ = decode_record(&bytes, 1, 0);
        }
    }
}
