//! Alerts and use, as they go over the wire.

use flames_core::SandboxId;
use flames_core::monitor::AlertInfo;
use flames_metrics::PoolStatus;
use flames_metrics::alert::{Bound, Rule};
use flames_node::usage::RunUsage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What fires, and why it would.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AlertList {
    /// Firing ones first, then pending ones, then those resolved within the last hour.
    pub alerts: Vec<AlertView>,
    /// The rules in force.
    pub rules: Vec<AlertRuleView>,
}

/// An alert that is not quiet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertView {
    /// The rule's name.
    #[schema(example = "allocation-success")]
    pub rule: String,
    /// The pool or the kind of resource; absent when the rule has one alert only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `warning` or `critical`.
    pub severity: String,
    /// What it means.
    pub summary: String,
    /// `firing`, `pending` or `resolved`.
    pub state: String,
    /// The newest value, in the signal's unit.
    pub value: f64,
    /// The rule's bound.
    pub threshold: f64,
    /// Since when it is pending or fires; of a resolved one, when it had begun to fire.
    pub since: Timestamp,
    /// When it was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertRuleView {
    /// Its name.
    pub name: String,
    /// Bad below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Bad above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// How far back is looked, in seconds.
    pub window_s: u64,
    /// How long it must be bad before it fires, in seconds.
    pub for_s: u64,
    /// How long it must be good before it is resolved, in seconds.
    pub keep_firing_for_s: u64,
    /// With fewer events in the window nothing is concluded.
    pub min_count: u64,
    /// `warning` or `critical`.
    pub severity: String,
    /// What it means.
    pub summary: String,
}

/// Who uses how much.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TopView {
    /// By sandbox; one that just ended is left out.
    pub usage: Vec<RunUsageView>,
    /// The warm pools, by template.
    #[schema(value_type = Vec<Object>)]
    pub pools: Vec<PoolStatus>,
}

/// What the VMM of a sandbox uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunUsageView {
    /// The sandbox; absent for a warm VM that nobody has yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Its life in a VM.
    pub run: String,
    /// Process id of the VMM.
    pub pid: u32,
    /// Processor time since the VMM's start.
    pub cpu_seconds: f64,
    /// Memory that is resident, in bytes; what several VMs map counts in each of them.
    pub resident_bytes: u64,
    /// Of that, what no file and no other process provides, in bytes.
    pub private_bytes: u64,
}

impl From<AlertInfo> for AlertView {
    fn from(alert: AlertInfo) -> Self {
        Self {
            rule: alert.rule,
            subject: alert.subject,
            severity: alert.severity.name().to_owned(),
            summary: alert.summary,
            state: alert.state.name().to_owned(),
            value: alert.value,
            threshold: alert.threshold,
            since: alert.since,
            resolved_at: alert.resolved_at,
        }
    }
}

impl From<&Rule> for AlertRuleView {
    fn from(rule: &Rule) -> Self {
        let (below, above) = match rule.bound {
            Bound::Below(bound) => (Some(bound), None),
            Bound::Above(bound) | Bound::AboveTarget(bound) => (None, Some(bound)),
        };
        Self {
            name: rule.name.clone(),
            below,
            above,
            window_s: rule.window.as_secs(),
            for_s: rule.hold.as_secs(),
            keep_firing_for_s: rule.keep_firing.as_secs(),
            min_count: rule.min_count,
            severity: rule.severity.name().to_owned(),
            summary: rule.summary.clone(),
        }
    }
}

impl From<(Option<SandboxId>, RunUsage)> for RunUsageView {
    fn from((sandbox, used): (Option<SandboxId>, RunUsage)) -> Self {
        Self {
            sandbox: sandbox.map(String::from),
            run: used.run.to_string(),
            pid: used.pid,
            cpu_seconds: used.usage.cpu_seconds,
            resident_bytes: used.usage.resident_bytes,
            private_bytes: used.usage.private_bytes,
        }
    }
}
