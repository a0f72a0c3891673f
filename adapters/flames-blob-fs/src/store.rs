//! The implementation of [`BlobStore`].

use crate::FsConfig;
use crate::error::{ADAPTER, blob_error, failed, path_failed, thread_lost};
use crate::incoming::{self, Incoming, Written};
use crate::layout::{Layout, sync_folder};
use crate::trailer;
use crate::walk::Walk;
use async_trait::async_trait;
use flames_blob::{
    Blob, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ErrorKind, ListLimit, Measure, Page, PutMode,
    PutOptions, Result, verified,
};
use futures::{StreamExt, TryStreamExt};
use std::fs::File;
use std::io::{self, SeekFrom};
use std::ops::Range;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

/// Blobs in a directory. Several processes may share it.
#[derive(Debug)]
pub struct FsBlobStore {
    layout: Layout,
}

/// Large enough that a system call per chunk does not show, small enough to hold many at once.
const CHUNK_BYTES: usize = 256 << 10;

impl FsBlobStore {
    /// Opens the directory, and makes it if it does not exist.
    ///
    /// # Errors
    /// `PermissionDenied` and the like, naming the directory.
    pub async fn open(config: FsConfig) -> Result<Self> {
        let root = config.root.clone();
        let create = move || Layout::create(&root).map_err(|source| path_failed(&root, "open", source));
        Ok(Self { layout: blocking("open", create).await? })
    }

    /// Takes the body in, not yet visible.
    async fn receive(
        &self,
        key: &BlobKey,
        options: PutOptions,
        mut body: ByteStream,
    ) -> Result<(Written, BlobMeta)> {
        let fail = |source| failed(key, "put", source);
        let mut incoming = self.create_incoming(key).await?;
        let mut measure = Measure::default();
        while let Some(chunk) = body.try_next().await? {
            for piece in chunk.chunks(CHUNK_BYTES) {
                measure.update(key, piece)?;
                incoming.write(piece).await.map_err(fail)?;
            }
        }
        let size = measure.size();
        let sha256 = measure.finish_as(key, options.expected_sha256)?;
        let written = incoming.written().await.map_err(fail)?;
        Ok((written, BlobMeta { size, sha256, modified: SystemTime::now() }))
    }

    async fn create_incoming(&self, key: &BlobKey) -> Result<Incoming> {
        let (folder, key) = (self.layout.incoming().to_owned(), key.clone());
        blocking("put", move || Incoming::create(&folder).map_err(|source| failed(&key, "put", source))).await
    }

    /// The file of a blob, and what it says of itself.
    async fn find(&self, key: &BlobKey, operation: &'static str) -> Result<(File, BlobMeta)> {
        let (path, key) = (self.layout.file(key), key.clone());
        let find =
            move || {
                let file = File::open(path).map_err(|source| failed(&key, operation, source))?;
                match trailer::read(&file).map_err(|source| failed(&key, operation, source))? {
                    Some(meta) => Ok((file, meta)),
                    None => Err(blob_error(ErrorKind::Corrupt, &key, operation)
                        .detail("the file has no valid trailer")),
                }
            };
        blocking(operation, find).await
    }
}

#[async_trait]
impl BlobStore for FsBlobStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        let target = self.layout.file(key);
        // Spares the body's way when the answer is known; the rename decides in any case.
        if options.mode == PutMode::CreateOnly && tokio::fs::try_exists(&target).await.unwrap_or(false) {
            return Err(taken(key));
        }
        let (written, meta) = self.receive(key, options, body).await?;
        let (layout, named) = (self.layout.clone(), key.clone());
        let publish = move || match written.publish(&layout, &target, &meta, options) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(&named)),
            published => published.map(|()| meta).map_err(|source| failed(&named, "put", source)),
        };
        blocking("put", publish).await
    }

    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        let (file, meta) = self.find(key, "get").await?;
        let part = range.map_or(Ok(0..meta.size), |range| range.within(meta.size))?;
        let body = read_part(file, part, key).await.map_err(|source| failed(key, "get", source))?;
        let body = if range.is_none() { verified(body, key, ADAPTER, &meta) } else { body };
        Ok(Blob { meta, body })
    }

    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        Ok(self.find(key, "head").await?.1)
    }

    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        let folder = self.layout.folder(under);
        let prefix = under.map(|under| format!("{under}/")).unwrap_or_default();
        let after = after.cloned();
        let walk = move || {
            let walk = Walk { after: after.as_ref(), limit: limit.get() };
            walk.page(&folder, &prefix).map_err(|source| path_failed(&folder, "list", source))
        };
        blocking("list", walk).await
    }

    async fn delete(&self, key: &BlobKey) -> Result<()> {
        let (layout, key) = (self.layout.clone(), key.clone());
        blocking("delete", move || remove(&layout, &key).map_err(|source| failed(&key, "delete", source)))
            .await
    }

    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        let folder = self.layout.incoming().to_owned();
        let collect = move || {
            let collected = incoming::collect(&folder, older_than, SystemTime::now());
            collected.map_err(|source| path_failed(&folder, "collect_garbage", source))
        };
        blocking("collect_garbage", collect).await
    }
}

fn taken(key: &BlobKey) -> flames_blob::Error {
    blob_error(ErrorKind::AlreadyExists, key, "put")
}

async fn read_part(file: File, part: Range<u64>, key: &BlobKey) -> io::Result<ByteStream> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(part.start)).await?;
    let chunks = ReaderStream::with_capacity(file.take(part.end - part.start), CHUNK_BYTES);
    let key = key.clone();
    Ok(chunks.map_err(move |source| failed(&key, "get", source)).boxed())
}

fn remove(layout: &Layout, key: &BlobKey) -> io::Result<()> {
    let file = layout.file(key);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    file.parent().map_or(Ok(()), sync_folder)?;
    layout.prune(&file);
    Ok(())
}

/// Runs system calls where they may block.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| thread_lost(operation, source))?
}
