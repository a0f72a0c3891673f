//! From samples to the values of a signal.

use super::rule::Signal;
use crate::sample::{Creates, PoolCounts, Sample, as_f64};
use flames_pool::BootLevel;

/// What a signal says of one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The pool or the kind of resource; empty for a signal that has one subject only.
    pub subject: String,
    /// The value, in the signal's unit.
    pub value: f64,
    /// How many events it was made from.
    pub count: u64,
}

/// The values of a signal between two samples, one per subject. What saw no event has no value.
pub fn measure(signal: Signal, earlier: &Sample, now: &Sample) -> Vec<Reading> {
    match signal {
        Signal::AllocationSuccess => success(&earlier.creates, &now.creates).into_iter().collect(),
        Signal::CreateP99(level) => p99(level, earlier, now).into_iter().collect(),
        Signal::PoolHitRate => now
            .pools
            .iter()
            .filter_map(|(pool, counts)| hit_rate(pool, earlier.pools.get(pool), counts))
            .collect(),
        Signal::HandshakeFailures => {
            let failures = now.handshake_failures.saturating_sub(earlier.handshake_failures);
            vec![Reading { subject: String::new(), value: as_f64(failures), count: failures }]
        }
        Signal::Leaks => now
            .orphans
            .iter()
            .map(|(kind, count)| Reading { subject: (*kind).into(), value: as_f64(*count), count: *count })
            .collect(),
    }
}

fn success(earlier: &Creates, now: &Creates) -> Option<Reading> {
    let ok = now.ok.saturating_sub(earlier.ok);
    let bad = (now.refused + now.failed).saturating_sub(earlier.refused + earlier.failed);
    share(String::new(), ok, bad)
}

fn p99(level: BootLevel, earlier: &Sample, now: &Sample) -> Option<Reading> {
    let before = earlier.durations.get(&level).copied().unwrap_or_default();
    let durations = now.durations.get(&level)?.since(&before);
    Some(Reading { subject: String::new(), value: durations.quantile(0.99)?, count: durations.count() })
}

fn hit_rate(pool: &str, earlier: Option<&PoolCounts>, now: &PoolCounts) -> Option<Reading> {
    let earlier = earlier.copied().unwrap_or_default();
    // A pool that was removed and made anew counts from zero.
    let since = |now: u64, earlier: u64| now.checked_sub(earlier).unwrap_or(now);
    share(pool.to_owned(), since(now.hits, earlier.hits), since(now.misses, earlier.misses))
}

fn share(subject: String, good: u64, bad: u64) -> Option<Reading> {
    let count = good + bad;
    (count > 0).then(|| Reading { subject, value: as_f64(good) / as_f64(count), count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn only_what_happened_between_the_samples_counts() {
        let creates =
            |ok, refused, failed| Sample { creates: Creates { ok, refused, failed }, ..Sample::default() };
        let readings = measure(Signal::AllocationSuccess, &creates(100, 0, 0), &creates(109, 0, 1));
        assert_eq!(readings, [Reading { subject: String::new(), value: 0.9, count: 10 }]);
        assert_eq!(measure(Signal::AllocationSuccess, &creates(5, 1, 0), &creates(5, 1, 0)), []);
    }

    #[test]
    fn a_pool_that_was_made_anew_counts_from_zero() {
        let pools = |hits, misses| Sample {
            pools: BTreeMap::from([("mini".to_owned(), PoolCounts { hits, misses })]),
            ..Sample::default()
        };
        let readings = measure(Signal::PoolHitRate, &pools(90, 10), &pools(3, 1));
        assert_eq!(readings, [Reading { subject: "mini".into(), value: 0.75, count: 4 }]);
    }
}
