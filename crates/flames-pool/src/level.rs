//! Boot levels: what a create may use, how fast it should be, and which way it goes.

use crate::History;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How fast a create should be, chosen per create or per template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BootLevel {
    /// A full cold boot with everything made at that moment. Target: 2 s.
    Standard,
    /// A cold boot with a tuned kernel command line and the agent as init. Target: 1.5 s.
    Fast,
    /// As `fast`, into a network slot and a disk made ahead. Never from a snapshot. Target: 500 ms.
    UltraFast,
    /// Whatever path still meets 2 s by measured history, the one cheapest in resources.
    #[serde(rename = "sub2-second")]
    Sub2Second,
    /// A warm VM, else a restored snapshot, else a cold boot. Target: 100 ms.
    #[default]
    Instant,
}

/// The ways to a running sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BootPath {
    /// A member of the pool was handed out.
    Warm,
    /// The template's snapshot was restored into a new VM.
    Restored,
    /// The kernel was booted.
    Cold,
}

/// What a level may use of what was made ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The tuned kernel command line: quiet, agent as init.
    pub tuned_boot: bool,
    /// Network slots and disks that wait.
    pub slot_and_disk: bool,
    /// The template's snapshot.
    pub snapshot: bool,
    /// Members of the pool.
    pub warm: bool,
}

/// What there is at the moment of a create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// Members of the pool that could be handed out.
    pub warm: u32,
    /// A snapshot of the template's present build is on this node.
    pub snapshot: bool,
    /// A network slot and a disk wait.
    pub slot_and_disk: bool,
}

/// What runs the instructions of guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// The processor itself.
    #[default]
    Hardware,
    /// The VMM, which translates them.
    Emulated,
}

/// The way a create goes, and the reason in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Choice {
    /// The way.
    pub path: BootPath,
    /// For people: why this way.
    pub why: String,
}

impl BootLevel {
    /// All of them, slowest first but for `Sub2Second`.
    pub const ALL: [Self; 5] = [Self::Standard, Self::Fast, Self::UltraFast, Self::Sub2Second, Self::Instant];

    /// The time a create of this level should take at most where a processor runs guests, as on a production host.
    pub fn target(self) -> Duration {
        match self {
            Self::Standard | Self::Sub2Second => Duration::from_secs(2),
            Self::Fast => Duration::from_millis(1500),
            Self::UltraFast => Duration::from_millis(500),
            Self::Instant => Duration::from_millis(100),
        }
    }

    /// The same, by how guests are run. In emulation only what is short is longer: a boot takes about half a second
    /// there, and a restore an eighth, nearly all of it the translation of code that runs for the first time.
    pub fn target_on(self, execution: Execution) -> Duration {
        match (self, execution) {
            (Self::UltraFast, Execution::Emulated) => Duration::from_secs(1),
            (Self::Instant, Execution::Emulated) => Duration::from_millis(300),
            (level, _) => level.target(),
        }
    }

    /// What it may use of what was made ahead.
    pub fn parts(self) -> Parts {
        let all = matches!(self, Self::Sub2Second | Self::Instant);
        Parts {
            tuned_boot: self != Self::Standard,
            slot_and_disk: all || self == Self::UltraFast,
            snapshot: all,
            warm: all,
        }
    }

    /// The ways it may go, fastest first.
    pub fn paths(self) -> &'static [BootPath] {
        match self {
            Self::Standard | Self::Fast | Self::UltraFast => &[BootPath::Cold],
            Self::Sub2Second | Self::Instant => &BootPath::ALL,
        }
    }

    /// Its name, as in the configuration and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Fast => "fast",
            Self::UltraFast => "ultra-fast",
            Self::Sub2Second => "sub2-second",
            Self::Instant => "instant",
        }
    }
}

impl BootPath {
    /// All of them, fastest first.
    pub const ALL: [Self; 3] = [Self::Warm, Self::Restored, Self::Cold];

    /// Its name, as in JSON and in labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Restored => "restored",
            Self::Cold => "cold",
        }
    }
}

/// The way a create of `level` goes.
///
/// `Sub2Second` takes the path that is cheapest in resources (cold before restored before warm: a waiting VM costs
/// memory all the time, a snapshot room on disk, a cold boot nothing beforehand) and whose 99th percentile of the
/// recent durations is within the target. A path with fewer than [`History::ENOUGH`] durations proves nothing: if
/// no path is proved good, the fastest there is by kind is taken, unless every path is known and all are too slow:
/// then the one with the lowest 99th percentile.
pub fn choose_path(level: BootLevel, available: &Available, history: &History) -> Choice {
    match level {
        BootLevel::Standard => cold("level standard is a full boot"),
        BootLevel::Fast => cold("level fast is a tuned boot"),
        BootLevel::UltraFast if available.slot_and_disk => {
            cold("level ultra-fast is a tuned boot, into a ready slot and disk")
        }
        BootLevel::UltraFast => {
            cold("level ultra-fast is a tuned boot; no slot and disk were ready, so they are made first")
        }
        BootLevel::Instant => fastest(available),
        BootLevel::Sub2Second => within(level.target(), available, history),
    }
}

fn cold(why: &str) -> Choice {
    Choice { path: BootPath::Cold, why: why.to_owned() }
}

fn fastest(available: &Available) -> Choice {
    match (available.warm, available.snapshot) {
        (1.., _) => Choice { path: BootPath::Warm, why: "a warm VM was ready".to_owned() },
        (0, true) => Choice {
            path: BootPath::Restored,
            why: "no warm VM was ready; the template has a snapshot on this node".to_owned(),
        },
        (0, false) => cold("no warm VM was ready, and the template has no snapshot on this node"),
    }
}

fn within(target: Duration, available: &Available, history: &History) -> Choice {
    let possible: Vec<_> = BootPath::ALL.into_iter().filter(|path| available.has(*path)).collect();
    let p99 = |path: BootPath| history.trusted_quantile(path, 0.99);
    let cheapest = possible.iter().rev().find(|path| p99(**path).is_some_and(|p99| p99 <= target));
    if let Some((path, p99)) = cheapest.and_then(|path| Some((*path, p99(*path)?))) {
        let why = format!(
            "{} is the cheapest path within {} ms: 99 % of its last {} took at most {} ms",
            path.name(),
            target.as_millis(),
            history.len(path),
            p99.as_millis()
        );
        return Choice { path, why };
    }
    if possible.iter().any(|path| p99(*path).is_none()) {
        let Choice { path, why } = fastest(available);
        let why = format!("too little history to prove a path within {} ms: {why}", target.as_millis());
        return Choice { path, why };
    }
    let least = possible.into_iter().min_by_key(|path| p99(*path)).unwrap_or(BootPath::Cold);
    let why = format!("no path meets {} ms: {} comes closest", target.as_millis(), least.name());
    Choice { path: least, why }
}

impl Available {
    fn has(&self, path: BootPath) -> bool {
        match path {
            BootPath::Warm => self.warm > 0,
            BootPath::Restored => self.snapshot,
            BootPath::Cold => true,
        }
    }
}

/// A name that no level has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel(pub String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = BootLevel::ALL.map(BootLevel::name).join(", ");
        write!(f, "unknown boot level {:?}: use one of {names}", self.0)
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for BootLevel {
    type Err = UnknownLevel;
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let named = Self::ALL.into_iter().find(|level| level.name() == text);
        named.ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

impl fmt::Display for BootLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for BootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
