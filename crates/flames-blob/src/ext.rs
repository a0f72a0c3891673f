//! What can be said with the interface's required methods: whole blobs in memory, and files.

use crate::{BlobKey, BlobMeta, BlobStore, ByteStream, PutOptions};
use async_trait::async_trait;
use bytes::Bytes;
use flames_provider::{Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt, stream};
use std::io;
use std::path::Path;
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

/// Sugar for every [`BlobStore`].
#[async_trait]
pub trait BlobStoreExt: BlobStore {
    /// Puts bytes that are in memory anyway.
    ///
    /// # Errors
    /// As [`BlobStore::put`].
    async fn put_bytes(&self, key: &BlobKey, options: PutOptions, bytes: Bytes) -> Result<BlobMeta> {
        self.put(key, options, stream::iter([Ok(bytes)]).boxed()).await
    }

    /// Reads a whole blob of at most `limit` bytes into memory.
    ///
    /// # Errors
    /// As [`BlobStore::get`]; `InvalidInput` when it is larger, before anything is read.
    async fn get_bytes(&self, key: &BlobKey, limit: u64) -> Result<Bytes> {
        let blob = self.get(key, None).await?;
        if blob.meta.size > limit {
            return Err(too_large(self.adapter(), key, blob.meta.size, limit));
        }
        gather(blob.body).await
    }

    /// Puts the content of a file, in constant memory.
    ///
    /// # Errors
    /// As [`BlobStore::put`]; `NotFound` and the like when the file cannot be read.
    async fn put_file(&self, key: &BlobKey, options: PutOptions, path: &Path) -> Result<BlobMeta> {
        let file = File::open(path).await.map_err(|source| file_error(path, source))?;
        let owned = path.to_owned();
        let chunks =
            ReaderStream::with_capacity(file, CHUNK_BYTES).map_err(move |source| file_error(&owned, source));
        self.put(key, options, chunks.boxed()).await
    }

    /// Writes a blob to `path`, in constant memory. The file appears whole, checked and durable, or not at
    /// all; one that is there already is replaced.
    ///
    /// # Errors
    /// As [`BlobStore::get`]; `NotFound` and the like when the file cannot be written.
    async fn get_to_file(&self, key: &BlobKey, path: &Path) -> Result<BlobMeta> {
        let blob = self.get(key, None).await?;
        let temporary = write_beside(path, blob.body).await?;
        temporary.persist(path).map_err(|failed| file_error(path, failed.error))?;
        Ok(blob.meta)
    }
}

impl<S: BlobStore + ?Sized> BlobStoreExt for S {}

/// Large enough that a system call per chunk does not show.
const CHUNK_BYTES: usize = 256 << 10;

async fn gather(body: ByteStream) -> Result<Bytes> {
    let whole = body.try_fold(Vec::new(), |mut whole, chunk| async move {
        whole.extend_from_slice(&chunk);
        Ok(whole)
    });
    Ok(whole.await?.into())
}

async fn write_beside(path: &Path, mut body: ByteStream) -> Result<TempPath> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(|source| file_error(path, source))?;
    let (file, temporary) = temporary.into_parts();
    let mut file = File::from_std(file);
    while let Some(chunk) = body.try_next().await? {
        file.write_all(&chunk).await.map_err(|source| file_error(path, source))?;
    }
    file.flush().await.map_err(|source| file_error(path, source))?;
    file.sync_all().await.map_err(|source| file_error(path, source))?;
    Ok(temporary)
}

fn too_large(adapter: &'static str, key: &BlobKey, size: u64, limit: u64) -> Error {
    let detail = format!("the blob has {size} bytes, the caller takes at most {limit}");
    Error::new(ErrorKind::InvalidInput, "blob", key.as_str()).operation("get").adapter(adapter).detail(detail)
}

fn file_error(path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "file", path.display().to_string()).source(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBlobStore;

    fn key() -> BlobKey {
        BlobKey::parse("a/b").unwrap()
    }

    async fn store_with(bytes: &'static [u8]) -> MemoryBlobStore {
        let store = MemoryBlobStore::default();
        store.put_bytes(&key(), PutOptions::CREATE_ONLY, Bytes::from_static(bytes)).await.unwrap();
        store
    }

    #[tokio::test]
    async fn a_blob_larger_than_the_caller_takes_is_refused() {
        let store = store_with(b"12345").await;
        assert_eq!(store.get_bytes(&key(), 5).await.unwrap(), "12345");
        assert_eq!(store.get_bytes(&key(), 4).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_file_goes_in_and_comes_out_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let content = vec![7; 3 * CHUNK_BYTES + 1];
        std::fs::write(&from, &content).unwrap();
        let store = MemoryBlobStore::default();
        let put = store.put_file(&key(), PutOptions::REPLACE, &from).await.unwrap();
        assert_eq!(store.get_to_file(&key(), &to).await.unwrap(), put);
        assert!(std::fs::read(&to).unwrap() == content);
    }

    #[tokio::test]
    async fn a_failed_download_leaves_no_file_and_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        std::fs::write(&to, "old").unwrap();
        let store = store_with(b"12345").await;
        store.rot(&key());
        assert_eq!(store.get_to_file(&key(), &to).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let path = Path::new("/does/not/exist");
        let error = MemoryBlobStore::default().put_file(&key(), PutOptions::REPLACE, path).await.unwrap_err();
        assert_eq!((error.kind(), error.id()), (ErrorKind::NotFound, "/does/not/exist"));
    }
}
