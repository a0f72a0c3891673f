//! Bounds of the histograms.

use prometheus_client::metrics::histogram::Histogram;

/// 0.5 ms to 60 s. The targets of the boot levels (0.1, 0.5, 1.5 and 2 s; 0.3 and 1 s in emulation) are bounds, so that the share of creates
/// within a target is exact.
pub(crate) const SECONDS: [f64; 18] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0, 60.0];

/// A histogram of durations.
pub(crate) fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Which bucket a duration falls into; the last is for what is beyond every bound.
pub(crate) fn index_of(seconds: f64) -> usize {
    SECONDS.partition_point(|bound| *bound < seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flames_pool::{BootLevel, Execution};

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        assert_eq!([index_of(0.0), index_of(0.0005), index_of(0.0006)], [0, 0, 1]);
        assert_eq!([index_of(60.0), index_of(61.0)], [SECONDS.len() - 1, SECONDS.len()]);
    }

    #[test]
    fn every_level_s_target_is_a_bound() {
        for level in BootLevel::ALL {
            for execution in [Execution::Hardware, Execution::Emulated] {
                assert!(SECONDS.contains(&level.target_on(execution).as_secs_f64()), "{level} {execution:?}");
            }
        }
    }
}
