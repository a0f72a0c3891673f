//! A memory store that breaks one promise of your choice.

use async_trait::async_trait;
use bytes::Bytes;
use flames_blob::{
    Blob, BlobEntry, BlobKey, BlobMeta, BlobStore, BlobStoreExt, ByteRange, ByteStream, ErrorKind, ListLimit,
    MAX_BLOB_BYTES, MemoryBlobStore, Page, PutMode, PutOptions, Result,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    IgnoresCreateOnly,
    ChecksThenWrites,
    IgnoresExpectedHash,
    ServesDamagedBlobs,
    ShowsUnfinishedBlobs,
    KeepsFailedBodies,
    LosesTheLastChunk,
    ShiftsRanges,
    IgnoresRanges,
    ListsBackwards,
    RepeatsAtPageBreaks,
    CountsInsteadOfKeys,
    ListsNeighbours,
    IgnoresTheLimit,
    RefusesToDeleteNothing,
    NeverDeletes,
    KeepsTheOldTail,
    HeadsAnotherSize,
    CollectsBlobs,
    NeverRunsOutOfGarbage,
    ReadsInTwoSteps,
}

#[derive(Debug)]
pub(crate) struct BrokenBlobStore {
    inner: Arc<MemoryBlobStore>,
    fault: Option<Fault>,
}

impl BrokenBlobStore {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self { inner: Arc::default(), fault }
    }

    pub(crate) fn rot(&self, key: &BlobKey) {
        self.inner.rot(key);
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn broken_options(&self, options: PutOptions) -> PutOptions {
        match self.fault {
            Some(Fault::IgnoresCreateOnly | Fault::ChecksThenWrites | Fault::ShowsUnfinishedBlobs) => {
                PutOptions { mode: PutMode::Replace, ..options }
            }
            Some(Fault::IgnoresExpectedHash) => PutOptions { expected_sha256: None, ..options },
            _ => options,
        }
    }

    async fn broken_body(&self, key: &BlobKey, body: ByteStream) -> Result<ByteStream> {
        Ok(match self.fault {
            Some(Fault::KeepsFailedBodies) => {
                body.take_while(|chunk| std::future::ready(chunk.is_ok())).boxed()
            }
            Some(Fault::LosesTheLastChunk) => {
                let mut chunks: Vec<Bytes> = body.try_collect().await?;
                chunks.retain(|chunk| !chunk.is_empty());
                chunks.pop();
                stream::iter(chunks.into_iter().map(Ok)).boxed()
            }
            Some(Fault::KeepsTheOldTail) => {
                let new =
                    body.try_fold(Vec::new(), |all, chunk| async move { Ok([all, chunk.to_vec()].concat()) });
                let new = new.await?;
                let old = self.inner.get_bytes(key, MAX_BLOB_BYTES).await.unwrap_or_default();
                let tail = old.get(new.len()..).unwrap_or_default().to_vec();
                stream::iter([Ok(Bytes::from([new, tail].concat()))]).boxed()
            }
            _ => body,
        })
    }

    /// Stores what came so far after every chunk.
    async fn put_as_it_comes(
        &self,
        key: &BlobKey,
        options: PutOptions,
        mut body: ByteStream,
    ) -> Result<BlobMeta> {
        let mut whole = Vec::new();
        let options = PutOptions { expected_sha256: None, ..options };
        loop {
            let meta = self.inner.put_bytes(key, options, Bytes::from(whole.clone())).await?;
            match body.try_next().await? {
                Some(chunk) => whole.extend_from_slice(&chunk),
                None => return Ok(meta),
            }
        }
    }

    async fn refuse_if_there(&self, key: &BlobKey, mode: PutMode) -> Result<()> {
        if mode == PutMode::CreateOnly && self.inner.head(key).await.is_ok() {
            return self.inner.put_bytes(key, PutOptions::CREATE_ONLY, Bytes::new()).await.map(|_| ());
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // long enough for another to check too
        Ok(())
    }

    async fn all_entries(&self) -> Result<Vec<BlobEntry>> {
        Ok(self.inner.list(None, None, ListLimit::MAX).await?.entries)
    }

    async fn list_by_number(&self, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        let all = self.all_entries().await?;
        // Counts how many were listed, and forgets that some may be gone: as if nothing were ever deleted.
        let seen = all.iter().filter(|entry| after.is_some_and(|after| entry.key <= *after)).count();
        let skip = if after.is_some() { seen + 1 } else { 0 };
        let entries: Vec<_> = all.into_iter().skip(skip).take(limit.get()).collect();
        let next =
            (entries.len() == limit.get()).then(|| entries.last().map(|last| last.key.clone())).flatten();
        Ok(Page { entries, next })
    }
}

#[async_trait]
impl BlobStore for BrokenBlobStore {
    fn adapter(&self) -> &'static str {
        "broken"
    }

    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        if self.has(Fault::ChecksThenWrites) {
            self.refuse_if_there(key, options.mode).await?;
        }
        let body = self.broken_body(key, body).await?;
        if self.has(Fault::ShowsUnfinishedBlobs) {
            return self.put_as_it_comes(key, self.broken_options(options), body).await;
        }
        self.inner.put(key, self.broken_options(options), body).await
    }

    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        match (self.fault, range) {
            (Some(Fault::ServesDamagedBlobs), None) if self.inner.head(key).await?.size > 0 => {
                self.inner.get(key, Some(ByteRange::starting_at(0))).await
            }
            (Some(Fault::ReadsInTwoSteps), None) if self.inner.head(key).await?.size > 1 => {
                self.read_in_two_steps(key).await
            }
            (Some(Fault::ShiftsRanges), Some(range)) if range.start() > 0 => {
                self.inner.get(key, Some(ByteRange::starting_at(range.start() - 1))).await
            }
            (Some(Fault::IgnoresRanges), _) => self.inner.get(key, None).await,
            _ => self.inner.get(key, range).await,
        }
    }

    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        let meta = self.inner.head(key).await?;
        let more = u64::from(self.has(Fault::HeadsAnotherSize));
        Ok(BlobMeta { size: meta.size + more, ..meta })
    }

    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        match self.fault {
            Some(Fault::CountsInsteadOfKeys) => self.list_by_number(after, limit).await,
            Some(Fault::IgnoresTheLimit) => self.inner.list(under, after, ListLimit::MAX).await,
            Some(Fault::ListsNeighbours) => {
                let start = under.map_or("", BlobKey::as_str);
                let mut entries = self.all_entries().await?;
                entries.retain(|entry| entry.key.as_str().starts_with(start));
                Ok(Page { entries, next: None })
            }
            Some(Fault::ListsBackwards) => {
                let mut page = self.inner.list(under, after, limit).await?;
                page.entries.reverse();
                Ok(page)
            }
            Some(Fault::RepeatsAtPageBreaks) => {
                let mut page = self.inner.list(under, after, limit).await?;
                if let (Some(after), Some(first)) = (after, page.entries.first_mut()) {
                    first.key = after.clone();
                }
                Ok(page)
            }
            _ => self.inner.list(under, after, limit).await,
        }
    }

    async fn delete(&self, key: &BlobKey) -> Result<()> {
        match self.fault {
            Some(Fault::NeverDeletes) => Ok(()),
            Some(Fault::RefusesToDeleteNothing) => {
                self.inner.head(key).await?;
                self.inner.delete(key).await
            }
            _ => self.inner.delete(key).await,
        }
    }

    async fn collect_garbage(&self, _older_than: Duration) -> Result<u64> {
        if self.has(Fault::CollectsBlobs) {
            for entry in self.all_entries().await? {
                self.inner.delete(&entry.key).await?;
            }
        }
        Ok(u64::from(self.has(Fault::NeverRunsOutOfGarbage)))
    }
}

impl BrokenBlobStore {
    /// Looks the blob up again for its second half.
    async fn read_in_two_steps(&self, key: &BlobKey) -> Result<Blob> {
        let meta = self.inner.head(key).await?;
        let half = meta.size / 2;
        let first = self.inner.get(key, Some(ByteRange::new(0, half)?)).await?.body;
        let (inner, key) = (self.inner.clone(), key.clone());
        let second = stream::once(async move {
            tokio::time::sleep(Duration::from_millis(2)).await; // long enough for a writer to come between
            match inner.get(&key, Some(ByteRange::starting_at(half))).await {
                Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(stream::empty().boxed()),
                found => found.map(|blob| blob.body),
            }
        });
        Ok(Blob { meta, body: first.chain(second.try_flatten()).boxed() })
    }
}
