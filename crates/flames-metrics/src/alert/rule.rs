//! What is watched, and from when on it is bad.

use flames_pool::{BootLevel, Execution};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// One rule. It makes one alert, or one per pool, level or kind of resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Names it in the configuration, in metrics and in notices.
    pub name: String,
    /// What is watched.
    pub signal: Signal,
    /// From when on it is bad.
    pub bound: Bound,
    /// How far back is looked.
    pub window: Duration,
    /// How long it must be bad before the alert fires.
    pub hold: Duration,
    /// How long it must be good again before the alert is resolved.
    pub keep_firing: Duration,
    /// With fewer events than this in the window nothing is concluded.
    pub min_count: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, in a sentence for whoever is woken.
    pub summary: String,
}

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Share of creates that went well, of all that were not rejected: 0 to 1.
    AllocationSuccess,
    /// 99th percentile of the creates of a level that went well, in seconds.
    CreateP99(BootLevel),
    /// Share of creates that got a member of the pool, per pool: 0 to 1.
    PoolHitRate,
    /// Guests that did not acknowledge the handshake.
    HandshakeFailures,
    /// Resources that nobody owns, per kind. Has no window: as many as there are.
    Leaks,
}

/// From when on a value is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// When it is below.
    Below(f64),
    /// When it is above.
    Above(f64),
    /// When it is above the boot level's target on this machine, which is so many seconds.
    AboveTarget(f64),
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Look at it today.
    #[default]
    Warning,
    /// Look at it now.
    Critical,
}

impl Bound {
    /// True for a value that is bad. What is not a number is not bad.
    pub fn is_broken_by(self, value: f64) -> bool {
        match self {
            Self::Below(bound) => value < bound,
            Self::Above(bound) | Self::AboveTarget(bound) => value > bound,
        }
    }

    /// The number itself.
    pub fn value(self) -> f64 {
        match self {
            Self::Below(bound) | Self::Above(bound) | Self::AboveTarget(bound) => bound,
        }
    }
}

impl Severity {
    /// As in labels and notices.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The rules that are in force unless the configuration says otherwise, on a machine that runs guests so.
pub fn defaults(execution: Execution) -> Vec<Rule> {
    let mut rules = vec![allocation_success()];
    rules.extend(BootLevel::ALL.map(|level| create_p99(level, execution)));
    rules.extend([pool_hit_rate(), handshake_failures(), leaks()]);
    rules
}

fn allocation_success() -> Rule {
    Rule {
        name: "allocation-success".into(),
        signal: Signal::AllocationSuccess,
        bound: Bound::Below(0.95),
        window: minutes(5),
        hold: minutes(1),
        keep_firing: minutes(2),
        min_count: 20,
        severity: Severity::Critical,
        summary: "Fewer than 95 % of the creates get a sandbox.".into(),
    }
}

fn create_p99(level: BootLevel, execution: Execution) -> Rule {
    Rule {
        name: format!("create-p99-{level}"),
        signal: Signal::CreateP99(level),
        bound: Bound::AboveTarget(level.target_on(execution).as_secs_f64()),
        window: minutes(5),
        hold: minutes(2),
        keep_firing: minutes(5),
        min_count: 20,
        severity: Severity::Warning,
        summary: format!(
            "One in a hundred creates of level {level} takes longer than the level's target on its machine."
        ),
    }
}

fn pool_hit_rate() -> Rule {
    Rule {
        name: "pool-hit-rate".into(),
        signal: Signal::PoolHitRate,
        bound: Bound::Below(0.8),
        window: minutes(10),
        hold: minutes(5),
        keep_firing: minutes(5),
        min_count: 20,
        severity: Severity::Warning,
        summary:
            "Fewer than 80 % of the creates find a warm VM: the pool is too small or refills too slowly."
                .into(),
    }
}

fn handshake_failures() -> Rule {
    Rule {
        name: "handshake-failures".into(),
        signal: Signal::HandshakeFailures,
        bound: Bound::Above(0.0),
        window: minutes(5),
        hold: Duration::ZERO,
        keep_firing: minutes(5),
        min_count: 0,
        severity: Severity::Critical,
        summary: "A guest did not acknowledge time, entropy, token or identity, and was destroyed.".into(),
    }
}

fn leaks() -> Rule {
    Rule {
        name: "leaks".into(),
        signal: Signal::Leaks,
        bound: Bound::Above(0.0),
        window: minutes(1),
        hold: minutes(2),
        keep_firing: minutes(1),
        min_count: 0,
        severity: Severity::Warning,
        summary: "Resources on the host belong to nobody, and the reaper does not get rid of them.".into(),
    }
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}
