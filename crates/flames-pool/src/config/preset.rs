//! Named sets of numbers.

use super::{Autoscale, ByArrivals, ByUse, PoolConfig, Strategy, Tiers};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much is kept ready, from little to much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// One running member and one prepared: for a laptop, or a template that is seldom asked for.
    Minimal,
    /// A few of each tier, following the rate of creates.
    #[default]
    Standard,
    /// Many, growing early by use and by rate: for bursts.
    Aggressive,
    /// Running members alone, and many: every create is a hand-out, memory is the price.
    UltraFast,
}

impl Preset {
    /// All of them, the smallest first.
    pub const ALL: [Self; 4] = [Self::Minimal, Self::Standard, Self::Aggressive, Self::UltraFast];

    /// The numbers of this preset for a template.
    pub fn config(self, template: &str) -> PoolConfig {
        let base = PoolConfig { template: template.to_owned(), ..Self::minimal() };
        match self {
            Self::Minimal => base,
            Self::Standard => standard(base),
            Self::Aggressive => aggressive(base),
            Self::UltraFast => ultra_fast(base),
        }
    }

    /// Its name, as in the configuration and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Aggressive => "aggressive",
            Self::UltraFast => "ultra-fast",
        }
    }

    fn minimal() -> PoolConfig {
        PoolConfig {
            template: String::new(),
            vcpus: None,
            memory_mib: None,
            disk_mib: None,
            tiers: Tiers { running: 1, paused: 0, prepared: 1 },
            minimum: 0,
            maximum: 2,
            refill_concurrency: 1,
            max_age_s: 3600,
            health_check_every_s: 60,
            max_replacements: 1,
            strategy: Strategy::FirstAvailable,
            autoscale: Autoscale { by_use: None, by_arrivals: None, cool_down_s: 300 },
        }
    }
}

fn standard(base: PoolConfig) -> PoolConfig {
    PoolConfig {
        tiers: Tiers { running: 2, paused: 2, prepared: 2 },
        minimum: 2,
        maximum: 12,
        refill_concurrency: 2,
        autoscale: Autoscale { by_use: None, by_arrivals: Some(ByArrivals::default()), cool_down_s: 120 },
        ..base
    }
}

fn aggressive(base: PoolConfig) -> PoolConfig {
    let by_arrivals = ByArrivals { half_life_s: 15.0, lead_time_s: 5.0, deviations: 3.0, headroom: 4 };
    PoolConfig {
        tiers: Tiers { running: 8, paused: 4, prepared: 4 },
        minimum: 8,
        maximum: 64,
        refill_concurrency: 4,
        max_replacements: 2,
        health_check_every_s: 30,
        autoscale: Autoscale {
            by_use: Some(ByUse { grow_above: 0.85, shrink_below: 0.6, grow_by: 4, ..ByUse::default() }),
            by_arrivals: Some(by_arrivals),
            cool_down_s: 180,
        },
        ..base
    }
}

fn ultra_fast(base: PoolConfig) -> PoolConfig {
    let by_arrivals = ByArrivals { half_life_s: 10.0, lead_time_s: 5.0, deviations: 3.0, headroom: 8 };
    PoolConfig {
        tiers: Tiers { running: 16, paused: 0, prepared: 0 },
        minimum: 16,
        maximum: 128,
        refill_concurrency: 8,
        max_replacements: 4,
        health_check_every_s: 15,
        max_age_s: 1800,
        autoscale: Autoscale { by_use: None, by_arrivals: Some(by_arrivals), cool_down_s: 300 },
        ..base
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|preset| preset.name() == text);
        let names = || Self::ALL.map(Self::name).join(", ");
        named.ok_or_else(|| format!("unknown preset {text:?}: use one of {}", names()))
    }
}
