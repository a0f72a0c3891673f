//! Everything about the warm pool that is a decision and not an effect.
//!
//! Pure functions over values: no I/O, no lock, no clock, no randomness of its own. Time comes in as [`Millis`],
//! randomness as a `u64`, and the same input always gives the same answer, so that a property test, the
//! simulation and a node with real VMs all run the very same code. Whoever owns the VMs (the node) carries the
//! answers out.
//!
//! - Which way a create goes: [`BootLevel`], [`choose_path`], [`History`].
//! - Which member is handed out: [`choose`]. How large the pool should be: [`autoscale`]. What to start, retire and
//!   check: [`plan`].
//! - The same in simulated time: [`sim`].
//! - What a pool is: [`PoolConfig`], [`PoolRequest`], [`Preset`], [`Tiers`]; what it looks like: [`PoolStatus`], [`MemberView`].

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod choose;
mod config;
mod history;
mod level;
mod member;
mod plan;
mod scale;
pub mod sim;
mod status;
mod tally;
mod time;

pub use choose::{Candidate, Cursor, choose};
pub use config::{Autoscale, ByArrivals, ByUse, Mistake, PoolConfig, PoolRequest, Preset, Strategy, Tiers};
pub use history::History;
pub use level::{Available, BootLevel, BootPath, Choice, Execution, Parts, UnknownLevel, choose_path};
pub use member::{Health, MemberState, MemberView, Reason, Tier};
pub use plan::{CHECKS_AT_ONCE, Failures, Phase, Plan, PoolView, plan};
pub use scale::{ArrivalRate, Load, Scale, autoscale, spread};
pub use status::{LastFailure, PoolStatus, Quantiles, StateCounts, TierCounts};
pub use tally::Tally;
pub use time::Millis;
