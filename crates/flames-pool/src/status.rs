//! What a pool looks like: for the API, the command line and the metrics.

use crate::{MemberState, PoolConfig, Reason, Tier, Tiers};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A pool at one moment. Totals count from the daemon's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// What was asked for.
    pub config: PoolConfig,
    /// How many members of each tier are wanted at this moment, by the scaling's decision.
    pub target: Tiers,
    /// Members by tier, whatever their state.
    pub by_tier: TierCounts,
    /// Members by state, whatever their tier.
    pub by_state: StateCounts,
    /// Members that could be handed out now.
    pub ready: u32,
    /// Sandboxes of this pool's template and size that run now: handed out and not ended.
    pub live: u32,
    /// Creates that got a member.
    pub hits: u64,
    /// Creates that found none and went another way.
    pub misses: u64,
    /// Share of hits among the recent creates, 0 to 1; `None` before the first.
    pub hit_rate: Option<f64>,
    /// How long recent creates waited for their member, in milliseconds.
    pub wait_ms: Quantiles,
    /// How old members were when they were handed out lately, in milliseconds.
    pub age_at_handout_ms: Quantiles,
    /// How old the members are that are ready now, in milliseconds.
    pub ages_ms: Quantiles,
    /// Members that were made.
    pub refills: u64,
    /// Members that were retired, by reason.
    pub retired: BTreeMap<Reason, u64>,
    /// Members whose making failed.
    pub failures: u64,
    /// The newest failure.
    pub last_failure: Option<LastFailure>,
    /// Estimate of creates per second, exponentially weighted.
    pub arrivals_per_second: f64,
}

/// Of a set of recent values; all 0 when `count` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// Half of them are at most this.
    pub p50: f64,
    /// 90 % of them are at most this.
    pub p90: f64,
    /// 99 % of them are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// A member whose making failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastFailure {
    /// What went wrong, for people.
    pub error: String,
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// How many failed in a row, this one included.
    pub in_a_row: u32,
    /// How long until the next is tried, in milliseconds; 0 is now.
    pub next_try_in_ms: u64,
}

/// How many of each tier.
pub type TierCounts = BTreeMap<Tier, u32>;

/// How many in each state.
pub type StateCounts = BTreeMap<MemberState, u32>;

impl Quantiles {
    /// Of these values, in any order.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |quantile| crate::history::nearest_rank(&values, quantile).unwrap_or_default();
        Self { count: values.len() as u64, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}
