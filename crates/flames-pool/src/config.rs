//! What a pool is asked to be.

mod preset;
mod request;
mod validate;

pub use preset::Preset;
pub use request::PoolRequest;
pub use validate::Mistake;

use crate::Tier;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One pool: VMs of one template in one size, made before anyone asks. What is left out is as in
/// [`Preset::Standard`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Name of the template; names the pool, too.
    pub template: String,
    /// Virtual CPUs of its members. Default: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u8>,
    /// Guest memory of its members in MiB. Default: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Writable disk of its members in MiB. Default: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u32>,
    /// How many of each tier, before any scaling. Scaling keeps their proportion.
    pub tiers: Tiers,
    /// Never fewer members than this, all tiers together.
    pub minimum: u32,
    /// Never more members than this, all tiers together, those being made included.
    pub maximum: u32,
    /// How many members may be in the making at once, at least 1.
    pub refill_concurrency: u32,
    /// A member older than this is replaced, in seconds; 0 is never.
    pub max_age_s: u64,
    /// How often the agent of a ready member is asked whether it is well, in seconds; 0 is never.
    pub health_check_every_s: u64,
    /// How many members may be retired for a replacement at once, at least 1.
    pub max_replacements: u32,
    /// Which member is handed out.
    pub strategy: Strategy,
    /// How the pool follows its load.
    pub autoscale: Autoscale,
}

/// How many members of each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Tiers {
    /// Restored and initialised; their virtual CPUs run.
    pub running: u32,
    /// Restored and initialised; their virtual CPUs stand still.
    pub paused: u32,
    /// Network slot, disk and a VMM process with the snapshot at hand.
    pub prepared: u32,
}

/// How a pool follows its load: the larger of the two answers, within minimum and maximum. With neither it stays
/// as large as its tiers say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Autoscale {
    /// By how much of the pool is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_use: Option<ByUse>,
    /// By the rate of creates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_arrivals: Option<ByArrivals>,
    /// The pool shrinks only after it was too large for this long without a break, in seconds; growing is at once.
    pub cool_down_s: u64,
}

/// Thresholds and steps. Use is live sandboxes / (live sandboxes + the pool's size), 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ByUse {
    /// From this use on the pool grows.
    pub grow_above: f64,
    /// Up to this use the pool shrinks.
    pub shrink_below: f64,
    /// Members more per step.
    pub grow_by: u32,
    /// Members fewer per step.
    pub shrink_by: u32,
    /// The least time between two steps, in seconds.
    pub step_every_s: u64,
}

/// A forecast from the exponentially weighted rate of creates:
/// `rate x lead time + deviations x sqrt(rate x lead time) + headroom`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ByArrivals {
    /// After this many seconds a create counts half in the rate.
    pub half_life_s: f64,
    /// How far ahead the pool must reach, in seconds: about the time that making a member takes, queueing included.
    pub lead_time_s: f64,
    /// Standard deviations of a Poisson process kept on top of the expected creates.
    pub deviations: f64,
    /// Members kept on top of all that, whatever the rate.
    pub headroom: u32,
}

/// Which of the members is handed out, among those of the readiest tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The first there is, in the order of slots.
    #[default]
    FirstAvailable,
    /// The one that was made fastest.
    BestPerformance,
    /// The one in which nothing ran for the longest time.
    LeastRecentlyUsed,
    /// Slot after slot.
    RoundRobin,
    /// By chance, in proportion to how fast each was made.
    WeightedRandom,
}

impl PoolConfig {
    /// How old a member may become; `None` is any age.
    pub fn max_age(&self) -> Option<Duration> {
        (self.max_age_s > 0).then(|| Duration::from_secs(self.max_age_s))
    }

    /// How often a ready member is checked; `None` is never.
    pub fn health_check_every(&self) -> Option<Duration> {
        (self.health_check_every_s > 0).then(|| Duration::from_secs(self.health_check_every_s))
    }
}

impl Default for PoolConfig {
    /// [`Preset::Standard`] of no template: the one thing that must be said.
    fn default() -> Self {
        Preset::Standard.config("")
    }
}

impl Tiers {
    /// All tiers together.
    pub fn total(self) -> u32 {
        Tier::ALL.into_iter().fold(0, |sum, tier| sum.saturating_add(self.of(tier)))
    }

    /// The number of one tier.
    pub fn of(self, tier: Tier) -> u32 {
        match tier {
            Tier::Running => self.running,
            Tier::Paused => self.paused,
            Tier::Prepared => self.prepared,
        }
    }

    /// The number of one tier, to be changed.
    pub fn of_mut(&mut self, tier: Tier) -> &mut u32 {
        match tier {
            Tier::Running => &mut self.running,
            Tier::Paused => &mut self.paused,
            Tier::Prepared => &mut self.prepared,
        }
    }
}

impl Default for ByUse {
    fn default() -> Self {
        Self { grow_above: 0.8, shrink_below: 0.5, grow_by: 2, shrink_by: 1, step_every_s: 10 }
    }
}

impl Default for ByArrivals {
    fn default() -> Self {
        Self { half_life_s: 30.0, lead_time_s: 2.0, deviations: 2.0, headroom: 1 }
    }
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::FirstAvailable,
        Self::BestPerformance,
        Self::LeastRecentlyUsed,
        Self::RoundRobin,
        Self::WeightedRandom,
    ];

    /// Its name, as in the configuration, in JSON and in labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstAvailable => "first-available",
            Self::BestPerformance => "best-performance",
            Self::LeastRecentlyUsed => "least-recently-used",
            Self::RoundRobin => "round-robin",
            Self::WeightedRandom => "weighted-random",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Strategy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|strategy| strategy.name() == text);
        let names = || Self::ALL.map(Self::name).join(", ");
        named.ok_or_else(|| format!("unknown strategy {text:?}: use one of {}", names()))
    }
}
