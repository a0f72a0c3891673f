//! Wrappers around any queue: metrics, traces, bounded retry, injected faults. Each passes the suite.

mod faulty;
mod metered;
mod retried;
mod traced;

pub use faulty::Faulty;
pub use metered::Metered;
pub use retried::Retried;
pub use traced::Traced;
