//! One VM of a pool, as the decisions see it.

use crate::Millis;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How far a member is ahead of need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Restored and initialised; its virtual CPUs run. Handed out at once.
    Running,
    /// Restored and initialised; its virtual CPUs stand still. To be resumed first.
    Paused,
    /// Network slot, disk and a VMM process with the snapshot at hand. To be restored first.
    Prepared,
}

/// Where a member is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// Being made; nobody can have it yet.
    Prewarming,
    /// Waits to be handed out.
    Ready,
    /// Being handed out: no longer the pool's to decide about.
    Allocating,
    /// Being ended.
    Stopping,
}

/// What the last health check said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// None was made yet.
    #[default]
    Unchecked,
    /// The agent answered.
    Healthy,
    /// The agent did not answer, or the VMM is gone.
    Unhealthy,
}

/// Why a member is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A health check failed.
    Unhealthy,
    /// It was made from a build of the template that is no longer the present one.
    OutdatedBuild,
    /// It is older than the pool's maximum age.
    TooOld,
    /// There are more than wanted.
    Surplus,
    /// The pool is being emptied: the daemon stops, or the pool was removed.
    Drained,
}

/// One member at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberView {
    /// Names it in the pool, for ever.
    pub id: String,
    /// The place it takes in the pool: the lowest number that no other member had when it was started.
    /// What strategies that spread (`round-robin`, `weighted-random`) spread over.
    pub slot: u32,
    /// How far it is ahead.
    pub tier: Tier,
    /// Where it is in its life.
    pub state: MemberState,
    /// The build of the template it was made from.
    pub build: String,
    /// What the last health check said.
    pub health: Health,
    /// When its making began, in milliseconds of the pool's clock.
    pub started_at: Millis,
    /// When it became ready, in milliseconds of the pool's clock; `None` while it is being made.
    pub ready_at: Option<Millis>,
    /// When the last health check answered; `None` if there was none.
    pub checked_at: Option<Millis>,
    /// How long its making took, in milliseconds; 0 while it is being made.
    pub boot_ms: f64,
}

impl MemberView {
    /// The last moment at which anything ran in it, as far as the pool knows: became ready, or was checked.
    pub fn last_used(&self) -> Millis {
        self.checked_at.or(self.ready_at).unwrap_or(self.started_at)
    }
}

impl Tier {
    /// All of them, the readiest first.
    pub const ALL: [Self; 3] = [Self::Running, Self::Paused, Self::Prepared];

    /// Its name, as in JSON and in labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Prepared => "prepared",
        }
    }
}

impl MemberState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 4] = [Self::Prewarming, Self::Ready, Self::Allocating, Self::Stopping];

    /// Its name, as in JSON and in labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prewarming => "prewarming",
            Self::Ready => "ready",
            Self::Allocating => "allocating",
            Self::Stopping => "stopping",
        }
    }
}

impl Reason {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] =
        [Self::Unhealthy, Self::OutdatedBuild, Self::TooOld, Self::Surplus, Self::Drained];

    /// Its name, as in JSON and in labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::OutdatedBuild => "outdated-build",
            Self::TooOld => "too-old",
            Self::Surplus => "surplus",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
