//! The implementation of [`BlobStore`].

use crate::error::{ADAPTER, blob_error, bucket_failed, failed, is_refusal};
use crate::upload::Uploads;
use crate::{Credentials, S3Config};
use async_trait::async_trait;
use flames_blob::{
    Blob, BlobEntry, BlobKey, BlobMeta, BlobStore, ByteRange, ByteStream, ErrorKind, ListLimit,
    MAX_BLOB_BYTES, Page, PutOptions, Result, Sha256, verified,
};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientConfigKey, ClientOptions, GetOptions, GetRange, HeaderMap,
    HeaderValue, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use std::sync::Arc;
use std::time::Duration;

/// Blobs in a bucket.
#[derive(Debug)]
pub struct S3BlobStore {
    bucket: String,
    names: Names,
    client: Arc<AmazonS3>,
    uploads: Uploads,
}

/// What objects are called.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// `<prefix>/blobs/`.
    blobs: String,
    /// `<prefix>/uploads/`.
    pub(crate) uploads: String,
}

/// User metadata of an object: the hash of its body in hexadecimal digits.
const SHA256_NAME: &str = "flames-sha256";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the next bytes, not for a whole body.
const READ_TIMEOUT: &str = "15 seconds";
/// A request that fails may have been repeated for so long: the bound of `Unavailable`.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
const RETRIES: usize = 3;

impl S3BlobStore {
    /// Opens a bucket, and makes one request to see that it is there.
    ///
    /// # Errors
    /// `NotFound` when there is no such bucket, `PermissionDenied` when the keys are refused, `Unavailable`
    /// when the service cannot be reached.
    pub async fn open(config: S3Config) -> Result<Self> {
        let build = |headers| {
            let client = builder(&config).with_client_options(client_options(&config, headers)).build();
            client.map(Arc::new).map_err(|source| bucket_failed(&config.bucket, "open", source))
        };
        let client = build(HeaderMap::new())?;
        // The client sets no condition on the completion of an upload, but it sends what headers it is told.
        let create_only = build(HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("*"))]))?;
        let names = Names::new(&config.prefix);
        let uploads = Uploads::new(client.clone(), create_only, names.clone(), config.spool.clone());
        let store = Self { bucket: config.bucket, names, client, uploads };
        store.check_bucket().await?;
        Ok(store)
    }

    /// Asks for the bucket itself, whose refusals say why, then for a list: the answer about a bucket that is
    /// there lacks what the client wants of an object, so it comes as an error too.
    async fn check_bucket(&self) -> Result<()> {
        match self.client.head(&Path::default()).await {
            Err(source) if is_refusal(&source) => Err(bucket_failed(&self.bucket, "open", source)),
            _ => self.page("open", &self.names.blobs, None, 1).await.map(|_| ()),
        }
    }

    async fn page(
        &self,
        operation: &'static str,
        prefix: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<ObjectMeta>, bool)> {
        let options = PaginatedListOptions { offset: after, max_keys: Some(limit), ..Default::default() };
        let page = self.client.list_paginated(Some(prefix), options).await;
        let page = page.map_err(|source| bucket_failed(&self.bucket, operation, source))?;
        Ok((page.result.objects, page.page_token.is_some()))
    }

    /// The answer to a range that the service refused.
    async fn explain_range(
        &self,
        key: &BlobKey,
        range: ByteRange,
        source: object_store::Error,
    ) -> flames_blob::Error {
        let refused = failed(key, "get", source);
        if refused.kind() == ErrorKind::NotFound {
            return refused;
        }
        match self.head(key).await.map(|meta| range.within(meta.size)) {
            Ok(Err(out_of_range)) => out_of_range,
            _ => refused,
        }
    }
}

const IF_NONE_MATCH: http::HeaderName = http::header::IF_NONE_MATCH;

#[async_trait]
impl BlobStore for S3BlobStore {
    fn adapter(&self) -> &'static str {
        ADAPTER
    }

    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        self.uploads.put(key, options, body).await
    }

    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        let options = GetOptions { range: range.map(get_range), ..Default::default() };
        let found = match (self.client.get_opts(&self.names.blob(key), options).await, range) {
            (Ok(found), _) => found,
            (Err(source), Some(range)) => return Err(self.explain_range(key, range, source).await),
            (Err(source), None) => return Err(failed(key, "get", source)),
        };
        let meta = blob_meta(key, "get", &found.meta, &found.attributes)?;
        let named = key.clone();
        let body = found.into_stream().map_err(move |source| failed(&named, "get", source)).boxed();
        let body = if range.is_none() { verified(body, key, ADAPTER, &meta) } else { body };
        Ok(Blob { meta, body })
    }

    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        let options = GetOptions { head: true, ..Default::default() };
        let found = self.client.get_opts(&self.names.blob(key), options).await;
        let found = found.map_err(|source| failed(key, "head", source))?;
        blob_meta(key, "head", &found.meta, &found.attributes)
    }

    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        let prefix =
            under.map_or_else(|| self.names.blobs.clone(), |under| format!("{}{under}/", self.names.blobs));
        let mut after = after.map(|after| format!("{}{after}", self.names.blobs));
        loop {
            let (objects, more) = self.page("list", &prefix, after, limit.get()).await?;
            let entries: Vec<_> = objects.iter().filter_map(|object| self.names.entry(object)).collect();
            let next = entries.last().filter(|_| more).map(|last| last.key.clone());
            if !more || !entries.is_empty() {
                return Ok(Page { entries, next });
            }
            after = objects.last().map(|last| last.location.to_string()); // a page of strangers' objects
        }
    }

    async fn delete(&self, key: &BlobKey) -> Result<()> {
        match self.client.delete(&self.names.blob(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed(key, "delete", source)),
        }
    }

    /// Aborts multipart uploads that no process finished; it cannot tell a slow one from a dead one. An
    /// upload whose process died before it was written down holds no bytes yet; a lifecycle rule of the bucket
    /// removes it.
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        let collected = self.uploads.collect(older_than).await;
        collected.map_err(|source| bucket_failed(&self.bucket, "collect_garbage", source))
    }
}

impl Names {
    fn new(prefix: &str) -> Self {
        let start = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { blobs: format!("{start}blobs/"), uploads: format!("{start}uploads/") }
    }

    pub(crate) fn blob(&self, key: &BlobKey) -> Path {
        Path::from(format!("{}{key}", self.blobs))
    }

    /// `None` for an object that is no blob of ours.
    fn entry(&self, object: &ObjectMeta) -> Option<BlobEntry> {
        let key = BlobKey::parse(object.location.as_ref().strip_prefix(&self.blobs)?).ok()?;
        Some(BlobEntry { key, size: object.size, modified: object.last_modified.into() })
    }
}

fn builder(config: &S3Config) -> AmazonS3Builder {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), ..Default::default() };
    let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT };
    let mut builder =
        AmazonS3Builder::new().with_bucket_name(&config.bucket).with_region(&config.region).with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Credentials::Keys { access_key_id, secret_access_key, session_token } = &config.credentials {
        builder = builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key);
        if let Some(token) = session_token {
            builder = builder.with_token(token);
        }
    }
    builder
}

fn client_options(config: &S3Config, headers: HeaderMap) -> ClientOptions {
    let plain = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled() // it would end the stream of a large blob
        .with_config(ClientConfigKey::ReadTimeout, READ_TIMEOUT)
        .with_default_headers(headers)
}

/// Services refuse offsets that no object can have.
fn get_range(range: ByteRange) -> GetRange {
    if range.end() > MAX_BLOB_BYTES {
        return GetRange::Offset(range.start());
    }
    GetRange::Bounded(range.start()..range.end())
}

/// The metadata that goes with an object of this hash.
pub(crate) fn attributes(sha256: &Sha256) -> Attributes {
    Attributes::from_iter([(Attribute::Metadata(SHA256_NAME.into()), sha256.to_string())])
}

fn blob_meta(
    key: &BlobKey,
    operation: &'static str,
    object: &ObjectMeta,
    found: &Attributes,
) -> Result<BlobMeta> {
    let text = found.get(&Attribute::Metadata(SHA256_NAME.into())).map(|value| value.as_ref().to_owned());
    let sha256 = text.and_then(|text| text.parse::<Sha256>().ok()).ok_or_else(|| {
        let detail = format!("the object has no metadata `{SHA256_NAME}`: it was not written by this store");
        blob_error(ErrorKind::Corrupt, key, operation).detail(detail)
    })?;
    Ok(BlobMeta { size: object.size, sha256, modified: object.last_modified.into() })
}
