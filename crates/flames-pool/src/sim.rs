//! A pool in simulated time: arrival traces replayed through the very same [`plan`](crate::plan()) and
//! [`choose`](crate::choose()) that a node with real VMs runs, with given durations.
//!
//! What it models: making and ending of members takes time, some slots are slower than others, creates that find no
//! member go the way that [`choose_path`](crate::choose_path) says, sandboxes live for a while. What it does not: VMs
//! do not slow each other down, memory is as large as the pool's maximum, and a member that waited long is as quick as
//! a fresh one. So it compares pools with each other; it does not predict milliseconds.
//!
//! The same scenario gives the same report, on every machine and in every version of the crates underneath.

mod random;
mod report;
mod trace;
mod world;

pub use report::Report;
pub use trace::Trace;

use crate::PoolConfig;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One simulated run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The pool; it is expected to pass its check.
    pub config: PoolConfig,
    /// When creates arrive.
    pub trace: Trace,
    /// Creates per second, on average over the whole run.
    pub per_second: f64,
    /// How long the run is.
    pub length: Duration,
    /// How long everything takes.
    pub durations: Durations,
    /// What chance starts from.
    pub seed: u64,
}

/// How long everything takes, in milliseconds unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Durations {
    /// To hand out a running member.
    pub hand_out_ms: f64,
    /// To let the virtual CPUs of a paused member run, on top of the hand-out.
    pub resume_ms: f64,
    /// To prepare a slot, a disk and a VMM process.
    pub prepare_ms: f64,
    /// To restore the snapshot into a prepared member, handshake included.
    pub load_ms: f64,
    /// To boot the kernel, where there is no snapshot.
    pub boot_ms: f64,
    /// To end a member.
    pub stop_ms: f64,
    /// How long a sandbox lives, in seconds, on average.
    pub hold_s: f64,
    /// Share of the slots that are slow, 0 to 1: another core, a noisy neighbour.
    pub slow_slots: f64,
    /// How many times longer everything takes in a slow slot.
    pub slow_factor: f64,
    /// By how much durations vary from one time to the next, as a share of each, 0 to 1.
    pub noise: f64,
    /// Whether the template has a snapshot; without one members are booted, and so are creates that find none.
    pub snapshot: bool,
}

impl Default for Durations {
    /// About what QEMU needs in software emulation for a small image; measure your own.
    fn default() -> Self {
        Self {
            hand_out_ms: 2.0,
            resume_ms: 5.0,
            prepare_ms: 60.0,
            load_ms: 70.0,
            boot_ms: 1400.0,
            stop_ms: 30.0,
            hold_s: 60.0,
            slow_slots: 0.2,
            slow_factor: 2.0,
            noise: 0.2,
            snapshot: true,
        }
    }
}

/// Replays the scenario from an empty pool at its base size.
pub fn run(scenario: &Scenario) -> Report {
    world::World::new(scenario).run()
}
