//! When creates are meant to begin: decided before the first one, so that nothing measured can move it.

use crate::cli::{BenchCreate, Ramp};
use anyhow::bail;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The load, as it stands in a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub(super) enum Load {
    /// The next create begins when one has ended.
    Closed { concurrency: u32, count: Option<u32>, duration_s: Option<f64> },
    /// Creates begin at random moments, at an even rate.
    Poisson { rate: f64, duration_s: f64, seed: u64 },
    /// The same with a rate that changes evenly.
    Ramp { from: f64, to: f64, duration_s: f64, seed: u64 },
    /// All at one moment.
    Burst { count: u32 },
}

/// Creates of a closed loop when nothing is said.
const DEFAULT_COUNT: u32 = 20;

impl Load {
    pub(super) fn of(command: &BenchCreate) -> anyhow::Result<Self> {
        let duration_s = command.duration.map(|span| span.as_secs_f64());
        let seed = command.seed;
        Ok(match (command.burst, command.ramp, command.rate) {
            (Some(count), ..) => Self::Burst { count },
            (_, Some(Ramp { from, to }), _) => {
                Self::Ramp { from, to, duration_s: duration_s.unwrap_or_default(), seed }
            }
            (.., Some(rate)) => match (duration_s, command.count) {
                (Some(duration_s), _) => Self::Poisson { rate, duration_s, seed },
                (None, Some(count)) => Self::Poisson { rate, duration_s: f64::from(count) / rate, seed },
                (None, None) => bail!("--rate wants --duration or --count"),
            },
            _ => {
                let count = command.count.or(duration_s.is_none().then_some(DEFAULT_COUNT));
                Self::Closed { concurrency: command.concurrency, count, duration_s }
            }
        })
    }

    /// When each create is meant to begin, from the start on; `None` for a closed loop, where nobody knows.
    pub(super) fn arrivals(&self) -> Option<Vec<Duration>> {
        match *self {
            Self::Closed { .. } => None,
            Self::Burst { count } => Some(vec![Duration::ZERO; count as usize]),
            Self::Poisson { rate, duration_s, seed } => Some(poisson(rate, rate, duration_s, seed)),
            Self::Ramp { from, to, duration_s, seed } => Some(poisson(from, to, duration_s, seed)),
        }
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed { concurrency, .. } => write!(f, "closed loop, {concurrency} at once"),
            Self::Poisson { rate, duration_s, .. } => write!(f, "{rate}/s at random for {duration_s} s"),
            Self::Ramp { from, to, duration_s, .. } => write!(f, "{from}/s to {to}/s over {duration_s} s"),
            Self::Burst { count } => write!(f, "{count} at one moment"),
        }
    }
}

/// Arrivals whose rate goes evenly from one value to another: unit steps of expected arrivals, exponentially
/// distributed, mapped back to time.
fn poisson(from: f64, to: f64, duration_s: f64, seed: u64) -> Vec<Duration> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut expected = 0.0;
    let mut next = || {
        expected -= (1.0 - random.random::<f64>()).ln();
        time_of(expected, from, to, duration_s).map(Duration::from_secs_f64)
    };
    std::iter::from_fn(&mut next).collect()
}

/// When so many arrivals are expected; `None` if that is after the end. Solves
/// `from t + (to - from) t² / 2 duration = expected` in the form that is exact for an even rate too.
fn time_of(expected: f64, from: f64, to: f64, duration_s: f64) -> Option<f64> {
    if expected >= (from + to) / 2.0 * duration_s {
        return None;
    }
    let slope = (to - from) / duration_s;
    Some(2.0 * expected / (from + (from * from + 2.0 * slope * expected).max(0.0).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(count: usize) -> f64 {
        f64::from(u32::try_from(count).unwrap())
    }

    #[test]
    fn random_arrivals_keep_their_rate_order_and_seed() {
        let arrivals = poisson(100.0, 100.0, 100.0, 7);
        assert!(
            (mean(arrivals.len()) - 10_000.0).abs() < 400.0,
            "four standard deviations: {}",
            arrivals.len()
        );
        assert!(arrivals.is_sorted() && arrivals.iter().all(|at| at.as_secs_f64() < 100.0));
        assert_eq!(arrivals, poisson(100.0, 100.0, 100.0, 7));
        assert_ne!(arrivals, poisson(100.0, 100.0, 100.0, 8));
    }

    #[test]
    fn gaps_of_a_poisson_load_vary_as_much_as_they_are_long() {
        let arrivals = poisson(1000.0, 1000.0, 20.0, 3);
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let average = gaps.iter().sum::<f64>() / mean(gaps.len());
        let variance = gaps.iter().map(|gap| (gap - average).powi(2)).sum::<f64>() / mean(gaps.len());
        assert!((variance.sqrt() / average - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_ramp_has_three_quarters_of_its_arrivals_in_its_second_half_and_turned_round_in_its_first() {
        for (from, to, share) in [(0.0, 200.0, 0.75), (200.0, 0.0, 0.25)] {
            let arrivals = poisson(from, to, 100.0, 5);
            let late = arrivals.iter().filter(|at| at.as_secs_f64() > 50.0).count();
            assert!((mean(late) / mean(arrivals.len()) - share).abs() < 0.03, "{from} to {to}");
        }
    }

    #[test]
    fn a_burst_is_one_moment_and_a_closed_loop_has_no_plan() {
        assert_eq!(Load::Burst { count: 3 }.arrivals(), Some(vec![Duration::ZERO; 3]));
        let closed = Load::Closed { concurrency: 1, count: None, duration_s: Some(1.0) };
        assert_eq!(closed.arrivals(), None);
    }
}
