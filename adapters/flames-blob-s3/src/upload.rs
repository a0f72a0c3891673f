//! Puts: in one request, straight through, or by way of a spool file.

use crate::error::{blob_error, failed, spool_failed};
use crate::store::{Names, attributes};
use bytes::{Bytes, BytesMut};
use flames_blob::{BlobKey, BlobMeta, ByteStream, ErrorKind, Measure, PutMode, PutOptions, Result, Sha256};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMultipartOptions, PutPayload};
use serde::{Deserialize, Serialize};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Size of an upload's parts but the last: S3 wants at least 5 MiB and takes at most 10,000 of them.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at the same time. With one being filled, a put holds five parts at most.
const PARTS_AT_ONCE: usize = 4;

/// Makes objects of bodies.
#[derive(Debug)]
pub(crate) struct Uploads {
    client: Arc<AmazonS3>,
    /// The same, with the header that makes a completion refuse a name that is taken.
    create_only: Arc<AmazonS3>,
    names: Names,
    spool: PathBuf,
}

/// What is known of a multipart upload: kept as an object until it ended, so that another process can abort
/// it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    object: String,
    upload_id: String,
}

/// A body cut into parts, measured as it goes by.
struct Parts<'a> {
    body: ByteStream,
    /// What came with the last chunk and did not fit the part.
    rest: Bytes,
    key: &'a BlobKey,
    measure: Measure,
}

impl Uploads {
    pub(crate) fn new(
        client: Arc<AmazonS3>,
        create_only: Arc<AmazonS3>,
        names: Names,
        spool: PathBuf,
    ) -> Self {
        Self { client, create_only, names, spool }
    }

    pub(crate) async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        let mut parts = Parts { body, rest: Bytes::new(), key, measure: Measure::default() };
        let first = parts.next().await?.unwrap_or_default();
        if first.len() < PART_BYTES {
            return self.put_at_once(key, options, parts.measure, first).await;
        }
        self.refuse_taken(key, options.mode).await?;
        match options.expected_sha256 {
            Some(sha256) => self.put_through(key, options.mode, sha256, first, parts).await,
            None => self.put_spooled(key, options.mode, first, parts).await,
        }
    }

    async fn put_at_once(
        &self,
        key: &BlobKey,
        options: PutOptions,
        measure: Measure,
        body: Bytes,
    ) -> Result<BlobMeta> {
        let size = measure.size();
        let sha256 = measure.finish_as(key, options.expected_sha256)?;
        let mode = match options.mode {
            PutMode::CreateOnly => object_store::PutMode::Create,
            PutMode::Replace => object_store::PutMode::Overwrite,
        };
        let request =
            object_store::PutOptions { mode, attributes: attributes(&sha256), ..Default::default() };
        let put = self.client.put_opts(&self.names.blob(key), body.into(), request).await;
        put.map_err(|source| failed(key, "put", source))?;
        Ok(put_now(size, sha256))
    }

    /// Spares the body's way when the answer is known; the completion decides in any case.
    async fn refuse_taken(&self, key: &BlobKey, mode: PutMode) -> Result<()> {
        if mode == PutMode::Replace {
            return Ok(());
        }
        match self.client.head(&self.names.blob(key)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed(key, "put", source)),
            Ok(_) => Err(blob_error(ErrorKind::AlreadyExists, key, "put")),
        }
    }

    /// The hash is known: the parts go up as they come.
    async fn put_through(
        &self,
        key: &BlobKey,
        mode: PutMode,
        sha256: Sha256,
        first: Bytes,
        mut parts: Parts<'_>,
    ) -> Result<BlobMeta> {
        let upload = Upload::start(self, key, &sha256).await?;
        let sent = async {
            let ids = upload.send(stream::iter([Ok(first)]).chain(parts.stream())).await?;
            let size = parts.measure.size();
            parts.measure.finish_as(key, Some(sha256))?;
            Ok((ids, size))
        };
        match sent.await {
            Ok((ids, size)) => upload.complete(mode, ids).await.map(|()| put_now(size, sha256)),
            Err(error) => Err(upload.abort(error).await),
        }
    }

    /// The hash is not known: the body waits in a file without a name, which goes with the process.
    async fn put_spooled(
        &self,
        key: &BlobKey,
        mode: PutMode,
        first: Bytes,
        mut parts: Parts<'_>,
    ) -> Result<BlobMeta> {
        let spool = self.spool.clone();
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(spool)).await;
        let file =
            file.map_err(std::io::Error::other).flatten().map_err(|source| spool_failed(key, source))?;
        let mut file = File::from_std(file);
        let mut part = Some(first);
        while let Some(bytes) = part {
            file.write_all(&bytes).await.map_err(|source| spool_failed(key, source))?;
            part = parts.next().await?;
        }
        file.flush().await.map_err(|source| spool_failed(key, source))?;
        file.seek(SeekFrom::Start(0)).await.map_err(|source| spool_failed(key, source))?;
        let size = parts.measure.size();
        let sha256 = parts.measure.finish();
        let upload = Upload::start(self, key, &sha256).await?;
        match upload.send(read_parts(file, key)).await {
            Ok(ids) => upload.complete(mode, ids).await.map(|()| put_now(size, sha256)),
            Err(error) => Err(upload.abort(error).await),
        }
    }

    /// Aborts what other processes began `older_than` ago and never finished.
    pub(crate) async fn collect(&self, older_than: Duration) -> object_store::Result<u64> {
        let records: Vec<_> =
            self.client.list(Some(&Path::from(self.names.uploads.as_str()))).try_collect().await?;
        let mut collected = 0;
        for record in records {
            let begun = SystemTime::from(record.last_modified);
            if SystemTime::now().duration_since(begun).unwrap_or_default() >= older_than {
                self.abort_recorded(&record.location).await?;
                collected += 1;
            }
        }
        Ok(collected)
    }

    async fn abort_recorded(&self, record: &Path) -> object_store::Result<()> {
        let bytes = match self.client.get(record).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(()), // its put ended just now
            found => found?.bytes().await?,
        };
        if let Ok(Record { object, upload_id }) = serde_json::from_slice(&bytes) {
            ignore_missing(self.client.abort_multipart(&Path::from(object), &upload_id).await)?;
        }
        ignore_missing(self.client.delete(record).await)
    }
}

/// A multipart upload on its way.
struct Upload<'a> {
    uploads: &'a Uploads,
    key: &'a BlobKey,
    object: Path,
    id: String,
    record: Path,
}

impl<'a> Upload<'a> {
    async fn start(uploads: &'a Uploads, key: &'a BlobKey, sha256: &Sha256) -> Result<Self> {
        let fail = |source| failed(key, "put", source);
        let object = uploads.names.blob(key);
        let options = PutMultipartOptions { attributes: attributes(sha256), ..Default::default() };
        let id = uploads.client.create_multipart_opts(&object, options).await.map_err(fail)?;
        let record = Path::from(format!("{}{}", uploads.names.uploads, uuid::Uuid::new_v4().simple()));
        let upload = Self { uploads, key, object, id, record };
        match upload.write_record().await {
            Ok(()) => Ok(upload),
            Err(error) => Err(upload.abort(error).await),
        }
    }

    async fn write_record(&self) -> Result<()> {
        let record = Record { object: self.object.to_string(), upload_id: self.id.clone() };
        let json = serde_json::to_vec(&record);
        let json = json.map_err(|source| blob_error(ErrorKind::Internal, self.key, "put").source(source))?;
        let put = self.uploads.client.put(&self.record, json.into()).await;
        put.map(|_| ()).map_err(|source| failed(self.key, "put", source))
    }

    async fn send(&self, parts: impl futures::Stream<Item = Result<Bytes>>) -> Result<Vec<PartId>> {
        let send = |(index, part): (usize, Bytes)| async move {
            let payload = PutPayload::from(part);
            let sent = self.uploads.client.put_part(&self.object, &self.id, index, payload).await;
            sent.map_err(|source| failed(self.key, "put", source))
        };
        let numbered = parts.enumerate().map(|(index, part)| part.map(|part| (index, part)));
        numbered.map_ok(send).try_buffered(PARTS_AT_ONCE).try_collect().await
    }

    async fn complete(self, mode: PutMode, parts: Vec<PartId>) -> Result<()> {
        let client = match mode {
            PutMode::CreateOnly => &self.uploads.create_only,
            PutMode::Replace => &self.uploads.client,
        };
        match client.complete_multipart(&self.object, &self.id, parts).await {
            Ok(_) => self.forget().await,
            Err(object_store::Error::NotFound { source, .. }) => {
                let detail = "the upload is gone: it was collected as garbage, or it is complete already";
                Err(blob_error(ErrorKind::Timeout, self.key, "put").detail(detail).source(source))
            }
            Err(source) => {
                let error = failed(self.key, "put", source);
                Err(self.abort(error).await)
            }
        }
    }

    /// The blob is there. A record that stays is removed by the next collection, which finds no upload.
    async fn forget(self) -> Result<()> {
        let _ = self.uploads.client.delete(&self.record).await;
        Ok(())
    }

    /// Cleans up as well as it can; what it cannot, [`Uploads::collect`] does later. The first error counts.
    async fn abort(self, error: flames_blob::Error) -> flames_blob::Error {
        let aborted = ignore_missing(self.uploads.client.abort_multipart(&self.object, &self.id).await);
        if aborted.is_ok() {
            let _ = self.uploads.client.delete(&self.record).await;
        }
        error
    }
}

impl Parts<'_> {
    /// Full parts, then one that may be short; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut part = BytesMut::new();
        while part.len() < PART_BYTES {
            if self.rest.is_empty() {
                let Some(chunk) = self.body.try_next().await? else { break };
                self.measure.update(self.key, &chunk)?;
                self.rest = chunk;
            }
            let room = PART_BYTES - part.len();
            part.extend_from_slice(&self.rest.split_to(room.min(self.rest.len())));
        }
        Ok((!part.is_empty()).then(|| part.freeze()))
    }

    fn stream(&mut self) -> impl futures::Stream<Item = Result<Bytes>> {
        stream::try_unfold(self, |parts| async move { Ok(parts.next().await?.map(|part| (part, parts))) })
    }
}

fn read_parts(file: File, key: &BlobKey) -> impl futures::Stream<Item = Result<Bytes>> {
    stream::try_unfold(file, move |mut file| async move {
        let mut part = Vec::with_capacity(PART_BYTES);
        let read = (&mut file).take(PART_BYTES as u64).read_to_end(&mut part).await;
        let size = read.map_err(|source| spool_failed(key, source))?;
        Ok((size > 0).then(|| (part.into(), file)))
    })
}

/// The service's own time is not in its answer; [`flames_blob::BlobStore::head`] tells it.
fn put_now(size: u64, sha256: Sha256) -> BlobMeta {
    BlobMeta { size, sha256, modified: SystemTime::now() }
}

fn ignore_missing(result: object_store::Result<()>) -> object_store::Result<()> {
    match result {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}
