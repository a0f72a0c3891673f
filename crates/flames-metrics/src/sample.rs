//! The few numbers that alerts look at, kept beside the families because those cannot be read back.

use crate::buckets::SECONDS;
use crate::labels::Outcome;
use flames_pool::{BootLevel, PoolStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The numbers at one moment. Counts are since the daemon's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Since any fixed moment; later samples have later times.
    pub at: Duration,
    /// Creates by outcome.
    pub creates: Creates,
    /// Durations of the creates that went well, by level.
    pub durations: BTreeMap<BootLevel, Durations>,
    /// Hits and misses by pool.
    pub pools: BTreeMap<String, PoolCounts>,
    /// Guests that did not acknowledge the handshake.
    pub handshake_failures: u64,
    /// Resources that nobody owns, by kind. Not a count since the start: as many as there are.
    pub orphans: BTreeMap<&'static str, u64>,
}

/// Creates by outcome. Those that were rejected are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Creates {
    /// Handed out.
    pub ok: u64,
    /// Refused for want of room.
    pub refused: u64,
    /// Broken.
    pub failed: u64,
}

/// Creates of one pool's template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Those that got a member.
    pub hits: u64,
    /// Those that found none.
    pub misses: u64,
}

/// How many durations fell into each bucket; the last is for those beyond every bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations(pub [u64; Durations::BUCKETS]);

impl Durations {
    /// One for each bound, and one beyond.
    pub const BUCKETS: usize = SECONDS.len() + 1;

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What came on top since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }

    /// An estimate of a quantile, in seconds, as Prometheus' `histogram_quantile` makes it: even within a bucket,
    /// and the highest bound for what lies beyond. `None` of nothing.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * as_f64(count);
        let mut below = 0;
        for (bucket, upper) in SECONDS.iter().enumerate() {
            let inside = self.0[bucket];
            if inside > 0 && as_f64(below + inside) >= rank {
                let lower = bucket.checked_sub(1).map_or(0.0, |before| SECONDS[before]);
                let share = (rank - as_f64(below)) / as_f64(inside);
                return Some(lower + (upper - lower) * share.max(0.0));
            }
            below += inside;
        }
        SECONDS.last().copied()
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self([0; Self::BUCKETS])
    }
}

impl From<&PoolStatus> for PoolCounts {
    fn from(pool: &PoolStatus) -> Self {
        Self { hits: pool.hits, misses: pool.misses }
    }
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ok: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    handshake_failures: AtomicU64,
    durations: [LevelTally; BootLevel::ALL.len()],
    orphans: Mutex<BTreeMap<&'static str, u64>>,
}

type LevelTally = [AtomicU64; Durations::BUCKETS];

impl Tally {
    pub(crate) fn created(&self, level: BootLevel, bucket: usize) {
        self.ok.fetch_add(1, Relaxed);
        let of_level = BootLevel::ALL.iter().position(|one| *one == level).unwrap_or_default();
        self.durations[of_level][bucket].fetch_add(1, Relaxed);
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.ok.fetch_add(1, Relaxed),
            Outcome::Refused => self.refused.fetch_add(1, Relaxed),
            Outcome::Failed => self.failed.fetch_add(1, Relaxed),
            Outcome::Rejected => 0,
        };
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshake_failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn orphans(&self, kind: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, count);
    }

    pub(crate) fn sample(&self, at: Duration, pools: BTreeMap<String, PoolCounts>) -> Sample {
        let durations = BootLevel::ALL.into_iter().zip(&self.durations);
        Sample {
            at,
            creates: Creates {
                ok: self.ok.load(Relaxed),
                refused: self.refused.load(Relaxed),
                failed: self.failed.load(Relaxed),
            },
            durations: durations.map(|(level, tally)| (level, read(tally))).collect(),
            pools,
            handshake_failures: self.handshake_failures.load(Relaxed),
            orphans: self.orphans.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn read(tally: &LevelTally) -> Durations {
    Durations(std::array::from_fn(|bucket| tally[bucket].load(Relaxed)))
}

/// Exact below 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buckets::index_of;
    use proptest::prelude::*;

    fn of(values: &[f64]) -> Durations {
        let mut durations = Durations::default();
        values.iter().for_each(|value| durations.0[index_of(*value)] += 1);
        durations
    }

    #[test]
    fn nothing_has_no_quantile_and_what_is_beyond_shows_as_the_highest_bound() {
        assert_eq!(Durations::default().quantile(0.99), None);
        assert_eq!(of(&[1000.0]).quantile(0.99), Some(60.0));
    }

    #[test]
    fn a_quantile_lies_evenly_within_its_bucket_as_prometheus_has_it() {
        // 10 values in (0.1, 0.2]: the rank 5 of 10 is the middle of the bucket.
        assert!((of(&[0.15; 10]).quantile(0.5).unwrap() - 0.15).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_true_one(
            values in prop::collection::vec(0.0f64..59.0, 1..200), quantile in 0.01f64..1.0
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a rank")]
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
            let bucket = index_of(sorted[rank - 1]);
            let lower = bucket.checked_sub(1).map_or(0.0, |before| SECONDS[before]);
            let estimate = of(&values).quantile(quantile).unwrap();
            prop_assert!((lower - 1e-9..=SECONDS[bucket] + 1e-9).contains(&estimate));
        }

        #[test]
        fn a_difference_counts_what_came_between(
            before in prop::collection::vec(0.0f64..90.0, 0..50), after in prop::collection::vec(0.0f64..90.0, 0..50)
        ) {
            let all: Vec<_> = before.iter().chain(&after).copied().collect();
            prop_assert_eq!(of(&all).since(&of(&before)), of(&after));
        }
    }
}
