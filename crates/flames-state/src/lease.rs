//! Leases: exclusive names that end by themselves.

use crate::Key;
use flames_provider::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::time::Instant;

/// The right to a name, until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is held.
    pub name: Key,
    /// Who holds it.
    pub holder: Key,
    /// Grows with every acquisition in the store: hand it to what the lease protects, to fence off an
    /// earlier holder that does not yet know that its time is over.
    pub token: u64,
    /// On this machine's monotonic clock, counted from before the store was asked: never later than the
    /// moment the store lets somebody else in.
    pub valid_until: Instant,
}

impl Lease {
    /// True until the time is over, as far as this machine can tell without asking.
    pub fn is_valid(&self) -> bool {
        Instant::now() < self.valid_until
    }
}

/// How long a lease holds without renewal: 1 ms to 24 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseTtl(Duration);

impl LeaseTtl {
    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// Checks the bounds.
    ///
    /// # Errors
    /// `InvalidInput` outside 1 ms to 24 h.
    pub fn parse(ttl: Duration) -> Result<Self> {
        if (Self::MIN..=Self::MAX).contains(&ttl) {
            return Ok(Self(ttl));
        }
        Err(Error::new(ErrorKind::InvalidInput, "lease ttl", format!("{ttl:?}"))
            .detail("a lease lasts from 1 ms to 24 h"))
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }

    /// In whole microseconds, as stores keep it.
    pub fn as_micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl TryFrom<Duration> for LeaseTtl {
    type Error = Error;
    fn try_from(ttl: Duration) -> Result<Self> {
        Self::parse(ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_outside_its_bounds_is_refused() {
        assert!(LeaseTtl::parse(Duration::ZERO).is_err());
        assert!(LeaseTtl::parse(Duration::from_micros(999)).is_err());
        assert!(LeaseTtl::parse(Duration::from_millis(1)).is_ok());
        assert!(LeaseTtl::parse(Duration::from_secs(86_401)).is_err());
    }
}
