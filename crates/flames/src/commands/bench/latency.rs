//! Durations in a histogram of fixed relative error (HDR), and what of it goes into a result.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Durations by what they are of, in the order of their first record.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<(String, Histogram<u64>)>);

/// A histogram's row in a result, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) count: u64,
    pub(super) min_ms: f64,
    pub(super) mean_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

/// Microseconds: up to an hour, with three digits.
const LONGEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

impl Latencies {
    pub(super) fn record(&mut self, name: &str, took: Duration) -> anyhow::Result<()> {
        let at = match self.0.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                self.0.push((name.to_owned(), Histogram::new_with_max(LONGEST_US, DIGITS)?));
                self.0.len() - 1
            }
        };
        self.0[at].1.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        Ok(())
    }

    pub(super) fn summaries(&self) -> Vec<Summary> {
        self.0.iter().map(|(name, histogram)| Summary::of(name, histogram)).collect()
    }
}

impl Summary {
    fn of(name: &str, histogram: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Self {
            name: name.to_owned(),
            count: histogram.len(),
            min_ms: milliseconds(histogram.min()),
            mean_ms: histogram.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
        }
    }

    /// What a table shows, by name.
    pub(super) fn shown(&self) -> [(&'static str, f64); 5] {
        [
            ("P50", self.p50_ms),
            ("P90", self.p90_ms),
            ("P99", self.p99_ms),
            ("P99.9", self.p999_ms),
            ("MAX", self.max_ms),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "an hour in microseconds has 32 bits")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth_and_the_extremes_are_kept() {
        let mut latencies = Latencies::default();
        for ms in 1..=1000 {
            latencies.record("create", Duration::from_millis(ms)).unwrap();
        }
        let summary = &latencies.summaries()[0];
        assert_eq!((summary.name.as_str(), summary.count), ("create", 1000));
        for (wanted, got) in [(500.0, summary.p50_ms), (990.0, summary.p99_ms), (1000.0, summary.max_ms)] {
            assert!((got / wanted - 1.0).abs() < 0.001, "{got} is not {wanted}");
        }
    }
}
