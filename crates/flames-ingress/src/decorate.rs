//! Wrappers around any provider: what adapters must not do themselves. Each is an
//! [`IngressProvider`](crate::IngressProvider) and passes the conformance suite.

mod faults;
mod metrics;
mod retry;
mod tracing;

pub use faults::WithFaults;
pub use metrics::WithMetrics;
pub use retry::WithRetry;
pub use tracing::WithTracing;
