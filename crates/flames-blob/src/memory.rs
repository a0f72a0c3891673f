//! Blobs in memory, gone with the process: for tests and for a first try on a laptop.

use crate::{
    Blob, BlobEntry, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ListLimit, Measure, Page, PutMode,
    PutOptions, verified,
};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const ADAPTER: &str = "memory";

/// The reference implementation of [`BlobStore`].
#[derive(Default)]
pub struct MemoryBlobStore {
    blobs: Mutex<BTreeMap<BlobKey, Stored>>,
}

#[derive(Clone)]
struct Stored {
    meta: BlobMeta,
    chunks: Vec<Bytes>,
}

impl MemoryBlobStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Damages a blob behind the store's back, for tests of what follows from it.
    pub fn rot(&self, key: &BlobKey) {
        if let Some(stored) = self.lock().get_mut(key) {
            stored.chunks.push(Bytes::from_static(b"rot"));
        }
    }

    /// A panic elsewhere cannot leave the map half-changed, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlobKey, Stored>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &BlobKey, operation: &'static str) -> Result<Stored> {
        self.lock().get(key).cloned().ok_or_else(|| error(ErrorKind::NotFound, key, operation))
    }

    fn insert(&self, key: &BlobKey, mode: PutMode, stored: Stored) -> Result<()> {
        let mut blobs = self.lock();
        if mode == PutMode::CreateOnly && blobs.contains_key(key) {
            return Err(error(ErrorKind::AlreadyExists, key, "put"));
        }
        blobs.insert(key.clone(), stored);
        Ok(())
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn put(&self, key: &BlobKey, options: PutOptions, mut body: ByteStream) -> Result<BlobMeta> {
        let mut measure = Measure::default();
        let mut chunks = Vec::new();
        while let Some(chunk) = body.try_next().await? {
            measure.update(key, &chunk)?;
            chunks.push(chunk);
        }
        let size = measure.size();
        let sha256 = measure.finish_as(key, options.expected_sha256)?;
        let meta = BlobMeta { size, sha256, modified: SystemTime::now() };
        self.insert(key, options.mode, Stored { meta: meta.clone(), chunks })?;
        Ok(meta)
    }

    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        let Stored { meta, chunks } = self.find(key, "get")?;
        let body = match range {
            Some(range) => chunk_stream(cut(&chunks, range.within(meta.size)?)),
            None => verified(chunk_stream(chunks), key, ADAPTER, &meta),
        };
        Ok(Blob { meta, body })
    }

    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        Ok(self.find(key, "head")?.meta)
    }

    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        let blobs = self.lock();
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let mut matching = blobs
            .range((start, Bound::Unbounded))
            .filter(|(key, _)| under.is_none_or(|under| key.lies_beneath(under)))
            .map(|(key, stored)| entry(key, &stored.meta));
        let entries: Vec<_> = matching.by_ref().take(limit.get()).collect();
        let next = matching.next().and_then(|_| entries.last().map(|last| last.key.clone()));
        Ok(Page { entries, next })
    }

    async fn delete(&self, key: &BlobKey) -> Result<()> {
        self.lock().remove(key);
        Ok(())
    }

    /// A put keeps nothing outside its own future: there are no leftovers.
    async fn collect_garbage(&self, _older_than: Duration) -> Result<u64> {
        Ok(0)
    }
}

impl fmt::Debug for MemoryBlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBlobStore").field("blobs", &self.lock().len()).finish()
    }
}

fn error(kind: ErrorKind, key: &BlobKey, operation: &'static str) -> Error {
    Error::new(kind, "blob", key.as_str()).operation(operation).adapter(ADAPTER)
}

fn entry(key: &BlobKey, meta: &BlobMeta) -> BlobEntry {
    BlobEntry { key: key.clone(), size: meta.size, modified: meta.modified }
}

fn chunk_stream(chunks: Vec<Bytes>) -> ByteStream {
    stream::iter(chunks.into_iter().map(Ok)).boxed()
}

/// The parts of the chunks that lie in `range`, without copying.
fn cut(chunks: &[Bytes], range: Range<u64>) -> Vec<Bytes> {
    let mut offset = 0_u64;
    let mut parts = Vec::new();
    for chunk in chunks {
        let inside = |position: u64| position.saturating_sub(offset).min(chunk.len() as u64);
        let (start, end) = (inside(range.start), inside(range.end));
        if let (Ok(start), Ok(end), true) = (usize::try_from(start), usize::try_from(end), start < end) {
            parts.push(chunk.slice(start..end));
        }
        offset += chunk.len() as u64;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cut_over_chunks_is_the_cut_of_the_whole(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            start in 0_usize..80,
            length in 0_usize..80,
        ) {
            let whole = chunks.concat();
            let start = start.min(whole.len());
            let end = (start + length).min(whole.len());
            let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
            prop_assert_eq!(cut(&chunks, start as u64..end as u64).concat(), &whole[start..end]);
        }
    }
}
