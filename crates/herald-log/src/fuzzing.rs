//! What the fuzzer may call: bytes whose checksums are made right first, or it would never get behind them.

use std::{io, path::Path, sync::Arc};

use herald_types::HerId;

use crate::{
    disk::{Access, File},
    frame::{self, Header},
    view::{
        index::{FileIndex, Index, in_blocks},
        segment::{self, Marks, scan},
    },
};

struct Bytes(Vec<u8>);

impl File for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let bytes = at.checked_add(buffer.len()).and_then(|end| self.0.get(at..end));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Reads any bytes as a frame whose header is right, and as a segment's frames.
pub fn frame(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= frame::HEADER_BYTES {
        bytes[0..4].copy_from_slice(&frame::MAGIC);
        let checksum = frame::checksum(0, &[&bytes[8..frame::HEADER_BYTES]]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        let header = bytes.first_chunk().expect("it is long enough");
        if let Ok(header) = Header::decode(header, 0)
            && let Some(frame) = bytes.get(..header.bytes as usize)
        {
            let _ = frame::decode_records(&header, frame, 0);
        }
    }
    let header = segment::Header { salt: 0, log_id: uuid::Uuid::nil(), start: Marks::START };
    let mut file = header.encode().to_vec();
    file.extend_from_slice(&bytes);
    let _ = scan(&Bytes(file), &header, |_, _, _, _| {});
}

/// Reads any bytes as an index whose blocks are right, and asks it everything.
pub fn index(payload: &[u8]) {
    let file = Arc::new(Bytes(in_blocks(payload, 0)));
    let Ok(index) = FileIndex::open(Path::new("index"), file, 0, Marks::START) else { return };
    let mut receivers = Vec::new();
    let index = Index::File(Arc::new(index));
    index.newest(|receiver, _| receivers.push(receiver));
    receivers.extend(HerId::new(1));
    receivers.sort_unstable();
    let _ = index.times();
    let _ = index.find_id(uuid::Uuid::nil());
    let _ = crate::view::merge::first(&index, &receivers, Some(3), u64::MAX, 1000, Access::Disk);
}
