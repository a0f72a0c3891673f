//! What came of a simulated run.

use crate::{Quantiles, Reason};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What came of a simulated run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Creates that arrived.
    pub creates: u64,
    /// Creates that got a member.
    pub hits: u64,
    /// Share of hits, 0 to 1; 0 without creates.
    pub hit_rate: f64,
    /// How long creates waited, those that found no member included, in milliseconds.
    pub wait_ms: Quantiles,
    /// How old members were when they were handed out, in seconds.
    pub age_s: Quantiles,
    /// How evenly hand-outs were spread over the slots that were ever in use: Jain's index, from 1/slots (always the
    /// same) to 1 (all the same).
    pub evenness: f64,
    /// Members that waited, on average over the run: the memory that the pool costs.
    pub mean_idle: f64,
    /// Time that members waited, summed, in seconds.
    pub idle_vm_s: f64,
    /// Members that were made.
    pub started: u64,
    /// Members that were ended without having been of use, by reason.
    pub wasted: BTreeMap<Reason, u64>,
}

/// Notes taken while the run goes on.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) waits_ms: Vec<f64>,
    pub(super) ages_s: Vec<f64>,
    pub(super) hand_outs: Vec<u32>,
    pub(super) idle_vm_s: f64,
    pub(super) started: u64,
    pub(super) wasted: BTreeMap<Reason, u64>,
}

impl Notes {
    /// A slot is in use from now on.
    pub(super) fn slot_used(&mut self, slot: usize) {
        if self.hand_outs.len() <= slot {
            self.hand_outs.resize(slot + 1, 0);
        }
    }

    pub(super) fn report(self, length: Duration) -> Report {
        let (creates, hits) = (self.waits_ms.len() as u64, self.ages_s.len() as u64);
        Report {
            creates,
            hits,
            hit_rate: if creates == 0 { 0.0 } else { hits as f64 / creates as f64 },
            wait_ms: Quantiles::of(self.waits_ms),
            age_s: Quantiles::of(self.ages_s),
            evenness: jain(&self.hand_outs),
            mean_idle: self.idle_vm_s / length.as_secs_f64().max(0.001),
            idle_vm_s: self.idle_vm_s,
            started: self.started,
            wasted: self.wasted,
        }
    }
}

/// The square of the sum over the count times the sum of squares; 1 without hand-outs.
fn jain(counts: &[u32]) -> f64 {
    let sum: f64 = counts.iter().copied().map(f64::from).sum();
    let squares: f64 = counts.iter().map(|count| f64::from(*count).powi(2)).sum();
    if squares == 0.0 { 1.0 } else { sum * sum / (counts.len() as f64 * squares) }
}
