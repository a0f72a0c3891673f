//! Wrappers around any cache: what adapters must not do themselves. Each is a
//! [`CacheStore`](crate::CacheStore) and passes the conformance suite.

mod faults;
mod metrics;
mod retry;
mod tracing;

pub use faults::WithFaults;
pub use metrics::WithMetrics;
pub use retry::WithRetry;
pub use tracing::WithTracing;
