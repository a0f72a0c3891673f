//! Chance that starts from a seed.

/// Steele, Lea and Flood's SplitMix64. A generator of our own, so that a seed means the same trace for ever.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A sequence for one `purpose`: sequences of different purposes have nothing in common.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed);
        let start = random.next() ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self(start)
    }

    /// Evenly distributed over all values.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly distributed from 0 up to, not including, 1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with this mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }
}
