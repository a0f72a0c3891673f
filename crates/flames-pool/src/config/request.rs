//! A pool as people ask for it: a preset, and what shall differ from it.

use super::{Autoscale, PoolConfig, Preset, Strategy, Tiers};
use serde::{Deserialize, Serialize};

/// A preset and what shall differ from it. What is left out is as in the preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PoolRequest {
    /// Name of the template; names the pool, too.
    pub template: String,
    /// Where the numbers come from. Default: standard.
    pub preset: Preset,
    /// Virtual CPUs of its members. Default: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u8>,
    /// Guest memory of its members in MiB. Default: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Writable disk of its members in MiB. Default: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u32>,
    /// How many of each tier; a tier that is left out is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Tiers>,
    /// Never fewer members than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<u32>,
    /// Never more members than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<u32>,
    /// How many members may be in the making at once, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refill_concurrency: Option<u32>,
    /// A member older than this is replaced, in seconds; 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
    /// How often a ready member is asked whether it is well, in seconds; 0 is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_every_s: Option<u64>,
    /// How many members may be retired for a replacement at once, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replacements: Option<u32>,
    /// Which member is handed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// How the pool follows its load; takes the place of the preset's as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
}

impl PoolRequest {
    /// The whole configuration; not checked yet: see [`PoolConfig::validate`].
    pub fn config(&self) -> PoolConfig {
        let preset = self.preset.config(&self.template);
        PoolConfig {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            tiers: self.tiers.unwrap_or(preset.tiers),
            minimum: self.minimum.unwrap_or(preset.minimum),
            maximum: self.maximum.unwrap_or(preset.maximum),
            refill_concurrency: self.refill_concurrency.unwrap_or(preset.refill_concurrency),
            max_age_s: self.max_age_s.unwrap_or(preset.max_age_s),
            health_check_every_s: self.health_check_every_s.unwrap_or(preset.health_check_every_s),
            max_replacements: self.max_replacements.unwrap_or(preset.max_replacements),
            strategy: self.strategy.unwrap_or(preset.strategy),
            autoscale: self.autoscale.clone().unwrap_or(preset.autoscale),
            template: preset.template,
        }
    }
}
