//! What the calls take and give.

use crate::{BlobKey, ByteStream, Sha256};
use flames_provider::{Error, ErrorKind, Result};
use std::fmt;
use std::time::SystemTime;

/// Largest blob: 5 GiB.
pub const MAX_BLOB_BYTES: u64 = 5 << 30;
/// Most entries of a page.
pub const MAX_LIST_ENTRIES: usize = 1000;

/// What is known of a blob without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobMeta {
    /// Bytes.
    pub size: u64,
    /// Hash of the whole blob.
    pub sha256: Sha256,
    /// When it was put, by the backend's clock; some backends keep whole seconds only.
    pub modified: SystemTime,
}

/// A blob on its way out.
pub struct Blob {
    /// Of the whole blob, also when only a range was asked for.
    pub meta: BlobMeta,
    /// The bytes asked for.
    pub body: ByteStream,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// How a blob is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOptions {
    /// What happens to a blob that is there already.
    pub mode: PutMode,
    /// The hash that the body must have. An adapter may upload with less work when it knows it.
    pub expected_sha256: Option<Sha256>,
    /// What the blob must survive once it is acknowledged.
    pub durability: Durability,
}

/// What a blob must survive once it is acknowledged. It is whole or not there in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A loss of power.
    #[default]
    Power,
    /// The end of the process, however it ends. A loss of power within the next seconds may take the blob with it, or
    /// leave a [`crate::ErrorKind::Corrupt`] one. For what is many and worth little: waiting for the disk would cost
    /// more than the blob.
    Process,
}

/// What a put does about a blob that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutMode {
    /// Refuses. Of several puts at once exactly one succeeds.
    CreateOnly,
    /// Takes its place. Of several puts at once the last one to end stays.
    Replace,
}

impl PutOptions {
    /// Fails if the key is taken.
    pub const CREATE_ONLY: Self =
        Self { mode: PutMode::CreateOnly, expected_sha256: None, durability: Durability::Power };
    /// Overwrites.
    pub const REPLACE: Self =
        Self { mode: PutMode::Replace, expected_sha256: None, durability: Durability::Power };

    /// The body must have this hash.
    #[must_use]
    pub fn expecting(self, sha256: Sha256) -> Self {
        Self { expected_sha256: Some(sha256), ..self }
    }

    /// The blob needs to survive only so much. An adapter may keep it better than it must.
    #[must_use]
    pub fn surviving(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }
}

/// A blob in a list. Its hash is known to [`crate::BlobStore::head`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub key: BlobKey,
    /// Bytes.
    pub size: u64,
    /// When it was put, by the backend's clock.
    pub modified: SystemTime,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Ordered by key; may be fewer than asked for although more follow.
    pub entries: Vec<BlobEntry>,
    /// Where the next page starts (its `after`); `None` at the end.
    pub next: Option<BlobKey>,
}

/// How many entries a page may have: 1 to [`MAX_LIST_ENTRIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimit(usize);

impl ListLimit {
    /// The largest page.
    pub const MAX: Self = Self(MAX_LIST_ENTRIES);

    /// # Errors
    /// `InvalidInput` for 0 or more than [`MAX_LIST_ENTRIES`].
    pub fn new(entries: usize) -> Result<Self> {
        if (1..=MAX_LIST_ENTRIES).contains(&entries) {
            return Ok(Self(entries));
        }
        let detail = format!("a page has 1 to {MAX_LIST_ENTRIES} entries");
        Err(Error::new(ErrorKind::InvalidInput, "list limit", entries.to_string()).detail(detail))
    }

    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_1000_entries() {
        assert!(ListLimit::new(0).is_err());
        assert_eq!(ListLimit::new(1000).unwrap(), ListLimit::MAX);
        assert!(ListLimit::new(1001).is_err());
    }
}
