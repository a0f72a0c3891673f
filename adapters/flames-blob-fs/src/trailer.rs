//! The last 48 bytes of a blob's file.

use flames_blob::{BlobMeta, Sha256};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes behind the body.
pub(crate) const TRAILER_BYTES: u64 = 48;

const MAGIC: [u8; 8] = *b"flmblob1";

/// Magic, size (little endian), hash.
pub(crate) fn encode(size: u64, sha256: &Sha256) -> [u8; 48] {
    let mut trailer = [0; 48];
    trailer[..8].copy_from_slice(&MAGIC);
    trailer[8..16].copy_from_slice(&size.to_le_bytes());
    trailer[16..].copy_from_slice(sha256.as_bytes());
    trailer
}

/// What the file says of its blob; `None` when it is no whole blob.
pub(crate) fn read(file: &File) -> io::Result<Option<BlobMeta>> {
    let metadata = file.metadata()?;
    let Some(size) = metadata.len().checked_sub(TRAILER_BYTES) else { return Ok(None) };
    let mut trailer = [0; 48];
    file.read_exact_at(&mut trailer, size)?;
    decode(&trailer, size, &metadata)
}

fn decode(trailer: &[u8; 48], size: u64, metadata: &Metadata) -> io::Result<Option<BlobMeta>> {
    let mut hash = [0; 32];
    hash.copy_from_slice(&trailer[16..]);
    let sha256 = Sha256::from_bytes(hash);
    if encode(size, &sha256) != *trailer {
        return Ok(None);
    }
    Ok(Some(BlobMeta { size, sha256, modified: metadata.modified()? }))
}
