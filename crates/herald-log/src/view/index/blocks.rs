//! A file of blocks that bear checksums: whatever small piece is read, all of it was checked.

use std::{io, path::Path, sync::Arc};

use crate::{
    ReadError,
    disk::{Access, File},
    frame,
};

/// The bytes of a block in the file.
const BLOCK_BYTES: usize = 4096;
/// What of it is payload; the rest is the checksum.
const PAYLOAD_BYTES: usize = BLOCK_BYTES - 4;

/// `payload` cut into blocks, the last one filled with zeros.
pub(crate) fn in_blocks(payload: &[u8], salt: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len().div_ceil(PAYLOAD_BYTES) * BLOCK_BYTES);
    for (number, piece) in (0_u64..).zip(payload.chunks(PAYLOAD_BYTES)) {
        let at = out.len();
        out.extend_from_slice(piece);
        out.resize(at + PAYLOAD_BYTES, 0);
        let checksum = checksum(salt, number, &out[at..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }
    out
}

/// The number counts in, so that a block cannot stand for another.
fn checksum(salt: u64, number: u64, payload: &[u8]) -> u32 {
    frame::checksum(salt, &[&number.to_le_bytes(), payload])
}

pub(super) struct Blocks {
    file: Arc<dyn File>,
    file_len: u64,
    salt: u64,
}

pub(super) enum BlocksError {
    Io(io::Error),
    Damaged { at: u64 },
}

impl BlocksError {
    /// As an error of the file at `path`.
    pub(super) fn of(self, path: &Path) -> ReadError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => ReadError::Io { path, source },
            Self::Damaged { at } => {
                ReadError::Damaged { path, at, what: "a block's checksum is wrong" }
            }
        }
    }
}

impl Blocks {
    pub(super) fn new(file: Arc<dyn File>, salt: u64) -> Result<Self, BlocksError> {
        let file_len = file.len().map_err(BlocksError::Io)?;
        Ok(Self { file, file_len, salt })
    }

    /// How many bytes of payload there are, with the zeros that fill the last block.
    pub(super) fn len(&self) -> usize {
        self.count() * PAYLOAD_BYTES
    }

    fn count(&self) -> usize {
        usize::try_from(self.file_len / BLOCK_BYTES as u64).unwrap_or(usize::MAX / BLOCK_BYTES)
    }

    /// `len` bytes of payload from `at` on.
    pub(super) fn read(
        &self,
        at: usize,
        len: usize,
        access: Access,
    ) -> Result<Vec<u8>, BlocksError> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let blocks = at / PAYLOAD_BYTES..(at + len).div_ceil(PAYLOAD_BYTES);
        let start = at - blocks.start * PAYLOAD_BYTES;
        let mut bytes = vec![0; blocks.len() * BLOCK_BYTES];
        let from = (blocks.start * BLOCK_BYTES) as u64;
        access.read(&*self.file, &mut bytes, from).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BlocksError::Damaged { at: from },
            _ => BlocksError::Io(error),
        })?;
        let mut read = Vec::with_capacity(len);
        let mut skip = start;
        for (block, number) in bytes.chunks_exact(BLOCK_BYTES).zip(blocks) {
            let (payload, sum) = block.split_at(PAYLOAD_BYTES);
            if frame::u32_at(sum, 0) != checksum(self.salt, number as u64, payload) {
                return Err(BlocksError::Damaged { at: (number * BLOCK_BYTES) as u64 });
            }
            let end = PAYLOAD_BYTES.min(skip + len - read.len());
            read.extend_from_slice(&payload[skip..end]);
            skip = 0;
        }
        Ok(read)
    }

    /// Reads and checks every block.
    pub(super) fn check(&self) -> Result<(), BlocksError> {
        if !self.file_len.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(BlocksError::Damaged { at: self.file_len });
        }
        for number in 0..self.count() {
            self.read(number * PAYLOAD_BYTES, PAYLOAD_BYTES, Access::Disk)?;
        }
        Ok(())
    }
}
