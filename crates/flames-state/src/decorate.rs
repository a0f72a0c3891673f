//! Wrappers around any store: what adapters must not do themselves. Each is a
//! [`StateStore`](crate::StateStore) and passes the conformance suite.
//!
//! A watch counts as the call that starts it; its events are not calls.

mod faults;
mod metrics;
mod retry;
mod tracing;

pub use faults::WithFaults;
pub use metrics::WithMetrics;
pub use retry::WithRetry;
pub use tracing::WithTracing;
