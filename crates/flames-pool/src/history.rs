//! How long each path took lately.

use crate::BootPath;
use std::collections::VecDeque;
use std::time::Duration;

/// The newest durations of each path; older ones are forgotten.
#[derive(Clone, Debug)]
pub struct History {
    window: usize,
    durations: [VecDeque<Duration>; 3],
}

impl Default for History {
    fn default() -> Self {
        Self::new(200)
    }
}

impl History {
    /// Durations that a path must have before a quantile of it is trusted.
    pub const ENOUGH: usize = 20;

    /// Keeps `window` durations per path, at least one.
    pub fn new(window: usize) -> Self {
        Self { window: window.max(1), durations: Default::default() }
    }

    /// Takes note of one create.
    pub fn record(&mut self, path: BootPath, took: Duration) {
        let durations = &mut self.durations[place(path)];
        if durations.len() == self.window {
            durations.pop_front();
        }
        durations.push_back(took);
    }

    /// How many durations of this path are known.
    pub fn len(&self, path: BootPath) -> usize {
        self.durations[place(path)].len()
    }

    /// Whether nothing is known of this path.
    pub fn is_empty(&self, path: BootPath) -> bool {
        self.len(path) == 0
    }

    /// The nearest-rank quantile, `0.0` to `1.0`; `None` if nothing is known of this path.
    pub fn quantile(&self, path: BootPath, quantile: f64) -> Option<Duration> {
        let mut sorted: Vec<_> = self.durations[place(path)].iter().copied().collect();
        sorted.sort_unstable();
        nearest_rank(&sorted, quantile)
    }

    /// As [`History::quantile`], but `None` also while fewer than [`History::ENOUGH`] durations are known.
    pub fn trusted_quantile(&self, path: BootPath, quantile: f64) -> Option<Duration> {
        (self.len(path) >= Self::ENOUGH).then(|| self.quantile(path, quantile)).flatten()
    }
}

/// The smallest of `sorted` that at least the share `quantile` of them does not exceed.
pub(crate) fn nearest_rank<T: Copy>(sorted: &[T], quantile: f64) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    // A count of values kept in memory: far below what an f64 holds exactly.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (quantile.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    Some(sorted[rank.saturating_sub(1).min(last)])
}

fn place(path: BootPath) -> usize {
    match path {
        BootPath::Warm => 0,
        BootPath::Restored => 1,
        BootPath::Cold => 2,
    }
}
