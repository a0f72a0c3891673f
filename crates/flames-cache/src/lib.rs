//! The interface to a cache: small values that may be lost at any time and end by themselves.
//!
//! Loss is legal: a full cache drops entries, a restarted one has none. Who uses it must go on correctly when
//! every call answers "not there", and continues without it when it is `Unavailable`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorate;
mod memory;
mod value;

pub use memory::MemoryCacheStore;
pub use value::{CacheKey, CacheValue, MAX_KEY_BYTES, MAX_TTL, MAX_VALUE_BYTES, SetIfAbsent, Ttl};

pub use flames_provider::{Error, ErrorKind, Result, Retry};

use async_trait::async_trait;
use bytes::Bytes;
use std::fmt::Debug;
use std::sync::Arc;

/// Values by key, each with a time to live.
///
/// Every method may answer `Unavailable` when the cache cannot be reached, and `Timeout` when it did not
/// answer in time; the call may then have taken effect.
#[async_trait]
pub trait CacheStore: Debug + Send + Sync + 'static {
    /// Short name for errors and metrics, for example `redis`.
    fn adapter(&self) -> &'static str;

    /// Reads a value. A counter reads as its decimal digits.
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>>;

    /// Writes a value, whatever was there, for `ttl` from now.
    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()>;

    /// Writes a value if there is none. Of several calls at once exactly one stores: a lock, which ends with
    /// its `ttl` or a delete. Since an entry may be lost, such a lock saves work; it must not guard what
    /// breaks when two hold it.
    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent>;

    /// Adds `by` to a counter, and returns the sum. A counter that is not there starts at zero and lives for
    /// `ttl`; one that is there keeps the time it has. No call is lost among others at the same time.
    ///
    /// # Errors
    /// `InvalidInput` when the value is no number, or the sum does not fit 64 bits. The value stays.
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64>;

    /// Removes a value. Does nothing when there is none.
    async fn delete(&self, key: &CacheKey) -> Result<()>;
}

#[async_trait]
impl<S: CacheStore + ?Sized> CacheStore for Arc<S> {
    fn adapter(&self) -> &'static str {
        (**self).adapter()
    }
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>> {
        (**self).get(key).await
    }
    async fn set(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<()> {
        (**self).set(key, value, ttl).await
    }
    async fn set_if_absent(&self, key: &CacheKey, value: CacheValue, ttl: Ttl) -> Result<SetIfAbsent> {
        (**self).set_if_absent(key, value, ttl).await
    }
    async fn increment(&self, key: &CacheKey, by: i64, ttl: Ttl) -> Result<i64> {
        (**self).increment(key, by, ttl).await
    }
    async fn delete(&self, key: &CacheKey) -> Result<()> {
        (**self).delete(key).await
    }
}
