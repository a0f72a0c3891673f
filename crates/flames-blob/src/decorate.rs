//! Wrappers around any store: what adapters must not do themselves. Each is a [`BlobStore`](crate::BlobStore)
//! and passes the conformance suite.
//!
//! A call ends here when its future does: the streaming of a body out of [`get`](crate::BlobStore::get) is
//! the caller's time.

mod faults;
mod metrics;
mod retry;
mod tracing;

pub use faults::WithFaults;
pub use metrics::WithMetrics;
pub use retry::WithRetry;
pub use tracing::WithTracing;
