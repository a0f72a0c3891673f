//! The interface to versioned state: small records with revisions, conditional commits, leases and watches.
//!
//! ```text
//! commit([Put a if revision 7, Put b if absent, Check c at 3]) ── all or nothing ──> Revision(8)
//!        └── one Event(8, [a, b]) to every watch whose prefix fits
//! ```
//!
//! One counter numbers every commit of the store. It only grows, also across deletes, so a revision names
//! one state of one record for ever: compare-and-swap has no ABA problem.
//!
//! To follow a prefix without a gap: take [`StateStore::revision`], list, then watch from that revision.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorate;
mod ext;
mod key;
mod lease;
mod memory;
mod value;

pub use ext::{StateStoreExt, Versioned};
pub use key::{Key, MAX_KEY_BYTES};
pub use lease::{Lease, LeaseTtl};
pub use memory::MemoryStateStore;
pub use value::{
    Change, ChangeKind, Event, MAX_PAGE_RECORDS, MAX_VALUE_BYTES, MAX_WRITES, Page, Precondition, Record,
    Revision, Write, validate_commit, validate_page_limit,
};

pub use flames_provider::{Error, ErrorKind, Result, Retry};

use async_trait::async_trait;
use futures::stream::BoxStream;
use std::fmt::Debug;
use std::sync::Arc;

/// What a watch gives: one [`Event`] per commit. The stream ends after its first error.
pub type Watch = BoxStream<'static, Result<Event>>;

/// Versioned records.
///
/// Every method may answer `Unavailable` when the backend cannot be reached (then nothing was executed) and
/// `Timeout` when no answer came (then it may or may not have taken effect).
#[async_trait]
pub trait StateStore: Debug + Send + Sync + 'static {
    /// Short name for errors and metrics, for example `sqlite`.
    fn adapter(&self) -> &'static str;

    /// The number of the newest commit; [`Revision::ZERO`] for a store that never had one.
    async fn revision(&self) -> Result<Revision>;

    /// Reads one record.
    async fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// Reads the records whose keys start with `prefix`, ordered by the keys' bytes, from the first key
    /// behind `after`. A record that nobody touches meanwhile appears exactly once over all pages.
    ///
    /// A page may hold fewer records than `limit` although more follow: [`Page::next`] alone tells.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of 0 or above [`MAX_PAGE_RECORDS`].
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page>;

    /// Applies all writes or none, and returns once they are as durable as the backend can make them.
    ///
    /// # Errors
    /// Each names the key: `AlreadyExists` when it should have been absent, `NotFound` when it should have
    /// had a revision, `Conflict` when it has another one. `InvalidInput` for no writes, for more than
    /// [`MAX_WRITES`], for a key that is named twice, and for a value above [`MAX_VALUE_BYTES`].
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision>;

    /// Every change under `prefix` by the commits after `from`, in order: first those that happened
    /// already, then those to come. Watching again from the revision of the last event seen continues
    /// without a gap and without a repeat.
    ///
    /// # Errors
    /// `NotFound` when the history so far back is no longer kept: list again. It can also end the stream of
    /// a watcher that is too slow. `InvalidInput` for a revision that the store has not reached.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch>;

    /// Takes the lease `name` for `holder` (1 to 512 bytes, shown to others), if nobody has it. The store's
    /// clock decides when it is over.
    ///
    /// # Errors
    /// `Conflict` when it is held, also by the same holder; the detail names the holder.
    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease>;

    /// Extends a lease to `ttl` from now. The result replaces `lease`.
    ///
    /// # Errors
    /// `Conflict` when it is over, even if nobody has taken it since.
    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease>;

    /// Gives a lease back. Does nothing when it is over already, whoever has it now.
    async fn release_lease(&self, lease: &Lease) -> Result<()>;
}

#[async_trait]
impl<S: StateStore + ?Sized> StateStore for Arc<S> {
    fn adapter(&self) -> &'static str {
        (**self).adapter()
    }
    async fn revision(&self) -> Result<Revision> {
        (**self).revision().await
    }
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        (**self).get(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page> {
        (**self).list(prefix, after, limit).await
    }
    async fn commit(&self, writes: Vec<Write>) -> Result<Revision> {
        (**self).commit(writes).await
    }
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        (**self).watch(prefix, from).await
    }
    async fn acquire_lease(&self, name: &Key, holder: &Key, ttl: LeaseTtl) -> Result<Lease> {
        (**self).acquire_lease(name, holder, ttl).await
    }
    async fn renew_lease(&self, lease: &Lease, ttl: LeaseTtl) -> Result<Lease> {
        (**self).renew_lease(lease, ttl).await
    }
    async fn release_lease(&self, lease: &Lease) -> Result<()> {
        (**self).release_lease(lease).await
    }
}
