//! How long a failed job rests before its next attempt: a decision, without clock or randomness of its own.

use crate::Delay;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Exponential backoff with jitter: the pause doubles with each attempt up to a cap, and half of it is drawn,
/// so that jobs that failed together do not come back together.
///
/// ```
/// use flames_queue::backoff::Backoff;
/// let backoff = Backoff::default();
/// assert_eq!(backoff.after(3, 42), backoff.after(3, 42));
/// assert!(backoff.after(3, 42).get() <= backoff.cap);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first attempt, before jitter.
    pub first: Duration,
    /// No pause is longer.
    pub cap: Duration,
}

impl Default for Backoff {
    /// From one second to five minutes.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), cap: Duration::from_mins(5) }
    }
}

impl Backoff {
    /// The pause after `attempt` (1 is the first) failed: between half of the exponential pause and all of it.
    /// The same seed gives the same pause.
    pub fn after(&self, attempt: u16, seed: u64) -> Delay {
        let full = self.exponential(attempt);
        let drawn: f64 = StdRng::seed_from_u64(seed ^ u64::from(attempt)).random();
        Delay::clamped(full.mul_f64(0.5 + drawn / 2.0).min(self.cap))
    }

    fn exponential(&self, attempt: u16) -> Duration {
        let doublings = u32::from(attempt.saturating_sub(1)).min(31);
        self.first.saturating_mul(1 << doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pause_stays_between_half_and_all_of_the_exponential_one(
            attempt in 1u16..200, seed: u64, first in 1u64..5_000, cap in 5_000u64..600_000,
        ) {
            let backoff = Backoff { first: Duration::from_millis(first), cap: Duration::from_millis(cap) };
            let pause = backoff.after(attempt, seed).get();
            let full = backoff.exponential(attempt);
            prop_assert!(pause <= full && pause >= full / 2 - Duration::from_nanos(1));
            prop_assert!(full <= backoff.cap);
        }

        #[test]
        fn later_attempts_never_rest_shorter_before_jitter(attempt in 1u16..200) {
            let backoff = Backoff::default();
            prop_assert!(backoff.exponential(attempt) <= backoff.exponential(attempt + 1));
        }
    }

    #[test]
    fn different_seeds_spread_the_pauses() {
        let pauses: std::collections::HashSet<_> =
            (0..50).map(|seed| Backoff::default().after(4, seed).get()).collect();
        assert!(pauses.len() > 40);
    }
}
