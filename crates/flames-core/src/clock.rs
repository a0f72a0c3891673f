//! The only place that reads the wall clock, so that tests and simulations can set it.

use jiff::Timestamp;
use std::fmt::Debug;

/// Tells the time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Microseconds: what every state store keeps and every client reads back unchanged.
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}
