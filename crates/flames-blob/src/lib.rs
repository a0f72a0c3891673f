//! The interface to blobs: immutable byte strings of 0 bytes to 5 GiB under a key, streamed in and out.
//!
//! ```text
//! put(key, options, body) ── body ends, hash fits ──> visible, whole, durable
//!        └── body fails, future dropped, process killed ──> nothing visible; leftovers wait for collect_garbage
//! ```
//!
//! A blob is seen whole or not at all. Its SHA-256 is computed while it streams in, stored with it, and
//! checked while it streams out: who reads to the end without an error has what was written.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorate;
mod digest;
mod ext;
mod key;
mod memory;
mod range;
mod value;

pub use digest::{Measure, Sha256, verified};
pub use ext::BlobStoreExt;
pub use key::{BlobKey, MAX_KEY_BYTES, MAX_SEGMENT_BYTES};
pub use memory::MemoryBlobStore;
pub use range::ByteRange;
pub use value::{
    Blob, BlobEntry, BlobMeta, Durability, ListLimit, MAX_BLOB_BYTES, MAX_LIST_ENTRIES, Page, PutMode,
    PutOptions,
};

pub use flames_provider::{Error, ErrorKind, Result, Retry};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// The bytes of a blob in order. It ends after its first error.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// Blobs by key.
///
/// Every method may answer `Unavailable` when the backend cannot be reached, `Timeout` when it did not
/// answer in time (a put may then have taken effect), and `PermissionDenied` when it refuses the access.
#[async_trait]
pub trait BlobStore: Debug + Send + Sync + 'static {
    /// Short name for errors and metrics, for example `s3`.
    fn adapter(&self) -> &'static str;

    /// Writes a blob, and returns once it is as durable as the backend can make it. Memory use does not
    /// depend on the blob's size.
    ///
    /// Dropping the future aborts the put: as after any failure, what was at `key` before is still there.
    ///
    /// # Errors
    /// `AlreadyExists` with [`PutMode::CreateOnly`] when the key is taken, also by a racing put; `Corrupt`
    /// when the body has another hash than expected; `InvalidInput` for more than [`MAX_BLOB_BYTES`]; and
    /// whatever error the body gives.
    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta>;

    /// Reads a blob or a part of it. A replace or delete meanwhile does not mix into the stream.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` for a range that starts at or behind the blob's end (a range that ends
    /// behind it is cut). The stream of a whole blob ends with `Corrupt` when it is not what was written;
    /// a part is not checked.
    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob>;

    /// What [`BlobStore::get`] would say of the blob.
    ///
    /// # Errors
    /// `NotFound`.
    async fn head(&self, key: &BlobKey) -> Result<BlobMeta>;

    /// The blobs beneath `under` (all without one), ordered by the keys' bytes, from the first behind
    /// `after`. `a/b` lies beneath `a`; `ab` and `a` itself do not. A blob that nobody touches meanwhile
    /// appears exactly once over all pages.
    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page>;

    /// Removes a blob. Does nothing when there is none.
    async fn delete(&self, key: &BlobKey) -> Result<()>;

    /// Removes what puts left behind that ended without cleaning up, if it is at least `older_than` old, and
    /// returns how many leftovers there were. Never touches a blob. `older_than` must be longer than any put
    /// takes: some backends cannot tell a slow put from a dead one.
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64>;
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    fn adapter(&self) -> &'static str {
        (**self).adapter()
    }
    async fn put(&self, key: &BlobKey, options: PutOptions, body: ByteStream) -> Result<BlobMeta> {
        (**self).put(key, options, body).await
    }
    async fn get(&self, key: &BlobKey, range: Option<ByteRange>) -> Result<Blob> {
        (**self).get(key, range).await
    }
    async fn head(&self, key: &BlobKey) -> Result<BlobMeta> {
        (**self).head(key).await
    }
    async fn list(&self, under: Option<&BlobKey>, after: Option<&BlobKey>, limit: ListLimit) -> Result<Page> {
        (**self).list(under, after, limit).await
    }
    async fn delete(&self, key: &BlobKey) -> Result<()> {
        (**self).delete(key).await
    }
    async fn collect_garbage(&self, older_than: Duration) -> Result<u64> {
        (**self).collect_garbage(older_than).await
    }
}
