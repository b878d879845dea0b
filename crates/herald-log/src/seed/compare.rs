//! What an engine holds of a source: read from its first batch on, record by record beside the source's.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{piece::Piece, source::Source};
use crate::{
    OpenError,
    frame::{Frame, link},
    order::{Position, engine::Place},
};

/// How far an engine holds what the source has.
pub(crate) struct Held {
    /// Its last batch that was compared.
    pub(crate) at: Place,
    /// The newest of the source's offsets that it has.
    pub(crate) offset: u64,
    /// How many of the source's records it has.
    pub(crate) records: u64,
    /// Where its log goes on, once it has all of them and the batch that says so.
    pub(crate) next_offset: Option<u64>,
    time_ms: u64,
    least_offset: u64,
}

/// Why an engine's log is not the beginning of this seed.
pub(crate) enum Unlike {
    Source(OpenError),
    Engine(String),
}

impl From<OpenError> for Unlike {
    fn from(error: OpenError) -> Self {
        Self::Source(error)
    }
}

/// Compares batches as they come.
pub(crate) struct Comparison {
    pieces: mpsc::Receiver<Result<Piece, OpenError>>,
    piece: Option<(Piece, usize)>,
    salt: u64,
    trim_point: u64,
    tail: u64,
    pub(crate) held: Held,
}

impl Comparison {
    pub(crate) fn new(source: &Source, salt: u64) -> Self {
        let held = Held {
            at: Place { position: Position(0), batch_id: 0 },
            offset: source.trim_point,
            records: 0,
            next_offset: None,
            time_ms: 0,
            least_offset: 1,
        };
        // Its checksums are of no use here.
        let pieces = source.pieces(0, 0);
        let (trim_point, tail) = (source.trim_point, source.tail());
        Self { pieces, piece: None, salt, trim_point, tail, held }
    }

    /// Whether the source's next record is there; reads ahead to it.
    async fn peek(&mut self) -> Result<bool, Unlike> {
        loop {
            match &self.piece {
                Some((piece, at)) if *at < piece.records.len() => return Ok(true),
                _ => match self.pieces.recv().await {
                    Some(piece) => self.piece = Some((piece?, 0)),
                    None => return Ok(false),
                },
            }
        }
    }

    /// Compares the batch at `position`, which must be the next one.
    pub(crate) async fn add(&mut self, position: Position, bytes: Bytes) -> Result<(), Unlike> {
        let wrong = |what: &str| Unlike::Engine(format!("its batch at position {position} {what}"));
        let frame = Frame::decode(bytes, self.salt)
            .map_err(|what| wrong(&format!("is not as it was written: {what}")))?;
        let header = frame.header;
        if position != self.held.at.position.next() || header.position != position {
            return Err(wrong("is out of place"));
        }
        if header.safe_through != link(self.held.at.batch_id) {
            return Err(wrong("does not stand behind the one before it"));
        }
        if header.first_offset < self.held.least_offset || header.time_ms < self.held.time_ms {
            return Err(wrong("goes back"));
        }
        for record in &frame.records {
            if !self.peek().await? {
                return Err(wrong("has more than the directory"));
            }
            let (piece, at) = self.piece.as_mut().expect("it was just looked at");
            let ours = piece.records[*at];
            let is_same = ours.offset == record.offset
                && ours.receiver == record.receiver
                && ours.notification_id == record.notification_id
                && piece.body(&ours) == &frame.bytes[record.body_range()];
            if !is_same {
                return Err(wrong(&format!(
                    "has another notification at offset {}",
                    record.offset
                )));
            }
            *at += 1;
            self.held.offset = record.offset;
            self.held.records += 1;
        }
        if header.count == 0 && !self.peek().await? {
            let next_offset = header.first_offset;
            let trim_point = if self.held.records == 0 { next_offset - 1 } else { self.trim_point };
            if next_offset <= self.tail || header.trim_point != trim_point {
                return Err(wrong("ends the seed elsewhere"));
            }
            self.held.next_offset = Some(next_offset);
        }
        self.held.at = Place { position, batch_id: header.batch_id };
        self.held.least_offset = header.next_offset();
        self.held.time_ms = header.time_ms;
        Ok(())
    }
}
