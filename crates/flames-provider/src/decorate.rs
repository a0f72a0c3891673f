//! The parts that decorators of every interface share: what to observe, when to try again, what to break.
//!
//! A decorator is a type that implements an interface around any implementation of it. The interface's own
//! crate holds it, since only that crate knows which calls are idempotent; the decisions are made here.

mod faults;
mod metrics;
mod retry;
mod trace;

pub use faults::{Fault, FaultPlan, When};
pub use metrics::{Call, CallMetrics};
pub use retry::RetryPolicy;
pub use trace::traced;
